"""Windows of the Groove MIDI Dataset as a dataset repository on the Hugging Face Hub."""

import os

from datasets.info import DatasetInfosDict
from huggingface_hub import DatasetCard, DatasetCardData, HfApi

from processing.drum_kit import DRUM_NAMES
from processing.groove_midi import SPLITS, GrooveMIDI

from ..hub import explained_errors, open_repository

TRAIN = "accelerate launch train_accelerate.py --config recipes/groove_4bar.yaml"
# Files of training windows: processes share a streaming dataset file by file.
NUM_SHARDS = 16

METADATA = {
    "license": "cc-by-4.0",
    "pretty_name": "Groove MIDI Dataset in windows of whole bars",
    "tags": ["music", "drums", "midi"],
}

CARD = """\
---
{{ card_data }}
---

# {{ title }}

Windows of the [Groove MIDI Dataset]({{ info.homepage }}) 1.0.0:
drum performances on an electronic Roland TD-11 kit, as piano rolls with velocity and microtiming.
Only performances in 4/4 are in it.

| configuration | bars in a window | bars between starts | train | validation | test |
| --- | --- | --- | --- | --- | --- |
{% for row in rows -%}
| {{ row.name }} | {{ row.bars }} | {{ row.hop_bars }} |
{%- for windows in row.windows %} {{ "{:,}".format(windows) }} |{% endfor %}
{% endfor %}
The last three columns count windows. The splits are those of the Groove MIDI
Dataset, so all windows of a performance are in one.

## Use

```python
from datasets import load_dataset

windows = load_dataset("{{ repository }}", "{{ example.name }}")
train = windows["train"].with_format("numpy")
```

To train a MusicVAE on it; `--streaming true` does so without storing it first:

```bash
{{ train }}
{{ train }} --streaming true
```

## Columns

| column | type | content |
| --- | --- | --- |
| `piano_roll` | uint8 (9, steps) | MIDI velocity of a drum on a step, 1 to 127; 0 where silent |
| `timing` | float32 (9, steps) | how late that hit is, in steps, in [-0.5, 0.5); 0 where silent |
| `bpm` | float32 | tempo in quarters a minute |
| `style` | string | style and, after a slash, substyle |
| `drummer` | string | who plays |
| `beat_type` | string | `beat` or `fill` |
| `midi_filename` | string | the performance, a file of the Groove MIDI Dataset |
| `start_bar` | int32 | its bar in which the window starts; 0 is the first with a hit |

A step is a sixteenth, {{ steps_per_bar }} of them a bar. The drums are, in this order:
{{ drums | join(", ") }}.

## How windows are cut

A hit is on the step nearest to it; of two hits of one drum on one step the louder is kept. Silent
bars before the first hit are dropped, and the last bar is filled up with silence. A new window
starts every so many bars as the table says; windows without a hit are left out, and so are
performances shorter than a window. Windows whose `start_bar` is a multiple of their bars do not
overlap. Rows are in the order of its `info.csv` and, within a performance, of time.

## Licence and citation

Google LLC made the Groove MIDI Dataset available under the [Creative Commons Attribution 4.0
International licence](https://creativecommons.org/licenses/by/4.0/), under which these windows are
too; how they differ from it is described above. Please cite:

> {{ info.citation }}
"""

ADVICE = {
    "elsewhere": "choose another repository",
    "otherwise": "try again later; windows that were made are kept",
}


def push_groove(
    repository: str,
    data_dir: str | os.PathLike | None = None,
    bars: int = 4,
    hop_bars: int = 1,
    private: bool = False,
) -> str:
    """Makes Groove's windows and pushes them as Parquet, as the configuration "{bars}bar".

    Whatever the repository had of that configuration is replaced, in one commit; its others stay.
    Then the repository's card is written anew.

    Args:
        repository: "user/name", or the name of one of yours; it is made if need be.
        data_dir, bars, hop_bars: see `GrooveMIDI`.
        private: make the repository private.

    Returns:
        The repository's address.

    Raises:
        ValueError: an argument is out of range.
        RepositoryError: the repository cannot be written to, which is found out before windows
            are made, or is public against `private`; the message says what to do.
        DatasetFolderError, MidiError: see `GrooveMIDI`.
    """
    groove = GrooveMIDI(data_dir=data_dir, bars=bars, hop_bars=hop_bars)
    name = groove.config.name
    repository, is_private = open_repository(repository, private, "dataset", **ADVICE)
    address = f"{HfApi().endpoint}/datasets/{repository}"
    print(f"Repository  {address}, {'private' if is_private else 'public'}")
    groove.download_and_prepare()
    windows = groove.as_dataset()
    sizes = ", ".join(f"{split} {len(rows):,}" for split, rows in windows.items())
    print(f"Windows     {name}: {sizes}")
    num_shards = dict.fromkeys(windows, 1)
    if "train" in windows:
        num_shards["train"] = min(NUM_SHARDS, len(windows["train"]))
    with explained_errors(repository, **ADVICE):
        windows.push_to_hub(
            repository, name, num_shards=num_shards, commit_message=f"Upload {name}"
        )
        _write_card(repository, groove)
    print(f"Published   {address}")
    return address


def _write_card(repository: str, groove: GrooveMIDI) -> None:
    """Writes what the repository holds into its card, whose metadata stays."""
    known = DatasetCard.load(repository).data
    # What `datasets` writes there does not say how far apart windows start.
    hop_bars = known.get("hop_bars", {}) | {groove.config.name: groove.config.hop_bars}
    steps_per_bar = groove.config.steps_per_bar
    rows = [
        {
            "name": name,
            "bars": info.features["piano_roll"].shape[1] // steps_per_bar,
            "hop_bars": hop_bars[name],
            "windows": [
                info.splits[split].num_examples if split in info.splits else 0 for split in SPLITS
            ],
        }
        for name, info in DatasetInfosDict.from_dataset_card_data(known).items()
        if name in hop_bars
    ]
    rows.sort(key=lambda row: row["bars"])
    example = min(rows, key=lambda row: abs(row["bars"] - 4))  # the recipe's
    train = f"{TRAIN} --data {repository}"
    if example["bars"] != 4:
        train += f" --bars {example['bars']}"
    card = DatasetCard.from_template(
        DatasetCardData(**known.to_dict() | METADATA | {"hop_bars": hop_bars}),
        template_str=CARD,
        title=METADATA["pretty_name"],
        repository=repository,
        rows=rows,
        example=example,
        train=train,
        info=groove.info,
        steps_per_bar=steps_per_bar,
        drums=DRUM_NAMES,
    )
    HfApi().upload_file(
        path_or_fileobj=str(card).encode(),
        path_in_repo="README.md",
        repo_id=repository,
        repo_type="dataset",
        commit_message="Describe the windows",
    )
