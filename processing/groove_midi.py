"""`datasets` builders: windows of drums from the Groove MIDI Dataset or from any MIDI files.

When a builder is made, `datasets` replaces `open`, `os.path` and `Path` in this module, and in no
other of the package, by functions that also know URLs.
"""

import asyncio
import csv
import hashlib
import io
import os
import time
import warnings
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PureWindowsPath

import aiohttp
import datasets
from datasets.exceptions import DatasetGenerationError

from .drum_kit import NUM_DRUMS
from .errors import DatasetFolderError, MidiError, MidiLengthError
from .processing_musicvae import MusicVAEProcessor, Performance

SPLITS = ("train", "validation", "test")
MIDI_SUFFIXES = (".mid", ".midi")
DOWNLOAD_ERRORS = (aiohttp.ClientError, asyncio.TimeoutError, FileNotFoundError, ConnectionError)
DOWNLOAD_ATTEMPTS = 4
# Seconds before the second attempt, twice as many before each further one.
FIRST_WAIT = 1.0
# However long a download takes, as long as it goes on.
DOWNLOAD_TIMEOUT = aiohttp.ClientTimeout(total=None, sock_connect=30, sock_read=60)
LABELS = ("bpm", "style", "drummer", "beat_type", "midi_filename")  # columns of info.csv

# A MIDI file, as path or bytes, and the values that its examples share.
Recording = tuple[str | bytes, dict]


@dataclass
class DrumWindowsConfig(datasets.BuilderConfig):
    """What decides the examples, and so where `datasets` looks for those already prepared.

    Attributes:
        version: to be raised whenever the same files give other examples than before, for
            `datasets` does not see that code has changed.
        bars, hop_bars, steps_per_bar, pitch_map, adjust_mode: see `MusicVAEProcessor`.
        fingerprint: of the files in `data_dir`, for `datasets` does not see that they have changed.
    """

    version: datasets.Version = datasets.Version("1.0.0")
    bars: int = 4
    hop_bars: int = 1
    steps_per_bar: int = 16
    pitch_map: str = "general_midi"
    adjust_mode: str = "bars"
    fingerprint: str | None = None


@dataclass
class MidiFolderConfig(DrumWindowsConfig):
    """`DrumWindowsConfig` and the seed of the split."""

    seed: int = 0


class DrumWindowsBuilder(datasets.GeneratorBasedBuilder):
    """What `GrooveMIDI` and `MidiFolder` share.

    An example is one window: `piano_roll` uint8 (9, steps), `timing` float32 (9, steps), `bpm`
    float32, `style`, `drummer`, `beat_type` and `midi_filename` strings, and `start_bar` int32, the
    bar of the recording in which the window starts.
    """

    BUILDER_CONFIG_CLASS = DrumWindowsConfig

    def __init__(self, data_dir: str | os.PathLike | None, **kwargs):
        if data_dir is not None:
            data_dir = os.path.abspath(os.path.expanduser(data_dir))
            kwargs["fingerprint"] = _fingerprint(data_dir)
        super().__init__(dataset_name=type(self).__name__, data_dir=data_dir, **kwargs)

    @property
    def processor(self) -> MusicVAEProcessor:
        """The processor that cuts these windows."""
        return MusicVAEProcessor(
            bars=self.config.bars,
            steps_per_bar=self.config.steps_per_bar,
            hop_bars=self.config.hop_bars,
            pitch_map=self.config.pitch_map,
            adjust_mode=self.config.adjust_mode,
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
                f"{source}: found no recording that fills a window of {self.config.bars} bars"
            )


class GrooveMIDI(DrumWindowsBuilder):
    """Windows of the Groove MIDI Dataset: 13.6 hours of drumming by ten drummers.

    Only performances in 4/4 are used, and of them those that fill a window. The splits, `bpm`,
    `style`, `drummer` and `beat_type` are those of `info.csv`.

        groove = GrooveMIDI()
        groove.download_and_prepare()
        train = groove.as_dataset("train").with_format("numpy")

    Args:
        config_name: "4bar", "2bar" or "16bar", the length of a window.
        data_dir: the official archive of the MIDI files, or a folder of that layout: with an
            `info.csv`, or with a subfolder `groove` that has one. If not given, the archive is
            downloaded.
        hop_bars: bars from the start of one window to the start of the next.
        bars: bars in a window, for lengths that have no config.
        steps_per_bar: steps in a bar of 4/4.
        **kwargs: `cache_dir` and the other arguments of `datasets.DatasetBuilder`.

    Raises:
        ValueError: an argument is out of range or unknown.
        DatasetFolderError: `data_dir` does not exist; or, when the data is prepared or streamed,
            the archive cannot be downloaded or is not the official one, `info.csv` is absent or
            malformed, a file that it names is missing or lies outside the folder, or no performance
            fills a window.
        MidiError: when the data is prepared or streamed, a MIDI file cannot be used.
    """

    BUILDER_CONFIGS = [
        DrumWindowsConfig(name=f"{bars}bar", bars=bars, pitch_map="roland_td11")
        for bars in (4, 2, 16)
    ]
    ARCHIVE_URL = (
        "https://storage.googleapis.com/magentadata/datasets/groove/groove-v1.0.0-midionly.zip"
    )
    ARCHIVE_BYTES = 3_260_318
    ARCHIVE_SHA256 = "651cbc524ffb891be1a3e46d89dc82a1cecb09a57c748c7b45b844c4841dcc1e"

    def __init__(
        self,
        config_name: str = "4bar",
        data_dir: str | os.PathLike | None = None,
        hop_bars: int = 1,
        bars: int | None = None,
        steps_per_bar: int = 16,
        **kwargs,
    ):
        if bars is not None:
            kwargs.update(name=f"{bars}bar", bars=bars)
        super().__init__(
            data_dir,
            config_name=config_name,
            hop_bars=hop_bars,
            steps_per_bar=steps_per_bar,
            **kwargs,
        )

    def _info(self) -> datasets.DatasetInfo:
        info = super()._info()
        info.description = "Drum performances on a Roland TD-11 kit, in windows of whole bars."
        info.homepage = "https://magenta.tensorflow.org/datasets/groove"
        info.license = "CC BY 4.0"
        info.citation = (
            "Jon Gillick, Adam Roberts, Jesse Engel, Douglas Eck, David Bamman: "
            "Learning to Groove with Inverse Sequence Transformations. ICML 2019."
        )
        return info

    def _split_generators(self, dl_manager) -> list[datasets.SplitGenerator]:
        data_dir = self.config.data_dir
        if data_dir and os.path.isdir(data_dir):
            source, root = data_dir, Path(data_dir)
        else:
            source = data_dir or self.ARCHIVE_URL
            root = _open_zip(self._read_archive(dl_manager), source)
        recordings = {split: [] for split in SPLITS}
        for split, path, labels in _read_info(root, source):
            # The archive is small and of fixed size; a folder may be any size and stays on disk.
            midi = path.read_bytes() if isinstance(path, zipfile.Path) else str(path)
            recordings[split].append((midi, labels))
        return [
            datasets.SplitGenerator(split, {"recordings": recordings[split]})
            for split in SPLITS
            if recordings[split]
        ]

    def _read_archive(self, dl_manager) -> bytes:
        source = self.config.data_dir or self.ARCHIVE_URL
        path = self.config.data_dir or self._download(dl_manager)
        with open(path, "rb") as file:
            data = file.read()
        sha256 = hashlib.sha256(data).hexdigest()
        if sha256 != self.ARCHIVE_SHA256:
            if not self.config.data_dir:
                os.remove(path)  # or `datasets` would never download it again
            raise DatasetFolderError(
                f"{source}: found {len(data):,} bytes with sha256 {sha256}, expected the official "
                f"archive, {self.ARCHIVE_BYTES:,} bytes with sha256 {self.ARCHIVE_SHA256}"
            )
        return data

    def _download(self, dl_manager) -> str:
        """The archive's path in the cache, also for a streaming dataset: it is small."""
        config = dl_manager.download_config
        config.storage_options.setdefault("client_kwargs", {"timeout": DOWNLOAD_TIMEOUT})
        if dl_manager.is_streaming:
            config.cache_dir = self._cache_downloaded_dir
            dl_manager = datasets.DownloadManager(download_config=config)
        for attempt in range(DOWNLOAD_ATTEMPTS):
            try:
                return dl_manager.download(self.ARCHIVE_URL)
            except DOWNLOAD_ERRORS as error:
                # Whatever goes wrong before the first byte comes as a FileNotFoundError.
                cause = isinstance(error, OSError) and error.__cause__ or error
                if attempt == DOWNLOAD_ATTEMPTS - 1 or not _is_transient(cause):
                    raise DatasetFolderError(
                        f"{self.ARCHIVE_URL}: found {_reason(cause)}, expected the archive: try "
                        "again later, or give a copy of it as data_dir"
                    ) from error
            time.sleep(FIRST_WAIT * 2**attempt)

    def _generate_examples(self, recordings: list[Recording]) -> Iterator[tuple[str, dict]]:
        processor = self.processor
        for midi, labels in recordings:
            performance = processor.read(midi, name=labels["midi_filename"])
            yield from _examples(processor, performance, labels)

    def _prepare_split_single(self, *args, **kwargs):
        # Otherwise "An error occurred while generating the dataset" hides which file and why.
        try:
            yield from super()._prepare_split_single(*args, **kwargs)
        except DatasetGenerationError as error:
            if isinstance(error.__cause__, MidiError):
                raise error.__cause__ from None
            raise


class MidiFolder(DrumWindowsBuilder):
    """Windows of all MIDI files, `*.mid` and `*.midi`, in a folder and its subfolders.

    What lies in subfolders `train`, `validation` and `test` belongs to these splits; files beside
    them are left out, with a warning. Without such subfolders a tenth of the files, but at least
    one, is `test`, as many are `validation` and the rest is `train`; of two files one is `train`
    and one `validation`, and a single one is `train`. All windows of a file are in one split.

    The examples have the columns of `GrooveMIDI`, so that both can be concatenated: `bpm` is the
    tempo in the file, and `style`, `drummer` and `beat_type` are empty.

    A file that cannot be used, or is shorter than a window, is skipped with a warning that names
    it and says why; a last warning says how many files of the split were skipped. With `num_proc`,
    each process counts its own share.

        drums = MidiFolder("my_drums")
        drums.download_and_prepare()
        train = drums.as_dataset("train").with_format("numpy")

    Args:
        data_dir: the folder.
        pitch_map, hop_bars, bars, steps_per_bar, adjust_mode: see `MusicVAEProcessor`.
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
        pitch_map: str = "general_midi",
        hop_bars: int = 1,
        bars: int = 4,
        steps_per_bar: int = 16,
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
            adjust_mode=adjust_mode,
            seed=seed,
            **kwargs,
        )

    def _split_generators(self, dl_manager) -> list[datasets.SplitGenerator]:
        folder = self.config.data_dir
        names = [path.relative_to(folder).as_posix() for path in _files(folder, MIDI_SUFFIXES)]
        if not names:
            raise DatasetFolderError(
                f"{folder}: expected a folder with *.mid or *.midi files, found none"
            )
        splits = {split: [n for n in names if n.startswith(f"{split}/")] for split in SPLITS}
        if not any(splits.values()):
            splits = _split_by_hash(names, self.config.seed)
        elif unused := len(names) - sum(map(len, splits.values())):
            warnings.warn(
                f"{folder}: {unused} MIDI files lie outside the subfolders {', '.join(SPLITS)} "
                "and are not used",
                stacklevel=1,
            )
        return [
            datasets.SplitGenerator(
                split,
                {"recordings": [_recording(folder, n) for n in splits[split]], "split": split},
            )
            for split in SPLITS
            if splits[split]
        ]

    def _generate_examples(
        self, recordings: list[Recording], split: str
    ) -> Iterator[tuple[str, dict]]:
        processor, skipped = self.processor, 0
        for path, labels in recordings:
            try:
                performance = processor.read(path)
                _check_length(performance, processor, path)
            except (MidiError, OSError) as error:
                warnings.warn(f"skipped {error}", stacklevel=1)
                skipped += 1
            else:
                yield from _examples(processor, performance, labels)
        if skipped and len(recordings) > 1:  # a streaming dataset passes them one by one
            warnings.warn(
                f"{self.config.data_dir}: skipped {skipped} of {len(recordings)} files of {split}",
                stacklevel=1,
            )


def _examples(
    processor: MusicVAEProcessor, performance: Performance, labels: dict
) -> Iterator[tuple[str, dict]]:
    for roll, timing, start_bar in zip(*processor.split(performance), strict=True):
        window = {"piano_roll": roll, "timing": timing, "start_bar": start_bar}
        key = f"{labels['midi_filename']}:{start_bar}"
        yield key, {"bpm": performance.bpm, **labels, **window}


def _check_length(performance: Performance, processor: MusicVAEProcessor, name: str) -> None:
    num_bars = performance.piano_roll.shape[1] // processor.steps_per_bar
    if num_bars < processor.bars:
        raise MidiLengthError(f"{name}: {num_bars} bars, shorter than a window of {processor.bars}")


def _recording(folder: str, name: str) -> Recording:
    # Arrow takes only text, and the names of old files may have bytes that are none.
    midi_filename = name.encode("utf-8", "backslashreplace").decode()
    labels = {"midi_filename": midi_filename, "style": "", "drummer": "", "beat_type": ""}
    return os.path.join(folder, name), labels


def _files(folder: str, suffixes: tuple[str, ...]) -> list[Path]:
    """The files with one of these suffixes in a folder and its subfolders, but no hidden ones."""
    return sorted(
        path
        for path in Path(folder).rglob("*")
        if path.suffix.lower() in suffixes and not path.name.startswith(".") and path.is_file()
    )


def _fingerprint(data_dir: str) -> str:
    """Another one for each change in the names, sizes and times of the files of a dataset."""
    if not os.path.exists(data_dir):
        raise DatasetFolderError(f"data_dir: {data_dir} does not exist")
    is_folder = os.path.isdir(data_dir)
    paths = _files(data_dir, (*MIDI_SUFFIXES, ".csv")) if is_folder else [Path(data_dir)]
    stats = [(path.as_posix(), path.stat()) for path in paths]
    content = [(name, stat.st_size, stat.st_mtime_ns) for name, stat in stats]
    return hashlib.sha256(repr(content).encode()).hexdigest()


def _split_by_hash(names: list[str], seed: int) -> dict[str, list[str]]:
    # Not a shuffle: a few files more should not move all the others to another split.
    ranked = sorted(names, key=lambda name: hashlib.sha256(repr((seed, name)).encode()).digest())
    tenth = max(1, len(names) // 10)
    num_test = tenth if len(names) > 2 else 0
    num_held_out = num_test + (tenth if len(names) > 1 else 0)
    return {
        "train": sorted(ranked[num_held_out:]),
        "validation": sorted(ranked[num_test:num_held_out]),
        "test": sorted(ranked[:num_test]),
    }


def _is_transient(error: Exception) -> bool:
    """True if the same download may work in a while."""
    if isinstance(error, aiohttp.ClientResponseError):
        return error.status in (408, 429) or error.status >= 500
    return isinstance(error, (aiohttp.ClientError, asyncio.TimeoutError))


def _reason(error: Exception) -> str:
    if isinstance(error, aiohttp.ClientResponseError):
        return f"{error.status} {error.message}"
    return f"{type(error).__name__}: {error}"


def _open_zip(data: bytes, source: str) -> zipfile.Path:
    archive = zipfile.ZipFile(io.BytesIO(data))
    for name in archive.namelist():
        _check_inside(name, source)
    return zipfile.Path(archive)


def _check_inside(name: str, where: str) -> None:
    path = PureWindowsPath(name)  # which knows the separators of all systems
    if path.anchor or ".." in path.parts:
        raise DatasetFolderError(f"{where}: found path {name!r}, which leads outside")


def _read_info(
    root: Path | zipfile.Path, source: str
) -> Iterator[tuple[str, Path | zipfile.Path, dict]]:
    """The split, the MIDI file and the labels of each performance in 4/4."""
    folder = next((f for f in (root, root / "groove") if (f / "info.csv").is_file()), None)
    if folder is None:
        raise DatasetFolderError(f"{source}: found neither info.csv nor groove/info.csv")
    where = f"{source}: info.csv"
    try:
        text = (folder / "info.csv").read_text(encoding="utf-8-sig")
        reader = csv.DictReader(io.StringIO(text), restval="")
        rows = list(reader)
    except (UnicodeDecodeError, csv.Error) as error:
        raise DatasetFolderError(f"{where}: not a table in UTF-8: {error}") from error
    columns = (*LABELS, "time_signature", "split")
    if missing := [column for column in columns if column not in (reader.fieldnames or ())]:
        raise DatasetFolderError(f"{where}: found no column {', '.join(missing)}")
    names = set()
    for row in rows:
        if row["time_signature"] != "4-4":
            continue
        name, split = row["midi_filename"], row["split"]
        _check_inside(name, where)
        if name in names:
            raise DatasetFolderError(f"{where}: found {name!r} twice")
        if split not in SPLITS:
            raise DatasetFolderError(
                f"{where}: split of {name!r}: found {split!r}, expected one of {SPLITS}"
            )
        if not (folder / name).is_file():
            raise DatasetFolderError(f"{where}: found {name!r}, but there is no such file")
        try:
            row["bpm"] = float(row["bpm"])
        except ValueError:
            raise DatasetFolderError(
                f"{where}: bpm of {name!r}: found {row['bpm']!r}, expected a number"
            ) from None
        names.add(name)
        yield split, folder / name, {label: row[label] for label in LABELS}
    if not names:
        raise DatasetFolderError(f"{where}: found no performance in 4/4")
