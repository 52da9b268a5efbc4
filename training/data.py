"""Batches of windows of drums."""

import hashlib
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import datasets
import numpy as np
import torch
from accelerate import Accelerator
from torch.utils.data import DataLoader, Sampler

from modeling_musicvae.drum_transforms import drop_notes, scale_velocities
from processing import GrooveMIDI, MidiFolder, MusicVAEProcessor
from processing.demo_grooves import write_demo_grooves

from .arguments import Arguments, DataArguments
from .interruption import ignore_interruption

FINGERPRINT_WINDOWS = 256
ATTRIBUTE_WINDOWS = 4096  # enough for the directions of a few attributes


class EpochStream(Sampler[int]):
    """Every window once, then every window once in another order, and so on without end.

    Batches are cut from the stream, so they are all full, no window is seen twice in an epoch,
    and the batches from any position on are known without those before.

    Args:
        num_windows: how many there are.
        seed: of the orders; they are the same in every process.
    """

    def __init__(self, num_windows: int, seed: int):
        self.num_windows, self.seed = num_windows, seed
        self.position = 0  # in the stream, where the next iteration starts

    def __iter__(self) -> Iterator[int]:
        first_epoch, start = divmod(self.position, self.num_windows)
        for epoch in count(first_epoch):
            order = np.random.default_rng([self.seed, epoch]).permutation(self.num_windows)
            yield from order[start:].tolist()
            start = 0


def load_data(
    accelerator: Accelerator, arguments: Arguments
) -> tuple[DataLoader, DataLoader, MusicVAEProcessor]:
    """Batches of training windows, without end, and of non-overlapping validation windows."""
    data, training = arguments.data, arguments.training
    with accelerator.main_process_first():
        train_builder = prepare_windows(arguments, data.hop_bars)
        eval_builder = prepare_windows(arguments, arguments.architecture.bars)
    train_windows = load_split(train_builder, "train")
    train_loader = DataLoader(
        train_windows,
        training.batch_size // training.gradient_accumulation_steps,
        sampler=EpochStream(len(train_windows), training.seed),
        collate_fn=collate,
        num_workers=data.num_workers,
        worker_init_fn=ignore_interruption,
        generator=torch.Generator().manual_seed(training.seed),
    )
    eval_loader = DataLoader(
        load_split(eval_builder, "validation"),
        training.batch_size,
        collate_fn=collate,
        generator=torch.Generator(),  # or each evaluation would draw from that of training
    )
    return train_loader, eval_loader, eval_builder.processor


def prepare_windows(arguments: Arguments, hop_bars: int) -> GrooveMIDI | MidiFolder:
    data = arguments.data
    data_dir = data.data_dir
    if data.data == "demo":
        data_dir = Path(arguments.training.output_dir, "demo_grooves")
        if not data_dir.exists():
            write_demo_grooves(data_dir)
    Builder = MidiFolder if data.data == "midi_folder" else GrooveMIDI
    builder = Builder(
        data_dir=None if data_dir is None else str(data_dir),
        bars=arguments.architecture.bars,
        steps_per_bar=arguments.architecture.steps_per_bar,
        hop_bars=hop_bars,
    )
    builder.download_and_prepare(num_proc=data.num_proc)
    return builder


def load_split(builder: GrooveMIDI | MidiFolder, split: str) -> datasets.Dataset:
    if split not in builder.info.splits:
        source = builder.config.data_dir or builder.dataset_name
        raise ValueError(f"{source}: found no window for the {split} split")
    windows = builder.as_dataset(split)
    return windows.with_format("numpy", columns=["piano_roll", "timing", "bpm"])


def collate(examples: list[dict[str, np.ndarray]]) -> dict[str, torch.Tensor]:
    """A batch of drums and their tempo; the "numpy" format hands integers out as int64."""
    rolls = np.stack([example["piano_roll"] for example in examples]).astype(np.uint8)
    timings = np.stack([example["timing"] for example in examples])
    bpms = np.array([example["bpm"] for example in examples], np.float32)
    return {
        "piano_roll": torch.from_numpy(rolls),
        "timing": torch.from_numpy(timings),
        "bpm": torch.from_numpy(bpms),
    }


def augment(
    batch: dict[str, torch.Tensor], data: DataArguments
) -> tuple[torch.Tensor, torch.Tensor]:
    """The drums of a batch, played differently where augmentation is asked for."""
    piano_roll, timing = batch["piano_roll"], batch["timing"]
    if data.hit_dropout > 0:
        piano_roll, timing = drop_notes(piano_roll, timing, data.hit_dropout)
    if data.velocity_scaling > 0:
        piano_roll = scale_velocities(piano_roll, data.velocity_scaling)
    return piano_roll, timing


def fingerprint(windows: datasets.Dataset) -> str:
    """What tells one dataset from another: how many windows, and a hash of some of them."""
    step = -(-len(windows) // FINGERPRINT_WINDOWS)
    digest = hashlib.sha256()
    for window in windows.select(range(0, len(windows), step)):
        digest.update(window["piano_roll"].tobytes() + window["timing"].tobytes())
    return f"{len(windows)} windows, {digest.hexdigest()}"


def batches_of(windows: datasets.Dataset) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Piano rolls and timings of `ATTRIBUTE_WINDOWS` windows, spread evenly over all."""
    step = -(-len(windows) // ATTRIBUTE_WINDOWS)
    for batch in windows.select(range(0, len(windows), step)).iter(64):
        yield (
            torch.from_numpy(batch["piano_roll"].astype(np.uint8)),
            torch.from_numpy(batch["timing"]),
        )
