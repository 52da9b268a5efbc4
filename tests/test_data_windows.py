"""Batches: what is in them, in which order, augmented how, and data that is refused."""

from collections import Counter
from itertools import islice

import numpy as np
import pytest
import torch
from accelerate import Accelerator, skip_first_batches
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import BatchSampler, DataLoader
from training_runs import parse

from musicvae.data.batches import EpochStream, augment, collate, fingerprint, load_data
from processing.errors import DatasetFolderError


def windows(batch: dict[str, torch.Tensor]) -> list[bytes]:
    return [timing.numpy().tobytes() for timing in batch["timing"].cpu()]  # no two are alike


def batches(loader: DataLoader, step: int, count: int) -> list[list[bytes]]:
    return [windows(batch) for batch in islice(skip_first_batches(loader, step), count)]


def test_a_batch_is_what_the_dataset_holds(loaders):
    _, eval_loader = loaders
    batch, first = next(iter(eval_loader)), eval_loader.dataset[0]
    dtypes = {name: column.dtype for name, column in batch.items()}
    assert dtypes == {
        "piano_roll": torch.uint8,
        "timing": torch.float32,
        "bpm": torch.float32,
    }
    for name, column in batch.items():
        assert np.array_equal(column[0].cpu(), first[name])


def test_training_windows_start_every_hop_and_validation_windows_do_not_overlap(loaders):
    train_starts, eval_starts = (
        Counter(loader.dataset.with_format(None)["start_bar"]) for loader in loaders
    )
    assert set(train_starts) == set(range(0, max(train_starts) + 1, 2))
    assert set(eval_starts) == set(range(0, max(eval_starts) + 1, 4))


def test_an_epoch_sees_every_window_once_and_the_next_in_another_order(loaders):
    loader, _ = loaders
    every, num_windows = collate(list(loader.dataset)), len(loader.dataset)
    stream = sum(batches(loader, 0, 2 * num_windows // loader.total_batch_size + 1), [])
    epoch, next_epoch = stream[:num_windows], stream[num_windows : 2 * num_windows]
    assert len(set(epoch)) == num_windows
    assert sorted(epoch) == sorted(next_epoch) == sorted(windows(every))
    assert epoch != next_epoch


@pytest.mark.parametrize("epochs", [0, 1, 2])
@pytest.mark.parametrize("offset", [0, 1, -1])
def test_batches_from_a_step_on_are_those_of_a_run_that_never_stopped(loaders, epochs, offset):
    loader, _ = loaders
    epoch_steps = len(loader.dataset) / loader.total_batch_size
    step, last_step = max(int(epochs * epoch_steps) + offset, 0), int(3 * epoch_steps)
    uninterrupted = batches(loader, 0, last_step)
    assert batches(loader, step, last_step - step) == uninterrupted[step:]


def numbers(stream: EpochStream, count: int) -> list[int]:
    return list(islice(stream, count))


sizes, seeds = st.integers(1, 50), st.integers(0, 2**32)


@given(num_windows=sizes, seed=seeds)
def test_every_epoch_of_the_stream_has_every_window_once(num_windows, seed):
    stream = numbers(EpochStream(num_windows, seed), 3 * num_windows)
    for epoch in range(3):
        assert sorted(stream[epoch * num_windows :][:num_windows]) == list(range(num_windows))


def test_each_epoch_and_each_seed_has_an_order_of_its_own():
    epochs = BatchSampler(EpochStream(100, seed=0), 100, drop_last=False)
    orders = [tuple(order) for order in islice(epochs, 10)]
    orders += [tuple(numbers(EpochStream(100, seed), 100)) for seed in range(1, 10)]
    assert len(set(orders)) == len(orders) == 19


def test_all_batches_are_full_though_no_epoch_is_a_whole_number_of_them(loaders):
    loader, _ = loaders
    batch_size = loader.total_batch_size
    assert len(loader.dataset) % batch_size > 0
    lengths = [len(batch) for batch in batches(loader, 0, 20)]
    assert lengths == [batch_size] * 20 and 20 * batch_size > 2 * len(loader.dataset)


def test_the_fingerprint_is_that_of_the_windows(loaders):
    train_windows, eval_windows = (loader.dataset for loader in loaders)
    every = range(len(train_windows))
    prints = [
        fingerprint(DataLoader(windows))
        for windows in (
            train_windows,
            train_windows.select(every),
            eval_windows,
            train_windows.select(every[:-1]),
            train_windows.select([1, 0, *every[2:]]),
        )
    ]
    assert prints[0] == prints[1]
    assert len(set(prints)) == 4


@pytest.fixture
def random_drums() -> dict[str, torch.Tensor]:
    """A batch of 200 windows; only hits have a timing."""
    torch.manual_seed(1)
    hits = torch.rand(200, 9, 64) < 0.3
    rolls = (torch.randint(1, 128, hits.shape) * hits).to(torch.uint8)
    timing = (torch.rand(hits.shape) - 0.5) * hits
    return {"piano_roll": rolls, "timing": timing, "bpm": torch.full((200,), 120.0)}


def test_drums_are_trained_on_as_they_were_played_unless_augmentation_is_asked_for(random_drums):
    piano_roll, timing = augment(random_drums, parse())
    assert piano_roll is random_drums["piano_roll"]
    assert timing is random_drums["timing"]


def test_hit_dropout_takes_hits_and_leaves_the_others_as_they_are(random_drums):
    before, timing_before = random_drums["piano_roll"], random_drums["timing"]
    piano_roll, timing = augment(random_drums, parse(hit_dropout=1.0))
    kept = piano_roll > 0
    assert torch.equal(piano_roll, before * kept)
    assert torch.equal(timing, timing_before * kept)
    soft, loud = ((before > low) & (before < low + 32) for low in (0, 95))
    # A sequence's chance is 1/2 on average; a hit's is that times 1 - velocity / 127, at least 1/5.
    assert (1 - kept[soft].float().mean()).item() == pytest.approx(0.5 * (1 - 16 / 127), abs=0.05)
    assert (1 - kept[loud].float().mean()).item() == pytest.approx(0.5 * 0.2, abs=0.05)


def test_velocity_scaling_makes_whole_sequences_louder_or_softer(random_drums):
    before = random_drums["piano_roll"]
    piano_roll, timing = augment(random_drums, parse(velocity_scaling=0.25))
    assert torch.equal(piano_roll > 0, before > 0)
    assert torch.equal(timing, random_drums["timing"])
    factors = []
    for old, new in zip(before.double(), piano_roll.double(), strict=True):
        free = (old > 0) & (new < 127)  # not cut off
        factor = (new[free].sum() / old[free].sum()).item()
        assert (new - old * factor)[free].abs().max() < 1  # one factor, but for rounding
        factors.append(factor)
    assert 0.79 < min(factors) < 0.82
    assert 1.22 < max(factors) < 1.26


@pytest.mark.parametrize("data", ["groove", "midi_folder"])
def test_the_processor_reads_the_files_of_users(data, demo_grooves, write_drums, tmp_path):
    for seed in range(3):
        write_drums(tmp_path / f"{seed}.mid", bars=2, seed=seed)
    data_dir = demo_grooves if data == "groove" else tmp_path
    arguments = parse(data=data, data_dir=data_dir, bars=2, steps_per_bar=8)
    _, eval_loader, processor = load_data(Accelerator(), arguments)
    path = data_dir / eval_loader.dataset.with_format(None)[0]["midi_filename"]
    assert (processor.pitch_map, processor.adjust_mode) == ("general_midi", "none")
    assert processor(path).piano_roll.shape[1:] == eval_loader.dataset[0]["piano_roll"].shape


@pytest.mark.parametrize("data", ["groove", "midi_folder"])
def test_a_data_dir_that_does_not_exist(data, train, tmp_path):
    with pytest.raises(DatasetFolderError, match=f"{tmp_path}/nowhere does not exist"):
        train(tmp_path / "output", data=data, data_dir=tmp_path / "nowhere")


def test_data_without_anything_to_validate_on(train, write_drums, tmp_path):
    write_drums(tmp_path / "data/only.mid")
    with pytest.raises(ValueError, match=f"{tmp_path}/data: found no window .*validation"):
        train(tmp_path / "output", data="midi_folder", data_dir=tmp_path / "data")
