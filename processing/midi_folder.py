"""`datasets` builder: windows of drums from a folder of MIDI files."""

import hashlib
import os
import warnings
from collections.abc import Iterator
from dataclasses import dataclass

import datasets

from .counted import counted
from .drum_windows import SPLITS, DrumWindowsBuilder, DrumWindowsConfig, Recording, examples
from .errors import DatasetFolderError, MidiError
from .folder_survey import (
    MIDI_SUFFIXES,
    Finding,
    Survey,
    read_log,
    read_windows,
    summary,
    survey_folder,
    write_log,
)

LOG_NAME = "midi_folder.jsonl"


@dataclass
class MidiFolderConfig(DrumWindowsConfig):
    """`DrumWindowsConfig` and the seed of the split."""

    seed: int = 0


class MidiFolder(DrumWindowsBuilder):
    """Windows of all MIDI files in a folder, its subfolders and folders that are linked there.

    What lies in subfolders `train`, `validation` and `test` belongs to these splits. Without such
    subfolders a tenth of the files, but at least one, is `test`, as many are `validation` and the
    rest is `train`; of two files one is `train` and one `validation`, and a single one is `train`.
    All windows of a file are in one split, and so are files with the same drums.

    The examples have the columns of `GrooveMIDI`, so that both can be concatenated: `bpm` is the
    tempo in the file, and `style`, `drummer` and `beat_type` are empty.

    Files that cannot be used are found before the split is made. A warning sums up, reason by
    reason, which files and notes are left out; every case stands in `log_path`.

        drums = MidiFolder("my_drums")
        drums.download_and_prepare()
        train = drums.as_dataset("train").with_format("numpy")

    Args:
        data_dir: the folder.
        pitch_map, hop_bars, bars, steps_per_bar, channel, adjust_mode: see `MidiProcessor`.
        seed: decides which files are in which split, where there are no subfolders for them.
        **kwargs: `cache_dir` and the other arguments of `datasets.DatasetBuilder`.

    Raises:
        ValueError: an argument is out of range or unknown.
        DatasetFolderError: `data_dir` does not exist; or, when the data is prepared or streamed,
            it has no MIDI file, or none that can be used.
    """

    BUILDER_CONFIG_CLASS = MidiFolderConfig

    def __init__(
        self,
        data_dir: str | os.PathLike,
        pitch_map: str | os.PathLike | dict = "general_midi",
        hop_bars: int = 1,
        bars: int = 4,
        steps_per_bar: int = 16,
        channel: int | str = "auto",
        adjust_mode: str = "bars",
        seed: int = 0,
        **kwargs,
    ):
        super().__init__(
            data_dir,
            config_name=f"{bars}bar",
            pitch_map=pitch_map,
            hop_bars=hop_bars,
            bars=bars,
            steps_per_bar=steps_per_bar,
            channel=channel,
            adjust_mode=adjust_mode,
            seed=seed,
            **kwargs,
        )
        self._findings: list[Finding] = []

    @property
    def log_path(self) -> str:
        """The file that says of each file, one JSON object a line, what is left out and why."""
        return os.path.join(self._output_dir or self.cache_dir, LOG_NAME)

    def download_and_prepare(self, *args, **kwargs) -> None:
        super().download_and_prepare(*args, **kwargs)
        self._report(read_log(self.log_path), f"; see {self.log_path}")

    def _download_and_prepare(self, *args, **kwargs):
        super()._download_and_prepare(*args, **kwargs)
        write_log(self.log_path, self._findings)

    def as_streaming_dataset(self, *args, **kwargs):
        stream = super().as_streaming_dataset(*args, **kwargs)
        self._report(self._findings, "")
        return stream

    def _report(self, findings: list[Finding], where: str) -> None:
        if findings:
            left_out = sum(finding.is_left_out for finding in findings)
            files = counted(left_out, "file")
            text = f"{files} left out, and something of {len(findings) - left_out}"
            text = f"{self.config.data_dir}: {text}{where}\n{summary(findings)}"
            warnings.warn(text, stacklevel=3)

    def _split_generators(self, dl_manager) -> list[datasets.SplitGenerator]:
        folder = self.config.data_dir
        survey = survey_folder(folder, self.processor)
        if not survey.contents:
            expected = f"expected a folder with MIDI files, {', '.join(MIDI_SUFFIXES)}"
            found = f"\n{summary(survey.findings)}" if survey.findings else " none"
            raise DatasetFolderError(f"{folder}: {expected}, that fill a window, found{found}")
        splits, findings = _split(survey, self.config.seed)
        self._findings = survey.findings + findings
        return [
            datasets.SplitGenerator(
                split, {"recordings": [_recording(folder, name) for name in splits[split]]}
            )
            for split in SPLITS
            if splits[split]
        ]

    def _generate_examples(self, recordings: list[tuple[str, dict]]) -> Iterator[tuple[str, dict]]:
        processor = self.processor
        for path, labels in recordings:
            try:
                windows = read_windows(path, processor)
            except (MidiError, OSError) as error:  # it has changed since the survey
                warnings.warn(f"skipped {error}", stacklevel=1)
            else:
                yield from examples(windows, labels)


def _split(survey: Survey, seed: int) -> tuple[dict[str, list[str]], list[Finding]]:
    """The files of each split, and which are in none."""
    folders = {name: name.partition("/")[0] for name in survey.contents}
    if not set(folders.values()) & set(SPLITS):
        return _split_by_hash(survey.contents, seed), []
    splits: dict[str, list[str]] = {split: [] for split in SPLITS}
    first: dict[str, str] = {}  # the first file with these drums
    findings = []
    for split in SPLITS:
        for name in (name for name, folder in folders.items() if folder == split):
            other = first.setdefault(survey.contents[name], name)
            if folders[other] == split:
                splits[split].append(name)
            else:
                reason = "the same drums as a file of another split"
                findings.append(Finding(reason, name, f"the same drums as {other}", True))
    outside = f"outside of the subfolders {', '.join(SPLITS)}"
    findings += [
        Finding(outside, name, outside, True)
        for name, folder in folders.items()
        if folder not in SPLITS
    ]
    return splits, findings


def _split_by_hash(contents: dict[str, str], seed: int) -> dict[str, list[str]]:
    """Files by split; those with the same drums go together, under the name of the first."""
    groups: dict[str, list[str]] = {}
    for name, content in contents.items():
        groups.setdefault(content, []).append(name)
    files = {names[0]: names for names in groups.values()}
    # Not a shuffle: a few files more should not move all the others to another split.
    ranked = sorted(files, key=lambda name: hashlib.sha256(repr((seed, name)).encode()).digest())
    tenth = max(1, len(files) // 10)
    num_test = tenth if len(files) > 2 else 0
    num_held_out = num_test + (tenth if len(files) > 1 else 0)
    parts = {
        "train": ranked[num_held_out:],
        "validation": ranked[num_test:num_held_out],
        "test": ranked[:num_test],
    }
    return {split: sorted(sum((files[n] for n in part), [])) for split, part in parts.items()}


def _recording(folder: str, name: str) -> Recording:
    # Arrow takes only text, and the names of old files may have bytes that are none.
    midi_filename = name.encode("utf-8", "backslashreplace").decode()
    labels = {"midi_filename": midi_filename, "style": "", "drummer": "", "beat_type": ""}
    return os.path.join(folder, name), labels
