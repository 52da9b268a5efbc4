"""Datasets of windows, read from the disk or as a stream that processes and workers share."""

import shutil
from collections import Counter
from itertools import islice
from pathlib import Path

import pytest
import torch
import training_runs
from accelerate import Accelerator
from training_runs import RUN, assert_ends_like, parse

from musicvae.data.batches import WindowStream, collate, load_data
from musicvae.training.checkpoints import CheckpointError
from processing import GrooveMIDI

NUM_SHARDS, NUM_WINDOWS = 4, 120
CARD = """---
configs:
- config_name: 4bar
  data_files:
  - split: train
    path: 4bar/train-*
  - split: validation
    path: 4bar/validation-*
---
"""
FOLDER = {"batch_size": 6, "max_steps": 100}
STREAM = FOLDER | {"streaming": True, "shuffle_buffer_size": 16}


@pytest.fixture(scope="module")
def splits(demo_grooves) -> dict:
    builder = GrooveMIDI(data_dir=demo_grooves)
    builder.download_and_prepare()
    splits = builder.as_dataset()
    return {"train": splits["train"].select(range(NUM_WINDOWS)), "validation": splits["validation"]}


@pytest.fixture(scope="module")
def folder(splits, tmp_path_factory) -> Path:
    """A dataset of Parquet files, those of the training split of equal length."""
    folder = tmp_path_factory.mktemp("data") / "windows"
    (folder / "4bar").mkdir(parents=True)
    (folder / "README.md").write_text(CARD)
    for split, windows in splits.items():
        for shard in range(NUM_SHARDS):
            windows.shard(NUM_SHARDS, shard).to_parquet(folder / f"4bar/{split}-{shard}.parquet")
    return folder


def names(windows: dict[str, torch.Tensor]) -> list[bytes]:
    return [timing.numpy().tobytes() for timing in windows["timing"]]  # no two are alike


def training_windows(folder: Path, count: int, **settings) -> list[bytes]:
    loader, _, _ = load_data(Accelerator(), parse(data=folder, **STREAM | settings))
    batches = islice(loader, count // FOLDER["batch_size"])
    return [name for batch in batches for name in names(batch)]


@pytest.fixture(scope="module")
def every(splits) -> list[bytes]:
    return sorted(names(collate(list(splits["train"].with_format("numpy")))))


@pytest.mark.parametrize("streaming", [False, True], ids=["from the disk", "as a stream"])
@pytest.mark.parametrize("num_workers", [0, 2])
def test_an_epoch_has_every_window_once_and_the_next_another_order(
    streaming, num_workers, folder, every
):
    settings = {"streaming": streaming, "num_workers": num_workers}
    windows = training_windows(folder, 2 * NUM_WINDOWS, **settings)
    first, second = windows[:NUM_WINDOWS], windows[NUM_WINDOWS:]
    assert sorted(first) == sorted(second) == every
    assert first != second


def test_the_seed_decides_the_order(folder):
    orders = [training_windows(folder, NUM_WINDOWS, seed=seed) for seed in (0, 0, 1)]
    assert orders[0] == orders[1] != orders[2]


def test_the_shuffle_buffer_mixes_the_shards(folder, splits):
    shard_of = {
        name: shard
        for shard in range(NUM_SHARDS)
        for name in names(
            collate(list(splits["train"].shard(NUM_SHARDS, shard).with_format("numpy")))
        )
    }
    half = training_windows(folder, NUM_WINDOWS // 2, shuffle_buffer_size=NUM_WINDOWS)
    assert len(Counter(shard_of[name] for name in half)) == NUM_SHARDS


@pytest.mark.parametrize("num_processes", [2, 3], ids=["whole shards", "single windows"])
def test_processes_share_the_windows_out(num_processes, folder, every):
    loader, _, _ = load_data(Accelerator(), parse(data=folder, **STREAM))
    stream = loader.dataset
    parts = [
        WindowStream(stream.windows, 16, 0, process, num_processes)
        for process in range(num_processes)
    ]
    epoch = [list(islice(part, NUM_WINDOWS // num_processes)) for part in parts]
    assert sorted(name for part in epoch for name in names(collate(part))) == every


def test_a_part_without_windows_is_an_error_and_no_endless_search(folder):
    loader, _, _ = load_data(Accelerator(), parse(data=folder, **STREAM))
    two_windows = loader.dataset.windows.take(2)
    with pytest.raises(ValueError, match="^stream: found no training window for a process"):
        next(iter(WindowStream(two_windows, 16, 0, process_index=2, num_processes=3)))


@pytest.mark.parametrize("streaming", [False, True], ids=["from the disk", "as a stream"])
@pytest.mark.parametrize("hop_bars", [1, 2])
def test_windows_start_every_hop_and_those_of_validation_do_not_overlap(
    streaming, hop_bars, folder, splits
):
    arguments = parse(data=folder, **STREAM | {"streaming": streaming, "hop_bars": hop_bars})
    train_loader, eval_loader, processor = load_data(Accelerator(), arguments)

    def expected(split: str, hop: int) -> list[bytes]:
        windows = splits[split].filter(lambda bar: bar % hop == 0, input_columns="start_bar")
        return sorted(names(collate(list(windows.with_format("numpy")))))

    train = expected("train", hop_bars)
    batches = islice(train_loader, -(-len(train) // 6))
    seen = [name for batch in batches for name in names(batch)]
    assert sorted(seen[: len(train)]) == train
    evaluated = [name for batch in eval_loader for name in names(batch)]
    assert sorted(evaluated) == expected("validation", 4)
    assert processor.hop_bars == 4


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_run_on_a_stream_is_resumed_bit_for_bit(num_workers, folder, tmp_path):
    run = STREAM | RUN | {"data": folder, "num_workers": num_workers}
    uninterrupted = training_runs.train(tmp_path / "uninterrupted", **run)
    stopped = training_runs.train(tmp_path / "stopped", **run | {"max_steps": 7})
    training_runs.train(stopped, **run, resume_from_checkpoint="latest")
    assert_ends_like(stopped, uninterrupted)


def test_a_run_on_a_stream_is_resumed_only_with_as_many_workers(folder, tmp_path):
    run = STREAM | {"data": folder, "max_steps": 1}
    training_runs.train(tmp_path, **run)
    with pytest.raises(CheckpointError, match="num_workers: found 1, expected 0"):
        training_runs.train(tmp_path, **run, num_workers=1, resume_from_checkpoint="latest")


def test_midi_files_can_be_streamed(demo_grooves, every):
    source = {"data": "groove", "data_dir": demo_grooves}
    from_disk, _, _ = load_data(Accelerator(), parse(**source))
    streamed, eval_loader, processor = load_data(Accelerator(), parse(**source, **STREAM))
    expected = names(collate(list(from_disk.dataset)))
    assert sorted(names(collate(list(streamed.dataset.windows)))) == sorted(expected)
    assert processor.pitch_map == "general_midi"


def test_a_stream_needs_a_number_of_steps():
    with pytest.raises(ValueError, match="^max_steps: found none, expected a number"):
        parse(streaming=True)


def test_a_stream_has_no_more_workers_than_shards(folder):
    arguments = parse(data=folder, **STREAM, num_workers=NUM_SHARDS + 1)
    with pytest.raises(ValueError, match=f"^num_workers: found 5, expected at most {NUM_SHARDS}"):
        load_data(Accelerator(), arguments)


@pytest.mark.parametrize("streaming", [False, True], ids=["from the disk", "as a stream"])
@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"steps_per_bar": 24}, r"piano_roll of the train split: found Array2D.*\(9, 96\)"),
        ({"bars": 2}, "2bar"),
    ],
    ids=["other steps", "no such configuration"],
)
def test_windows_of_another_shape_are_refused(streaming, settings, message, folder):
    with pytest.raises(ValueError, match=message):
        load_data(Accelerator(), parse(data=folder, **STREAM | settings | {"streaming": streaming}))


@pytest.mark.parametrize("streaming", [False, True], ids=["from the disk", "as a stream"])
def test_a_dataset_without_a_split_to_validate_on_is_refused(streaming, folder, tmp_path):
    alone = shutil.copytree(folder, tmp_path / "alone", ignore=lambda *_: ["README.md"])
    (alone / "README.md").write_text(CARD.split("  - split: validation")[0] + "---\n")
    with pytest.raises(ValueError, match=f"^{alone}: found no window for the validation split"):
        load_data(Accelerator(), parse(data=alone, **STREAM | {"streaming": streaming}))
