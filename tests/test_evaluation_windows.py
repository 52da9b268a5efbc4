"""Windows of a split, against those that training sees."""

import numpy as np
import pytest
import torch
from factories import random_windows
from hypothesis import given
from hypothesis import strategies as st

from musicvae.evaluation.windows import Windows
from processing import GrooveMIDI


@pytest.mark.parametrize(("split", "hop_bars"), [("validation", 4), ("train", 1)])
def test_windows_are_those_of_the_dataset(demo_grooves, split, hop_bars):
    windows = Windows.load(split, data_dir=demo_grooves, hop_bars=hop_bars)
    builder = GrooveMIDI(data_dir=demo_grooves, hop_bars=hop_bars)
    builder.download_and_prepare()
    dataset = builder.as_dataset(split).with_format("numpy")[:]
    for name in ("piano_roll", "timing", "bpm"):
        assert np.array_equal(getattr(windows, name), dataset[name])
    assert (windows.piano_roll.dtype, windows.timing.dtype) == (torch.uint8, torch.float32)
    assert windows.style == dataset["style"].tolist()
    pairs = set(zip(windows.file.tolist(), dataset["midi_filename"], strict=True))
    assert len(pairs) == len(windows.file.unique()) == len(np.unique(dataset["midi_filename"]))


def test_windows_are_as_long_as_asked_for(demo_grooves):
    windows = Windows.load("test", data_dir=demo_grooves, bars=2, steps_per_bar=24)
    assert windows.piano_roll.shape[1:] == (9, 48)


def test_a_folder_of_midi_files_has_neither_styles_nor_splits_of_its_own(tmp_path, write_drums):
    for number in range(3):
        write_drums(tmp_path / f"{number}.mid", bars=8, seed=number)
    windows = Windows.load("test", data="midi_folder", data_dir=tmp_path, hop_bars=4)
    assert windows.style == ["", ""]
    assert windows.file.tolist() == [0, 0]


@given(batch_size=st.integers(1, 8))
def test_batches_are_all_windows_in_order(batch_size):
    windows = random_windows(6)
    batches = list(windows.batches(batch_size))
    assert [len(batch) for batch in batches[:-1]] == [batch_size] * (len(batches) - 1)
    for name in ("piano_roll", "timing", "bpm", "file"):
        joined = torch.cat([getattr(batch, name) for batch in batches])
        assert torch.equal(joined, getattr(windows, name))
    assert sum([batch.style for batch in batches], []) == windows.style
