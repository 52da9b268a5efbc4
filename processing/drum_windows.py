"""The base of the `datasets` builders of windows of drums.

When a builder is made, `datasets` replaces `open`, `os.path` and `Path` in the builder's own
module, and in no other of the package, by functions that also know URLs.
"""

import hashlib
import os
import warnings
from collections.abc import Iterator
from dataclasses import dataclass

import datasets
from datasets.exceptions import DatasetGenerationError

from .counted import counted
from .drum_kit import NUM_DRUMS, resolve_pitch_map
from .errors import DatasetFolderError, MidiError
from .folder_survey import MIDI_SUFFIXES, find_files
from .midi_processor import MidiProcessor
from .training_windows import TrainingWindows

SPLITS = ("train", "validation", "test")

# A MIDI file, as path or bytes, and the values that its examples share.
Recording = tuple[str | bytes, dict]


@dataclass
class DrumWindowsConfig(datasets.BuilderConfig):
    """The settings that decide the examples, and so where `datasets` looks for prepared ones.

    Attributes:
        version: to be raised whenever the same files give other examples than before, for
            `datasets` does not see that code has changed.
        bars, hop_bars, steps_per_bar, pitch_map, channel, adjust_mode: see `MidiProcessor`.
        fingerprint: of the files in `data_dir`, for `datasets` does not see that they have changed.
    """

    version: datasets.Version = datasets.Version("1.1.0")
    bars: int = 4
    hop_bars: int = 1
    steps_per_bar: int = 16
    pitch_map: str | dict = "general_midi"
    channel: int | str = "auto"
    adjust_mode: str = "bars"
    fingerprint: str | None = None


class DrumWindowsBuilder(datasets.GeneratorBasedBuilder):
    """The base of `GrooveMIDI` and `MidiFolder`.

    An example is one window: `piano_roll` uint8 (9, steps), `timing` float32 (9, steps), `bpm`
    float32, `style`, `drummer`, `beat_type` and `midi_filename` strings, and `start_bar` int32, the
    bar of the recording in which the window starts.
    """

    BUILDER_CONFIG_CLASS = DrumWindowsConfig

    def __init__(self, data_dir: str | os.PathLike | None, **kwargs):
        if data_dir is not None:
            data_dir = os.path.abspath(os.path.expanduser(data_dir))
            kwargs["fingerprint"] = _fingerprint(data_dir)
        if "pitch_map" in kwargs:  # or a changed JSON file would go unseen
            kwargs["pitch_map"] = resolve_pitch_map(kwargs["pitch_map"])
        super().__init__(dataset_name=type(self).__name__, data_dir=data_dir, **kwargs)

    @property
    def processor(self) -> MidiProcessor:
        """The processor that cuts these windows."""
        config = self.config
        return MidiProcessor(
            bars=config.bars,
            steps_per_bar=config.steps_per_bar,
            hop_bars=config.hop_bars,
            pitch_map=config.pitch_map,
            channel=config.channel,
            adjust_mode=config.adjust_mode,
        )

    def _info(self) -> datasets.DatasetInfo:
        processor = self.processor
        shape = (NUM_DRUMS, processor.bars * processor.steps_per_bar)
        features = {
            "piano_roll": datasets.Array2D(shape, "uint8"),
            "timing": datasets.Array2D(shape, "float32"),
            "bpm": datasets.Value("float32"),
            "style": datasets.Value("string"),
            "drummer": datasets.Value("string"),
            "beat_type": datasets.Value("string"),
            "midi_filename": datasets.Value("string"),
            "start_bar": datasets.Value("int32"),
        }
        return datasets.DatasetInfo(features=datasets.Features(features))

    def _download_and_prepare(self, *args, **kwargs):
        super()._download_and_prepare(*args, **kwargs)
        source = self.config.data_dir or self.dataset_name
        splits = self.info.splits
        for name in [name for name, split in splits.items() if not split.num_examples]:
            del splits[name]  # `datasets` cannot open an empty one
            warnings.warn(f"{source}: {name} has no windows and is left out", stacklevel=1)
        if not splits:
            raise DatasetFolderError(
                f"{source}: found no recording that fills a window of "
                f"{counted(self.config.bars, 'bar')}"
            )

    def _prepare_split_single(self, *args, **kwargs):
        # Otherwise "An error occurred while generating the dataset" hides which file and why.
        try:
            yield from super()._prepare_split_single(*args, **kwargs)
        except DatasetGenerationError as error:
            if isinstance(error.__cause__, MidiError):
                raise error.__cause__ from None
            raise


def examples(windows: TrainingWindows, labels: dict) -> Iterator[tuple[str, dict]]:
    """The key and the example of each window of a recording; labels come before what it says."""
    columns = zip(windows.piano_roll, windows.timing, windows.bpm, windows.start_bar, strict=True)
    for roll, timing, bpm, start_bar in columns:
        window = {"piano_roll": roll, "timing": timing, "start_bar": start_bar}
        yield f"{labels['midi_filename']}:{start_bar}", {"bpm": bpm, **labels, **window}


def _fingerprint(data_dir: str) -> str:
    """A hash of the names, sizes and times of the files of a dataset."""
    if not os.path.exists(data_dir):
        raise DatasetFolderError(f"data_dir: {data_dir} does not exist")
    paths = [data_dir]
    if os.path.isdir(data_dir):
        names, _ = find_files(data_dir, (*MIDI_SUFFIXES, ".csv"))
        paths = [os.path.join(data_dir, name) for name in names]
    stats = [(path, os.stat(path)) for path in paths]
    content = [(path, status.st_size, status.st_mtime_ns) for path, status in stats]
    return hashlib.sha256(repr(content).encode()).hexdigest()
