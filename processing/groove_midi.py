"""`datasets` builder: windows of drums from the Groove MIDI Dataset."""

import asyncio
import csv
import hashlib
import io
import os
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path, PureWindowsPath

import aiohttp
import datasets

from .drum_windows import SPLITS, DrumWindowsBuilder, DrumWindowsConfig, Recording, examples
from .errors import DatasetFolderError
from .midi_file import MAX_BPM, MIN_BPM
from .regular_files import check_regular_file, read_regular_file

MAX_ARCHIVE_BYTES = 1 << 24  # five times the official archive
MAX_INFO_BYTES = 1 << 24
DOWNLOAD_ERRORS = (aiohttp.ClientError, asyncio.TimeoutError, FileNotFoundError, ConnectionError)
DOWNLOAD_ATTEMPTS = 4
# Seconds before the second attempt, twice as many before each further one.
FIRST_WAIT = 1.0
# However long a download takes, as long as it goes on.
DOWNLOAD_TIMEOUT = aiohttp.ClientTimeout(total=None, sock_connect=30, sock_read=60)
LABELS = ("bpm", "style", "drummer", "beat_type", "midi_filename")  # columns of info.csv


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
        root: Path | zipfile.Path
        if data_dir and os.path.isdir(data_dir):
            source, root = data_dir, Path(data_dir)
        else:
            source = data_dir or self.ARCHIVE_URL
            root = _open_zip(self._read_archive(dl_manager), source)
        recordings: dict[str, list[Recording]] = {split: [] for split in SPLITS}
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
        found = _unlike_archive(path)
        if not found:
            data = read_regular_file(path, MAX_ARCHIVE_BYTES)
            sha256 = hashlib.sha256(data).hexdigest()
            if sha256 == self.ARCHIVE_SHA256:
                return data
            found = f"{len(data):,} bytes with sha256 {sha256}"
        if not self.config.data_dir:
            os.remove(path)  # or `datasets` would never download it again
        raise DatasetFolderError(
            f"{source}: found {found}, expected the official archive, {self.ARCHIVE_BYTES:,} bytes "
            f"with sha256 {self.ARCHIVE_SHA256}"
        )

    def _download(self, dl_manager) -> str:
        """The archive's path in the cache, also for a streaming dataset: it is small."""
        config = dl_manager.download_config
        config.storage_options.setdefault("client_kwargs", {"timeout": DOWNLOAD_TIMEOUT})
        if dl_manager.is_streaming:
            config.cache_dir = self._cache_downloaded_dir
            dl_manager = datasets.DownloadManager(download_config=config)
        attempt = 1
        while True:
            try:
                return dl_manager.download(self.ARCHIVE_URL)
            except DOWNLOAD_ERRORS as error:
                # Whatever goes wrong before the first byte comes as a FileNotFoundError.
                cause = isinstance(error, OSError) and error.__cause__ or error
                if attempt == DOWNLOAD_ATTEMPTS or not _is_transient(cause):
                    raise DatasetFolderError(
                        f"{self.ARCHIVE_URL}: found {_reason(cause)}, expected the archive: try "
                        "again later, or give a copy of it as data_dir"
                    ) from error
            time.sleep(FIRST_WAIT * 2 ** (attempt - 1))
            attempt += 1

    def _generate_examples(self, recordings: list[Recording]) -> Iterator[tuple[str, dict]]:
        processor = self.processor
        for midi, labels in recordings:
            windows = processor.training_windows(midi, name=labels["midi_filename"])
            yield from examples(windows, labels)


def _unlike_archive(path: str) -> str | None:
    """Why a file cannot be the archive, before it is read: it may be endless."""
    try:
        size = check_regular_file(path).st_size
    except OSError as error:
        return str(error)
    return f"{size:,} bytes" if size > MAX_ARCHIVE_BYTES else None


def _is_transient(error: BaseException) -> bool:
    """True if the same download may work in a while."""
    if isinstance(error, aiohttp.ClientResponseError):
        return error.status in (408, 429) or error.status >= 500
    return isinstance(error, (aiohttp.ClientError, asyncio.TimeoutError))


def _reason(error: BaseException) -> str:
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
    with (folder / "info.csv").open("rb") as file:
        data = file.read(MAX_INFO_BYTES + 1)
    if len(data) > MAX_INFO_BYTES:
        raise DatasetFolderError(f"{where}: found more than {MAX_INFO_BYTES:,} bytes")
    try:
        text = data.decode("utf-8-sig")
        reader = csv.DictReader(io.StringIO(text, newline=None), restval="")
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
        names.add(name)
        labels = {label: row[label] for label in LABELS}
        yield split, folder / name, labels | {"bpm": _bpm(row["bpm"], f"{where}: bpm of {name!r}")}
    if not names:
        raise DatasetFolderError(f"{where}: found no performance in 4/4")


def _bpm(text: str, where: str) -> float:
    try:
        bpm = float(text)
    except ValueError:
        bpm = float("nan")
    if not MIN_BPM <= bpm <= MAX_BPM:
        raise DatasetFolderError(
            f"{where}: found {text!r}, expected a number from {MIN_BPM:g} to {MAX_BPM:g}"
        )
    return bpm
