"""Logging of a run: its description, speed and progress, evaluations and pictures."""

import math
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.tracking import GeneralTracker
from PIL import Image
from torch.utils.data import DataLoader
from tqdm.auto import tqdm

from modeling_musicvae import MusicVAEModel
from processing.counted import counted
from processing.picture import draw_piano_rolls

from ..data.batches import collate, num_windows
from ..evaluation.metrics import loss_terms
from .arguments import Arguments, TrainingArguments
from .checkpoints import Progress
from .trackers import for_each_tracker, log

PROJECT = "musicvae"  # of the trackers
PICTURED = 2  # reconstructions, and samples


class Speedometer:
    """How fast a run is, and how much of its time it waits for data.

    Args:
        num_processes: each of them has batches like those of this one.
    """

    def __init__(self, num_processes: int):
        self.num_processes = num_processes
        self.restart()

    def restart(self) -> None:
        """Starts anew, after something that is not training."""
        self.start, self.sequences, self.waited = time.perf_counter(), 0, 0.0

    def watch(self, loader: DataLoader) -> Iterator[dict[str, torch.Tensor]]:
        """The batches of a loader that never ends."""
        batches = iter(loader)
        while True:
            start = time.perf_counter()
            batch = next(batches)
            self.waited += time.perf_counter() - start
            self.sequences += len(batch["piano_roll"]) * self.num_processes
            yield batch

    def read(self) -> dict[str, float]:
        """Sequences per second, and the share of the time, 0 to 1, spent waiting for data."""
        seconds = time.perf_counter() - self.start
        figures = {
            "train/sequences_per_second": self.sequences / seconds,
            "train/data_wait": self.waited / seconds,
        }
        self.restart()
        return figures


def describe(
    accelerator: Accelerator,
    arguments: Arguments,
    model: MusicVAEModel,
    train_loader: DataLoader,
    progress: Progress,
) -> None:
    """Says what is trained, on what, with what, and where it goes."""
    training, config, hub = arguments.training, model.config, arguments.hub
    parameters = sum(parameter.numel() for parameter in model.parameters())
    windows = num_windows(train_loader)
    size = "a stream of windows"
    if windows is not None:
        epoch_steps = windows / training.batch_size
        size = f"{counted(windows, 'training window')}, {epoch_steps:.1f} steps an epoch"
    processes = counted(accelerator.num_processes, "process", "processes")
    lines = {
        "Model": f"{config.decoder}, {counted(config.bars, 'bar')}, {parameters / 1e6:.1f} million "
        "parameters",
        "Data": f"{arguments.data.source}, {size}",
        "Training": f"to step {training.max_steps} from {progress.step}, "
        f"{counted(training.batch_size, 'sequence')} a step, {processes} on "
        f"{accelerator.device.type}, mixed precision {accelerator.mixed_precision}",
        "Output": training.output_dir,
    }
    if "tensorboard" in training.report_to:
        lines["Output"] += f" (tensorboard --logdir {training.output_dir}/logs)"
    if hub.push_to_hub:
        lines["Hub"] = f"{hub.hub_model_id} ({hub.hub_strategy})"
    accelerator.print("\n".join(f"{name:<11}{line}" for name, line in lines.items()))


def estimate(accelerator: Accelerator, bar: tqdm) -> None:
    """Says how long training will take, from the steps that have been made."""
    if accelerator.is_main_process:
        rate = bar.format_dict["elapsed"] / (bar.n - bar.initial)
        left = tqdm.format_interval((bar.total - bar.n) * rate)
        tqdm.write(f"{'Time':<11}about {left} to go, at {rate:.2g} s a step, and evaluations")


def log_step(
    accelerator: Accelerator,
    bar: tqdm,
    output: Any,
    speed: dict[str, float],
    progress: Progress,
) -> None:
    """Logs what the last part of a step gave, averaged over all processes."""
    terms = {
        "loss": output.loss.detach(),
        "reconstruction_loss": output.reconstruction_loss.mean(),
        **{name: value.mean() for name, value in loss_terms(output).items()},
        "kl_bits": output.kl_divergence.mean() / math.log(2),
    }
    means = accelerator.reduce(torch.stack(list(terms.values())).detach(), "mean").tolist()
    scalars = {f"train/{name}": value for name, value in zip(terms, means, strict=True)}
    scalars |= speed | {"train/skipped_steps": progress.skipped_steps}
    log(accelerator, scalars, progress.step)
    bar.set_postfix_str(
        f"loss {scalars['train/loss']:.1f}, KL {scalars['train/kl_bits']:.1f} bits, "
        f"{speed['train/sequences_per_second']:.0f} sequences/s"
        + (f", {counted(progress.skipped_steps, 'step')} skipped" if progress.skipped_steps else "")
    )


def log_evaluation(accelerator: Accelerator, metrics: dict[str, float], progress: Progress) -> None:
    """Logs the metrics of a step, and shows them next to the best before."""
    values = {f"validation/{name}": value for name, value in metrics.items()}
    log(accelerator, values, progress.step)
    if accelerator.is_main_process:
        tqdm.write(evaluation_table(metrics, progress))


def evaluation_table(metrics: dict[str, float], progress: Progress) -> str:
    best = progress.best_metrics
    before = f"best, step {progress.best_step}" if best else ""
    rows = [(f"step {progress.step}", "validation", before)]
    for name, value in metrics.items():
        rows.append((f"  {name}", f"{value:.4g}", f"{best[name]:.4g}" if name in best else ""))
    return "\n".join(f"{name:<36}{now:>12}{before:>18}".rstrip() for name, now, before in rows)


@torch.no_grad()
def log_pictures(
    accelerator: Accelerator,
    model: MusicVAEModel,
    loader: DataLoader,
    training: TrainingArguments,
    step: int,
) -> None:
    """Logs piano rolls of validation windows, each above what the model makes of it, and new drums.

    No random number of training is used up.
    """
    drawing = any(hasattr(tracker, "log_images") for tracker in accelerator.trackers)
    if not drawing or not accelerator.is_main_process:
        return
    generator = torch.Generator().manual_seed(training.seed)
    index = np.linspace(0, len(loader.dataset) - 1, PICTURED).astype(int)
    batch = collate([loader.dataset[int(i)] for i in index])
    piano_roll, timing = (batch[name].to(model.device) for name in ("piano_roll", "timing"))
    model.eval()
    conditioning = model.conditioning(piano_roll, timing)
    made = model.decode(model.encode(piano_roll, timing).mean, 1.0, generator, *conditioning)
    new = model.sample(PICTURED, 1.0, generator, *conditioning)
    model.train()
    pairs = zip(piano_roll, made.piano_roll, strict=True), zip(timing, made.timing, strict=True)
    rolls, timings = (torch.stack([drums for pair in both for drums in pair]) for both in pairs)
    names = [f"validation {number}" for number in range(1, PICTURED + 1)]
    titles = [title for name in names for title in (name, f"what the model makes of {name}")]
    steps_per_bar = model.config.steps_per_bar
    try:
        pictures = {
            "reconstructions": draw(rolls, timings, titles, steps_per_bar),
            "samples": draw(new.piano_roll, new.timing, ["a new groove"] * PICTURED, steps_per_bar),
        }
    except OSError as error:  # no room for temporary files
        tqdm.write(f"pictures of step {step}: {error}: they are not logged")
        return

    def log_images(tracker: GeneralTracker) -> None:
        if hasattr(tracker, "log_images"):
            options = {"dataformats": "NHWC"} if tracker.name == "tensorboard" else {}
            tracker.log_images(pictures, step=step, **options)

    for_each_tracker(accelerator, log_images)


def draw(
    piano_rolls: torch.Tensor, timings: torch.Tensor, titles: list[str], steps_per_bar: int
) -> np.ndarray:
    """One picture of piano rolls, float32 (1, height, width, 3)."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "piano_rolls.png")
        draw_piano_rolls(
            piano_rolls.cpu().numpy(), timings.cpu().numpy(), path, titles, steps_per_bar
        )
        with Image.open(path) as picture:
            return np.asarray(picture, np.float32)[None] / 255
