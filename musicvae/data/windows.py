"""Windows of drums, by split, from any source of data."""

import os
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import datasets
import numpy as np

from processing import GrooveMIDI, MidiFolder
from processing.demo_grooves import write_demo_grooves
from processing.drum_kit import NUM_DRUMS
from processing.errors import DatasetFolderError

from ..terminal import one_line

# Data that are made of MIDI files; all other names are for `datasets.load_dataset`.
MIDI_DATA = ("groove", "midi_folder", "demo")

# Windows on the disk, or windows that come one after another.
WindowDataset: TypeAlias = datasets.Dataset | datasets.IterableDataset


def load_windows(
    split: str,
    data: str = "groove",
    data_dir: str | os.PathLike | None = None,
    bars: int = 4,
    steps_per_bar: int = 16,
    hop_bars: int = 1,
    streaming: bool = False,
    num_proc: int | None = None,
) -> WindowDataset:
    """The windows of a split, with the columns of `GrooveMIDI`, in NumPy's format.

    Args:
        split: "train", "validation" or "test".
        data: "groove", "midi_folder", "demo", or a dataset of windows: its name on the Hub or its
            folder.
        data_dir: Groove's zip or folder, the folder of MIDI files, or the folder that demo grooves
            are in or are written to.
        bars: bars in a window.
        steps_per_bar: steps in a bar.
        hop_bars: bars between the starts of two windows; `bars` for windows that do not overlap.
        streaming: read windows as they come, not from a copy on the disk.
        num_proc: processes that read MIDI files.

    Raises:
        DatasetFolderError: see `GrooveMIDI`, `MidiFolder` and `load_dataset`.
        ValueError: the split has no windows, or windows of another shape.
    """
    splits = load_splits(data, data_dir, bars, steps_per_bar, streaming, num_proc)
    source = data_dir or data
    if split not in splits:
        raise ValueError(f"{source}: found no window for the {split} split")
    windows = splits[split]
    shape = (NUM_DRUMS, bars * steps_per_bar)
    found = (windows.features or {}).get("piano_roll")
    if getattr(found, "shape", None) != shape:
        raise ValueError(
            f"{source}: piano_roll of the {split} split: found {found}, expected Array2D of shape "
            f"{shape}, as `musicvae push-data` makes it"
        )
    if isinstance(windows, datasets.Dataset):
        starts = windows.with_format("numpy")["start_bar"][:]
        windows = windows.select(np.flatnonzero(starts % hop_bars == 0))
    elif hop_bars > 1:
        starting = partial(starts_every, hop_bars)
        windows = windows.with_format("arrow").filter(starting, batched=True)
    return windows.with_format("numpy")


def load_splits(
    data: str,
    data_dir: str | os.PathLike | None,
    bars: int,
    steps_per_bar: int,
    streaming: bool,
    num_proc: int | None,
) -> dict[str, WindowDataset]:
    """Windows that start at each bar, by split; see `load_windows`."""
    if data not in MIDI_DATA:
        return load_dataset(data, f"{bars}bar", streaming)
    if data == "demo":
        data_dir = Path(data_dir or Path(datasets.config.HF_DATASETS_CACHE, "demo_grooves"))
        if not data_dir.exists():
            write_demo_grooves(data_dir)
    Builder = MidiFolder if data == "midi_folder" else GrooveMIDI
    builder = Builder(
        data_dir=None if data_dir is None else str(data_dir),
        bars=bars,
        steps_per_bar=steps_per_bar,
    )
    if streaming:
        return builder.as_streaming_dataset()
    builder.download_and_prepare(num_proc=num_proc)
    return builder.as_dataset()


def load_dataset(data: str, name: str, streaming: bool) -> Any:
    """The splits of a configuration of a dataset of windows.

    Raises:
        DatasetFolderError: it is damaged, or has something else.
        OSError: there is no such dataset.
    """
    try:
        return datasets.load_dataset(data, name, streaming=streaming)
    except OSError:
        raise
    except Exception as error:  # of datasets, of pyarrow, or of YAML
        raise DatasetFolderError(
            f"{data}: found {type(error).__name__}: {one_line(error):.200}, expected a dataset of "
            f"windows with a configuration {name}, as `musicvae push-data` makes it"
        ) from error


def some_windows(windows: WindowDataset, limit: int) -> WindowDataset:
    """Up to so many windows: of all, spread evenly, or of a stream, the first ones."""
    if isinstance(windows, datasets.IterableDataset):
        return windows.take(limit)
    return windows.select(range(0, len(windows), -(-len(windows) // limit)))


def main_style(style: str) -> str:
    """ "funk" of "funk/groove1", as Groove calls a style and its substyle."""
    return style.partition("/")[0]


def starts_every(hop_bars: int, windows: Any) -> np.ndarray:
    return windows["start_bar"].to_numpy() % hop_bars == 0
