"""Batches of windows of drums."""

import hashlib
import os
from collections.abc import Iterator
from itertools import count
from typing import Any

import datasets
import numpy as np
import torch
from accelerate import Accelerator
from accelerate.data_loader import prepare_data_loader
from datasets.distributed import split_dataset_by_node
from torch.utils.data import DataLoader, IterableDataset, Sampler, get_worker_info

from modeling_musicvae.drum_transforms import drop_hits
from processing import MusicVAEProcessor

from ..training.arguments import Arguments
from ..training.interruption import ignore_interruption
from .augmentation import exchange_cymbals, recombine_drums, scale_velocities
from .windows import WindowDataset, load_windows, some_windows

READ_WINDOWS = 1000  # of a stream, at once
FINGERPRINT_WINDOWS = 256

COLUMNS = ["piano_roll", "timing", "bpm"]


class EpochStream(Sampler[int]):
    """Every window once, then every window once in another order, and so on without end.

    Batches are cut from the stream, so they are all full, and no window is seen twice in an epoch.

    Args:
        num_windows: how many there are.
        seed: of the orders; they are the same in every process.
    """

    def __init__(self, num_windows: int, seed: int):
        self.num_windows, self.seed = num_windows, seed

    def __iter__(self) -> Iterator[int]:
        for epoch in count():
            order = np.random.default_rng([self.seed, epoch]).permutation(self.num_windows)
            yield from map(int, order)


class WindowStream(IterableDataset):
    """The windows of a streaming dataset without end, each time in another order.

    Each process reads a part of them, and of this each worker of a `DataLoader` some shards.

    Args:
        windows: all of them.
        shuffle_buffer_size: windows that are held, for the next one to be drawn from.
        seed: of the orders.
        process_index, num_processes: which part is read.

    Raises:
        ValueError: when it is read, there is no window in it.
    """

    def __init__(
        self,
        windows: datasets.IterableDataset,
        shuffle_buffer_size: int,
        seed: int,
        process_index: int,
        num_processes: int,
    ):
        self.windows, self.shuffle_buffer_size, self.seed = windows, shuffle_buffer_size, seed
        self.part = split_dataset_by_node(windows, process_index, num_processes)

    def __iter__(self) -> Iterator[dict[str, np.ndarray]]:
        part, worker = self.part, get_worker_info()
        if worker:
            part = part.shard(worker.num_workers, worker.id)
        for epoch in count():
            windows = part.shuffle(
                generator=np.random.default_rng([self.seed, epoch]),
                buffer_size=self.shuffle_buffer_size,
                max_buffer_input_shards=1,  # threads for more would sleep at the end of an epoch
            )
            batch = None
            for batch in windows.iter(READ_WINDOWS):  # twenty times as fast as one by one
                for window in zip(*batch.values(), strict=True):
                    yield dict(zip(batch, window, strict=True))
            if batch is None:  # or this would go on for ever
                raise ValueError("stream: found no training window for a process or a worker")


def load_data(
    accelerator: Accelerator, arguments: Arguments
) -> tuple[DataLoader, DataLoader, MusicVAEProcessor]:
    """Batches of training windows, without end, and of validation windows that do not overlap.

    Those of training are for this process; the others are for all, until accelerate prepares them.
    """
    data, architecture, training = arguments.data, arguments.architecture, arguments.training
    num_parts = training.gradient_accumulation_steps * accelerator.num_processes
    if training.batch_size % num_parts:
        raise ValueError(
            f"batch_size: found {training.batch_size}, expected a multiple of {num_parts}, of "
            "gradient_accumulation_steps times the number of processes"
        )
    with accelerator.main_process_first():
        train_windows = load_split(arguments, "train", data.hop_bars)
        eval_windows = load_split(arguments, "validation", architecture.bars)
    if data.streaming:
        train_loader = streaming_loader(accelerator, arguments, train_windows)
        windows = datasets.Dataset.from_list(list(eval_windows), eval_windows.features)
        eval_windows = windows.with_format("numpy")
    else:
        train_loader = DataLoader(
            train_windows,
            training.batch_size // training.gradient_accumulation_steps,
            sampler=EpochStream(len(train_windows), training.seed),
            **loader_options(arguments),
        )
        train_loader = accelerator.prepare(train_loader)
    eval_loader = DataLoader(
        eval_windows,
        training.batch_size // training.gradient_accumulation_steps,
        collate_fn=collate,
        generator=torch.Generator(),  # or each evaluation would draw from that of training
    )
    # For the files of users, which are General MIDI whatever the kit of the training data.
    processor = MusicVAEProcessor(architecture.bars, architecture.steps_per_bar)
    return train_loader, eval_loader, processor


def load_split(arguments: Arguments, split: str, hop_bars: int) -> WindowDataset:
    """The drums and the tempo of the windows of a split."""
    data, architecture, data_dir = arguments.data, arguments.architecture, arguments.data.data_dir
    if data.data == "demo":
        data_dir = os.path.join(arguments.training.output_dir, "demo_grooves")
    windows = load_windows(
        split,
        data.data,
        data_dir,
        architecture.bars,
        architecture.steps_per_bar,
        hop_bars,
        data.streaming,
        data.num_proc,
    )
    if isinstance(windows, datasets.Dataset):
        return windows.with_format("numpy", columns=COLUMNS)
    return windows.select_columns(COLUMNS).with_format("numpy")


def streaming_loader(
    accelerator: Accelerator, arguments: Arguments, windows: datasets.IterableDataset
) -> DataLoader:
    data, training = arguments.data, arguments.training
    stream = WindowStream(
        windows,
        data.shuffle_buffer_size,
        training.seed,
        accelerator.process_index,
        accelerator.num_processes,
    )
    num_shards = stream.part.num_shards
    if data.num_workers > num_shards:
        raise ValueError(
            f"num_workers: found {data.num_workers}, expected at most {num_shards}, the shards "
            f"that {data.source} has for each process"
        )
    num_parts = training.gradient_accumulation_steps * accelerator.num_processes
    loader = DataLoader(stream, training.batch_size // num_parts, **loader_options(arguments))
    # Not `accelerator.prepare`, after which every process would read all parts.
    return prepare_data_loader(
        loader,
        accelerator.device,
        num_processes=1,
        process_index=0,
        put_on_device=True,
        dispatch_batches=False,
    )


def loader_options(arguments: Arguments) -> dict[str, Any]:
    return {
        "collate_fn": collate,
        "num_workers": arguments.data.num_workers,
        "worker_init_fn": ignore_interruption,
        "generator": torch.Generator().manual_seed(arguments.training.seed),
    }


def collate(examples: list[dict[str, np.ndarray]]) -> dict[str, torch.Tensor]:
    """A batch of drums and their tempo; the "numpy" format hands out other types than it reads."""
    rolls = np.stack([example["piano_roll"] for example in examples]).astype(np.uint8)
    timings = np.stack([example["timing"] for example in examples]).astype(np.float32)
    bpms = np.array([example["bpm"] for example in examples], np.float32)
    return {
        "piano_roll": torch.from_numpy(rolls),
        "timing": torch.from_numpy(timings),
        "bpm": torch.from_numpy(bpms),
    }


def augment(
    batch: dict[str, torch.Tensor], arguments: Arguments
) -> tuple[torch.Tensor, torch.Tensor]:
    """The drums of a batch, played differently where augmentation is asked for."""
    data = arguments.data
    drums = batch["piano_roll"], batch["timing"]
    if data.recombination > 0:
        drums = recombine_drums(*drums, data.recombination)
    if data.cymbal_exchange > 0:
        drums = exchange_cymbals(*drums, data.cymbal_exchange)
    if data.hit_dropout > 0:
        drums = drop_hits(*drums, data.hit_dropout)
    piano_roll, timing = drums
    if data.velocity_scaling > 0:
        piano_roll = scale_velocities(piano_roll, data.velocity_scaling)
    return piano_roll, timing


def num_windows(loader: DataLoader) -> int | None:
    """How many windows an epoch has; None where they come in a stream."""
    return None if isinstance(loader.dataset, WindowStream) else len(loader.dataset)


def train_windows(loader: DataLoader) -> WindowDataset:
    """The windows of a loader, not shuffled."""
    windows = loader.dataset
    return windows.windows if isinstance(windows, WindowStream) else windows


def fingerprint(loader: DataLoader) -> str:
    """Identifies a dataset: how many windows, and a hash of some of them."""
    digest = hashlib.sha256()
    for window in some_windows(train_windows(loader), FINGERPRINT_WINDOWS):
        digest.update(window["piano_roll"].tobytes() + window["timing"].tobytes())
    return f"{num_windows(loader) or 'streamed'} windows, {digest.hexdigest()}"
