"""Trains a MusicVAE on drum MIDI and leaves a model folder, new MIDI files and a picture of them.

    accelerate launch train_accelerate.py --config recipes/quickstart.yaml

Arguments come from a YAML recipe (--config) and from the command line, which wins.
"""

import json
import math
import os
import platform
import shlex
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

import datasets
import numpy as np
import torch
import yaml
from accelerate import Accelerator, skip_first_batches
from accelerate.utils import DataLoaderConfiguration, set_seed
from huggingface_hub import ModelCard, ModelCardData
from safetensors.torch import load_file
from torch.utils.data import DataLoader
from tqdm.auto import tqdm
from transformers import HfArgumentParser

from modeling_musicvae import MusicVAEConfig, MusicVAEModel
from modeling_musicvae.drum_patterns import to_hits, to_patterns
from modeling_musicvae.drum_transforms import drop_notes, scale_velocities
from processing import GrooveMIDI, MidiFolder, MusicVAEProcessor
from processing.demo_grooves import write_demo_grooves
from processing.drum_kit import DRUM_NAMES
from processing.piano_roll import QUARTERS_PER_BAR
from processing.picture import draw_piano_rolls

INTERRUPTIONS = (signal.SIGINT, signal.SIGTERM)
LOG_EVERY_STEPS = 10
ATTRIBUTE_WINDOWS = 4096  # enough for the directions of a few attributes
# What a user does with a model of each input transform, but for "none".
VERBS = {
    "humanize": "humanize(windows.piano_roll)",
    "tap": "tap_to_drums(windows.piano_roll, windows.timing)",
    "tap_fixed_velocity": "tap_to_drums(windows.piano_roll, windows.timing)",
    "remove_drums": "add_drums(windows.piano_roll, windows.timing)",
}
LOSS_TERMS = ("hits_loss", "velocity_loss", "timing_loss")


def argument(default: Any, help: str) -> Any:
    return field(default=default, metadata={"help": help})


@dataclass
class DataArguments:
    data: Literal["groove", "midi_folder", "demo"] = argument("groove", "which drums to train on")
    data_dir: str | None = argument(None, "Groove's zip or folder, or your folder of MIDI files")
    hop_bars: int = argument(1, "bars between the starts of two training windows")
    num_proc: int | None = argument(None, "processes that read MIDI files")
    num_workers: int = argument(0, "processes that load batches, for each training process")
    velocity_scaling: float = argument(
        0.0, "augmentation: training sequences are up to this part louder, or as much softer"
    )
    hit_dropout: float = argument(
        0.0, "augmentation: training sequences lose hits, rather soft ones, with up to this chance"
    )


@dataclass
class ArchitectureArguments:
    bars: int = argument(MusicVAEConfig.bars, "bars in a sequence")
    steps_per_bar: int = argument(MusicVAEConfig.steps_per_bar, "steps in a bar")
    output: Literal["categorical", "groove", "nade"] = argument(
        MusicVAEConfig.output, "what is predicted at a step"
    )
    velocity_bins: int = argument(
        MusicVAEConfig.velocity_bins, "classes of a categorical velocity; 0: equally loud"
    )
    timing_bins: int = argument(
        MusicVAEConfig.timing_bins, "classes of a categorical timing; 0: on the grid"
    )
    nade_hidden_size: int = argument(
        MusicVAEConfig.nade_hidden_size, "width of the hidden layer of the NADE"
    )
    input_transform: Literal["none", "humanize", "tap", "tap_fixed_velocity", "remove_drums"] = (
        argument(MusicVAEConfig.input_transform, "what becomes of drums before they are read")
    )
    removed_drums: list[int] = field(
        default_factory=lambda: list(MusicVAEConfig.removed_drums),
        metadata={"help": "the drums that remove_drums takes away"},
    )
    note_dropout: float = argument(
        MusicVAEConfig.note_dropout, "hits that are read are dropped with up to this chance"
    )
    hits_as_controls: bool = argument(
        MusicVAEConfig.hits_as_controls, "tell the decoder which drums are hit at each step"
    )
    latent_size: int = argument(MusicVAEConfig.latent_size, "width of the latent space")
    encoder_hidden_size: int = argument(
        MusicVAEConfig.encoder_hidden_size, "width of the encoder in each direction"
    )
    encoder_num_layers: int = argument(MusicVAEConfig.encoder_num_layers, "layers of the encoder")
    decoder: Literal["hierarchical", "flat"] = argument(
        MusicVAEConfig.decoder, "a conductor over bars, or one LSTM over all steps"
    )
    conductor_hidden_size: int = argument(
        MusicVAEConfig.conductor_hidden_size, "width of the conductor"
    )
    conductor_num_layers: int = argument(
        MusicVAEConfig.conductor_num_layers, "layers of the conductor"
    )
    decoder_hidden_size: int = argument(MusicVAEConfig.decoder_hidden_size, "width of the decoder")
    decoder_num_layers: int = argument(MusicVAEConfig.decoder_num_layers, "layers of the decoder")
    free_bits: float = argument(
        MusicVAEConfig.free_bits, "bits of KL divergence in a sequence that cost nothing"
    )
    max_beta: float = argument(MusicVAEConfig.max_beta, "weight of the KL divergence beyond them")
    beta_rate: float = argument(
        MusicVAEConfig.beta_rate, "the weight at a step is max_beta * (1 - beta_rate ** step)"
    )
    sampling_schedule: Literal["constant", "exponential", "inverse_sigmoid"] = argument(
        MusicVAEConfig.sampling_schedule, "how scheduled sampling sets in"
    )
    sampling_rate: float = argument(
        MusicVAEConfig.sampling_rate, "how fast, see MusicVAEConfig; a constant 0: not at all"
    )
    sampling_method: Literal["parallel", "exact"] = argument(
        MusicVAEConfig.sampling_method, "scheduled sampling in one more pass, or step by step"
    )


@dataclass
class TrainingArguments:
    output_dir: str = argument("outputs/musicvae", "where the model and all else is written")
    max_steps: int | None = argument(None, "optimiser steps, instead of num_epochs")
    num_epochs: int = argument(10, "passes over the training windows")
    batch_size: int = argument(64, "sequences in a step, over all processes together")
    learning_rate: float = argument(1e-3, "Adam's learning rate at the start")
    min_learning_rate: float = argument(1e-5, "what it decays to")
    learning_rate_decay: float = argument(0.9999, "factor of its decay at each step")
    max_grad_norm: float = argument(1.0, "gradients are clipped to this global norm")
    mixed_precision: Literal["no", "bf16", "fp16"] | None = argument(
        None, "precision of the products; if not given, what accelerate is launched with"
    )
    seed: int = argument(0, "seed of everything random")
    eval_steps: int = argument(500, "steps between evaluations on the validation split")
    save_steps: int = argument(500, "steps between checkpoints")
    resume_from_checkpoint: str | None = argument(None, "'latest' or the folder of a checkpoint")
    num_samples: int = argument(4, "new MIDI files to write at the end")


@dataclass
class Progress:
    """Where a run is: all that a checkpoint needs beside what accelerate saves."""

    step: int = 0
    seconds: float = 0.0
    best_step: int = 0
    best_metrics: dict[str, float] = field(default_factory=dict)


@dataclass
class Arguments:
    data: DataArguments
    architecture: ArchitectureArguments
    training: TrainingArguments
    command: str


def main() -> None:
    arguments = parse_arguments(sys.argv[1:])
    training = arguments.training
    accelerator = Accelerator(
        mixed_precision=training.mixed_precision,
        log_with="tensorboard",
        project_dir=training.output_dir,
        dataloader_config=DataLoaderConfiguration(
            split_batches=True, use_seedable_sampler=True, data_seed=training.seed
        ),
    )
    use_all_cores(accelerator)
    prepare_output_dir(accelerator, training)
    train_loader, eval_loader, processor = load_data(accelerator, arguments)

    set_seed(training.seed)
    config = MusicVAEConfig(**asdict(arguments.architecture))
    model = MusicVAEModel(config)
    optimizer = torch.optim.Adam(model.parameters(), lr=training.learning_rate, fused=True)
    set_seed(training.seed, device_specific=True)  # ranks draw different latents
    model, optimizer, train_loader, eval_loader = accelerator.prepare(
        model, optimizer, train_loader, eval_loader
    )
    accelerator.init_trackers("logs")

    progress = resume(accelerator, training)
    if training.max_steps is None:
        training.max_steps = training.num_epochs * len(train_loader)
    if progress.step >= training.max_steps:
        raise ValueError(
            f"max_steps: found {training.max_steps}, expected more than the {progress.step} that "
            "the checkpoint has"
        )
    describe(accelerator, arguments, model, train_loader, progress)
    train(accelerator, arguments, model, optimizer, train_loader, eval_loader, progress)
    accelerator.end_training()
    if accelerator.is_main_process:
        export(arguments, config, processor, progress, train_loader.dataset, eval_loader.dataset)


# --- Arguments ------------------------------------------------------------------------------------


def parse_arguments(argv: list[str]) -> Arguments:
    """The arguments of a recipe (--config) and of the command line, which wins."""
    groups = (DataArguments, ArchitectureArguments, TrainingArguments)
    parser = HfArgumentParser(groups, description=__doc__.splitlines()[0])
    parser.add_argument("--config", help="YAML recipe: any of the other arguments")
    command = shlex.join(["accelerate", "launch", Path(__file__).name, *argv])
    known, _ = parser.parse_known_args(argv)
    if known.config:
        names = {field.name for group in groups for field in fields(group)}
        argv = recipe_arguments(Path(known.config), names) + argv
    *parsed, _ = parser.parse_args_into_dataclasses(argv)
    check_arguments(*parsed)
    return Arguments(*parsed, command=command)


def recipe_arguments(path: Path, names: set[str]) -> list[str]:
    """A YAML recipe as command-line arguments."""
    with path.open("rb") as file:
        recipe = yaml.load(file, yaml.BaseLoader)  # in which "no" is a word, not False
    if not isinstance(recipe, dict):
        raise ValueError(f"{path}: found {type(recipe).__name__}, expected 'argument: value' lines")
    if unknown := sorted(set(map(str, recipe)) - names):
        raise ValueError(f"{path}: found unknown arguments {unknown}")
    return [
        word
        for name, value in recipe.items()
        for word in ([f"--{name}", *value] if isinstance(value, list) else [f"--{name}={value}"])
    ]


def check_arguments(
    data: DataArguments, architecture: ArchitectureArguments, training: TrainingArguments
) -> None:
    """Raises an error that names the argument if one is out of range or goes with no other."""
    MusicVAEConfig(**asdict(architecture))
    least = {
        "hop_bars": (data.hop_bars, 1),
        "num_proc": (1 if data.num_proc is None else data.num_proc, 1),
        "num_workers": (data.num_workers, 0),
        "max_steps": (1 if training.max_steps is None else training.max_steps, 1),
        "num_epochs": (training.num_epochs, 1),
        "batch_size": (training.batch_size, 1),
        "seed": (training.seed, 0),
        "eval_steps": (training.eval_steps, 1),
        "save_steps": (training.save_steps, 1),
        "num_samples": (training.num_samples, 1),
    }
    for name, (value, minimum) in least.items():
        if value < minimum:
            raise ValueError(f"{name}: found {value}, expected at least {minimum}")
    for name in ("learning_rate", "max_grad_norm"):
        value = getattr(training, name)
        if not 0 < value < math.inf:
            raise ValueError(f"{name}: found {value}, expected a positive number")
    if not 0 <= training.min_learning_rate <= training.learning_rate:
        raise ValueError(
            f"min_learning_rate: found {training.min_learning_rate}, expected 0 to learning_rate"
        )
    for name in ("velocity_scaling", "hit_dropout"):
        value = getattr(data, name)
        if not 0 <= value <= 1:
            raise ValueError(f"{name}: found {value}, expected 0 to 1")
    if not 0 < training.learning_rate_decay <= 1:
        raise ValueError(
            f"learning_rate_decay: found {training.learning_rate_decay}, expected 0 to 1, without 0"
        )
    if data.data == "midi_folder" and data.data_dir is None:
        raise ValueError("data_dir: found none, expected the folder of your MIDI files")
    if data.data == "demo" and data.data_dir is not None:
        raise ValueError(f"data_dir: found {data.data_dir}, expected none: demo makes its own data")


def use_all_cores(accelerator: Accelerator) -> None:
    """On CPUs, shares the cores among the processes; the launcher would give each one thread."""
    if accelerator.device.type == "cpu":
        local_processes = int(os.environ.get("LOCAL_WORLD_SIZE", 1))
        torch.set_num_threads(max(1, os.cpu_count() // local_processes))


def prepare_output_dir(accelerator: Accelerator, training: TrainingArguments) -> None:
    """Fails before any work if the folder cannot be written or holds another run."""
    output_dir = Path(training.output_dir)
    output_dir.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=output_dir):
        pass
    if training.resume_from_checkpoint is None and checkpoints(output_dir):
        raise FileExistsError(
            f"{output_dir} holds checkpoints of an earlier run: go on with "
            "--resume_from_checkpoint latest, or choose another --output_dir"
        )
    accelerator.wait_for_everyone()


# --- Data -----------------------------------------------------------------------------------------


def load_data(
    accelerator: Accelerator, arguments: Arguments
) -> tuple[DataLoader, DataLoader, MusicVAEProcessor]:
    """Batches of training windows and of non-overlapping validation windows."""
    data, training = arguments.data, arguments.training
    with accelerator.main_process_first():
        train_builder = prepare_windows(arguments, data.hop_bars)
        eval_builder = prepare_windows(arguments, arguments.architecture.bars)
    train_loader = DataLoader(
        load_split(train_builder, "train"),
        training.batch_size,
        shuffle=True,
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


def ignore_interruption(worker: int) -> None:
    """Ctrl-C reaches the workers too; they must live until the trainer has saved."""
    for number in INTERRUPTIONS:
        signal.signal(number, signal.SIG_IGN)


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


# --- Training -------------------------------------------------------------------------------------


def train(
    accelerator: Accelerator,
    arguments: Arguments,
    model: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    train_loader: DataLoader,
    eval_loader: DataLoader,
    progress: Progress,
) -> None:
    """Trains from where `progress` stands to the last step."""
    training = arguments.training
    interruption = Interruption(accelerator)
    bar = tqdm(
        total=training.max_steps,
        initial=progress.step,
        unit="step",
        disable=not accelerator.is_main_process,
    )
    model.train()
    started, seconds_before = time.perf_counter(), progress.seconds
    window_start, window_sequences = started, 0
    for batch in endless_batches(train_loader, progress.step):
        if progress.step >= training.max_steps:
            break
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(training, progress.step)
        output = model(*augment(batch, arguments.data), step=progress.step)
        accelerator.backward(output.loss)
        accelerator.clip_grad_norm_(model.parameters(), training.max_grad_norm)
        optimizer.step()
        optimizer.zero_grad()
        progress.step += 1
        progress.seconds = seconds_before + time.perf_counter() - started
        bar.update()

        window_sequences += len(batch["piano_roll"]) * accelerator.num_processes
        if progress.step % LOG_EVERY_STEPS == 0:
            now = time.perf_counter()
            log_step(accelerator, bar, output, window_sequences / (now - window_start), progress)
            window_start, window_sequences = now, 0

        last = progress.step == training.max_steps
        interrupted = not last and interruption.happened()
        evaluating = last or progress.step % training.eval_steps == 0
        saving = last or interrupted or progress.step % training.save_steps == 0
        if evaluating:
            saving |= evaluate_and_log(accelerator, training, model, eval_loader, progress)
        if saving:
            save_checkpoint(accelerator, training, progress)
        if interrupted:
            bar.close()
            interruption.exit(training)
        if evaluating or saving:  # neither is training
            window_start, window_sequences = time.perf_counter(), 0
    bar.close()


def endless_batches(loader: DataLoader, step: int) -> Iterator[dict[str, torch.Tensor]]:
    """The batches from `step` on, in the order in which a run that never stopped sees them."""
    epoch, skip = divmod(step, len(loader))
    while True:
        loader.set_epoch(epoch)
        yield from skip_first_batches(loader, skip) if skip else loader
        epoch, skip = epoch + 1, 0


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


def learning_rate(training: TrainingArguments, step: int) -> float:
    """Exponential decay towards the minimum, as the original has it."""
    decayed = (training.learning_rate - training.min_learning_rate) * (
        training.learning_rate_decay**step
    )
    return decayed + training.min_learning_rate


def log_step(
    accelerator: Accelerator,
    bar: tqdm,
    output: Any,
    sequences_per_second: float,
    progress: Progress,
) -> None:
    scalars = {
        "train/loss": output.loss.item(),
        "train/reconstruction_loss": output.reconstruction_loss.mean().item(),
        **{f"train/{name}": value.mean().item() for name, value in loss_terms(output).items()},
        "train/kl_bits": output.kl_divergence.mean().item() / math.log(2),
        "train/sequences_per_second": sequences_per_second,
    }
    accelerator.log(scalars, step=progress.step)
    bar.set_postfix_str(
        f"loss {scalars['train/loss']:.1f}, KL {scalars['train/kl_bits']:.1f} bits, "
        f"{sequences_per_second:.0f} sequences/s"
    )


def loss_terms(output: Any) -> dict[str, torch.Tensor]:
    """Those of the losses, (batch,), that the model's output has."""
    terms = {name: output[name] for name in LOSS_TERMS if name in output}
    return terms if len(terms) > 1 else {}


class Interruption:
    """Turns Ctrl-C and SIGTERM into a checkpoint and an exit; a second one exits at once."""

    def __init__(self, accelerator: Accelerator):
        self.accelerator = accelerator
        self.signal_number = 0
        for number in INTERRUPTIONS:
            signal.signal(number, self.note)

    def note(self, number: int, frame: Any) -> None:
        self.signal_number = number
        signal.signal(number, signal.SIG_DFL)

    def happened(self) -> bool:
        """True in every process as soon as it is true in one."""
        if self.accelerator.num_processes == 1:
            return self.signal_number > 0
        number = torch.tensor(self.signal_number, device=self.accelerator.device)
        self.signal_number = int(self.accelerator.gather(number[None]).max())
        return self.signal_number > 0

    def exit(self, training: TrainingArguments) -> None:
        self.accelerator.print(
            f"Interrupted and saved. To go on, run the same command with "
            f"--resume_from_checkpoint latest --output_dir {training.output_dir}"
        )
        self.accelerator.end_training()
        sys.exit(128 + self.signal_number)


# --- Evaluation -----------------------------------------------------------------------------------


def evaluate_and_log(
    accelerator: Accelerator,
    training: TrainingArguments,
    model: torch.nn.Module,
    eval_loader: DataLoader,
    progress: Progress,
) -> bool:
    """Evaluates and shows the result; True if it is the best so far."""
    metrics = evaluate(accelerator, model, eval_loader, training.seed)
    accelerator.log({f"validation/{name}": value for name, value in metrics.items()}, progress.step)
    if accelerator.is_main_process:
        values = ", ".join(f"{name} {value:.4g}" for name, value in metrics.items())
        tqdm.write(f"step {progress.step}: validation {values}")
    improved = metrics["loss"] < progress.best_metrics.get("loss", math.inf)
    if improved:
        progress.best_step, progress.best_metrics = progress.step, metrics
    return improved


@torch.no_grad()
def evaluate(
    accelerator: Accelerator, model: torch.nn.Module, loader: DataLoader, seed: int
) -> dict[str, float]:
    """Means over all sequences of `loader`, with latents and draws from `seed`.

    Returns:
        loss (what training minimises, fully annealed), elbo, reconstruction_loss and its terms in
        nats per sequence, kl_bits in bits per sequence; when the decoder sees the true past
        (teacher_forced, where it does what is most likely) and when it sees its own draws at
        temperature 1 (sampled), pattern_accuracy, the share of steps whose pattern is right, and,
        on hits that are in both, the mean absolute errors velocity_mae in MIDI units and
        timing_mae_ms in milliseconds at the tempo of the recording.

    Raises:
        FloatingPointError: a loss is not finite: the training has diverged.
    """
    model = accelerator.unwrap_model(model)
    model.eval()
    generator = torch.Generator().manual_seed(seed + accelerator.process_index)
    rows, steps_per_bar = [], model.config.steps_per_bar
    for batch in loader:
        piano_roll, timing = batch["piano_roll"], batch["timing"]
        posterior = model.encode(piano_roll, timing)
        noise = torch.randn(posterior.mean.shape, generator=generator).to(posterior.mean.device)
        latents = posterior.mean + posterior.std * noise
        score = piano_roll if model.config.hits_as_controls else None
        output = model(piano_roll, timing, latents=latents)
        if not output.loss.isfinite():  # no drums can be drawn from such logits
            raise FloatingPointError(
                f"validation loss: found {output.loss:g}, expected a finite number, as a lower "
                "--learning_rate may give"
            )
        teacher_forced = model.most_likely(output.logits, score)
        sampled = model.decode(latents, 1.0, generator, score)
        columns = {
            "reconstruction_loss": output.reconstruction_loss,
            **loss_terms(output),
            "kl": output.kl_divergence,
            "costly_kl": (output.kl_divergence - model.config.free_bits * math.log(2)).relu(),
            **compare(teacher_forced, batch, steps_per_bar, "teacher_forced"),
            **compare(sampled, batch, steps_per_bar, "sampled"),
        }
        rows.append(accelerator.gather_for_metrics(torch.stack(list(columns.values()), 1)))
    model.train()
    means = dict(zip(columns, torch.cat(rows).double().mean(0).tolist(), strict=True))
    return summarize(means, model.config)


def compare(
    drums: Any, batch: dict[str, torch.Tensor], steps_per_bar: int, way: str
) -> dict[str, torch.Tensor]:
    """How drums of the model differ from those that they are to be: each number (batch,)."""
    truth = batch["piano_roll"]
    right = to_patterns(to_hits(drums.piano_roll)) == to_patterns(to_hits(truth))
    common = (drums.piano_roll > 0) & (truth > 0)
    step_ms = 60_000 * QUARTERS_PER_BAR / (batch["bpm"] * steps_per_bar)
    velocity_errors = (drums.piano_roll.float() - truth.float()).abs() * common
    timing_errors = (drums.timing - batch["timing"]).abs() * common
    return {
        f"pattern_accuracy_{way}": right.float().mean(-1),
        f"common_hits_{way}": common.float().sum((1, 2)),
        f"velocity_error_{way}": velocity_errors.sum((1, 2)),
        f"timing_error_ms_{way}": timing_errors.sum((1, 2)) * step_ms,
    }


def summarize(means: dict[str, float], config: MusicVAEConfig) -> dict[str, float]:
    """The metrics of `evaluate` from the means of what it gathered."""
    metrics = {
        "loss": means["reconstruction_loss"] + config.max_beta * means["costly_kl"],
        "elbo": -(means["reconstruction_loss"] + means["kl"]),
        **{name: value for name, value in means.items() if name.endswith("_loss")},
        "kl_bits": means["kl"] / math.log(2),
    }
    for way in ("teacher_forced", "sampled"):
        metrics[f"pattern_accuracy_{way}"] = means[f"pattern_accuracy_{way}"]
        hits = means[f"common_hits_{way}"]
        if hits and config.models_expression:
            metrics[f"velocity_mae_{way}"] = means[f"velocity_error_{way}"] / hits
            metrics[f"timing_mae_ms_{way}"] = means[f"timing_error_ms_{way}"] / hits
    return metrics


# --- Checkpoints ----------------------------------------------------------------------------------


def checkpoints(output_dir: Path) -> list[Path]:
    """The whole checkpoints of a run, oldest first."""
    folders = Path(output_dir, "checkpoints").glob("checkpoint-*")
    whole = [folder for folder in folders if folder.suffix != ".tmp"]
    return sorted(whole, key=lambda folder: int(folder.name.split("-")[1]))


def save_checkpoint(
    accelerator: Accelerator, training: TrainingArguments, progress: Progress
) -> None:
    """Saves what `resume` needs under a temporary name, renames it, and drops older checkpoints.

    The best checkpoint and the last one stay.
    """
    folder = Path(training.output_dir, "checkpoints", f"checkpoint-{progress.step}")
    temporary = folder.with_suffix(".tmp")
    accelerator.save_state(str(temporary))
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        state = json.dumps(asdict(progress), indent=2)
        Path(temporary, "progress.json").write_text(state, encoding="utf-8")
        if folder.exists():
            shutil.rmtree(folder)
        temporary.rename(folder)
        for old in checkpoints(Path(training.output_dir)):
            if old.name not in (folder.name, f"checkpoint-{progress.best_step}"):
                shutil.rmtree(old)
    accelerator.wait_for_everyone()


def resume(accelerator: Accelerator, training: TrainingArguments) -> Progress:
    """Loads the checkpoint to go on from, if one is asked for."""
    if training.resume_from_checkpoint is None:
        return Progress()
    found = checkpoints(Path(training.output_dir))
    if training.resume_from_checkpoint != "latest":
        wanted = Path(training.resume_from_checkpoint).resolve()
        found = [folder for folder in found if folder.resolve() == wanted]
    if not found:
        raise FileNotFoundError(
            f"resume_from_checkpoint: found no checkpoint {training.resume_from_checkpoint!r} in "
            f"{training.output_dir}"
        )
    folder = found[-1]
    progress = Progress(**json.loads(Path(folder, "progress.json").read_text(encoding="utf-8")))
    accelerator.load_state(str(folder))
    return progress


# --- What a user sees and keeps -------------------------------------------------------------------


def describe(
    accelerator: Accelerator,
    arguments: Arguments,
    model: torch.nn.Module,
    train_loader: DataLoader,
    progress: Progress,
) -> None:
    """Says what is trained, on what, with what, and where it goes."""
    training, config = arguments.training, accelerator.unwrap_model(model).config
    parameters = sum(parameter.numel() for parameter in model.parameters())
    windows = len(train_loader.dataset)
    accelerator.print(
        f"Model      {config.decoder}, {config.bars} bars, {parameters / 1e6:.1f} million "
        f"parameters\n"
        f"Data       {arguments.data.data}, {windows} training windows, {len(train_loader)} steps "
        f"an epoch\n"
        f"Training   to step {training.max_steps} from {progress.step}, {training.batch_size} "
        f"sequences a step, {accelerator.num_processes} process(es) on {accelerator.device.type}, "
        f"mixed precision {accelerator.mixed_precision}\n"
        f"Output     {training.output_dir} (tensorboard --logdir {training.output_dir}/logs)"
    )


def export(
    arguments: Arguments,
    config: MusicVAEConfig,
    processor: MusicVAEProcessor,
    progress: Progress,
    train_windows: datasets.Dataset,
    eval_windows: datasets.Dataset,
) -> None:
    """Writes the best model with processor, card, new MIDI files and their picture."""
    output_dir = Path(arguments.training.output_dir)
    model = best_model(output_dir, config, progress)
    model.fit_attribute_vectors(batches_of(train_windows))
    with tempfile.TemporaryDirectory(dir=output_dir) as temporary:
        folder = Path(temporary)
        model.save_pretrained(folder)
        processor.save_pretrained(folder)
        write_samples(model, processor, eval_windows, folder, arguments.training)
        write_model_card(arguments, model, progress, len(train_windows), folder)
        move_into(folder, output_dir)
    print(f"Model      {output_dir} (best of step {progress.best_step})")
    print(f"New drums  {output_dir}/samples/*.mid, pictured in {output_dir}/samples.png")


def best_model(output_dir: Path, config: MusicVAEConfig, progress: Progress) -> MusicVAEModel:
    model = MusicVAEModel(config)
    checkpoint = Path(output_dir, "checkpoints", f"checkpoint-{progress.best_step}")
    model.load_state_dict(load_file(Path(checkpoint, "model.safetensors")))
    return model.eval()


def batches_of(windows: datasets.Dataset) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Piano rolls and timings of `ATTRIBUTE_WINDOWS` windows, spread evenly over all."""
    step = -(-len(windows) // ATTRIBUTE_WINDOWS)
    for batch in windows.select(range(0, len(windows), step)).iter(64):
        yield (
            torch.from_numpy(batch["piano_roll"].astype(np.uint8)),
            torch.from_numpy(batch["timing"]),
        )


def write_samples(
    model: MusicVAEModel,
    processor: MusicVAEProcessor,
    eval_windows: datasets.Dataset,
    folder: Path,
    training: TrainingArguments,
) -> None:
    """New drums; of a model that is told the hits, for those of some validation windows."""
    generator = torch.Generator().manual_seed(training.seed)
    score = None
    if model.config.hits_as_controls:
        index = np.linspace(0, len(eval_windows) - 1, training.num_samples).astype(int)
        score = collate([eval_windows[int(i)] for i in index])["piano_roll"]
    drums = model.sample(training.num_samples, generator=generator, score=score)
    samples = Path(folder, "samples")
    samples.mkdir()
    for number, midi in enumerate(processor.batch_decode(drums.piano_roll, drums.timing), 1):
        midi.write(str(samples / f"sample-{number}.mid"))
    draw_piano_rolls(
        drums.piano_roll.numpy(),
        drums.timing.numpy(),
        folder / "samples.png",
        titles=[f"sample {number}" for number in range(1, training.num_samples + 1)],
        steps_per_bar=processor.steps_per_bar,
    )


def write_model_card(
    arguments: Arguments, model: MusicVAEModel, progress: Progress, windows: int, folder: Path
) -> None:
    """Fills in model_card.md with what was measured."""
    card_data = ModelCardData(
        license="apache-2.0",
        library_name="transformers",
        tags=["music", "drums", "midi", "vae"],
    )
    card = ModelCard.from_template(
        card_data,
        template_path=str(Path(__file__).with_name("model_card.md")),
        model=model.config,
        verb=VERBS.get(model.config.input_transform),
        added_drums=", ".join(DRUM_NAMES[drum] for drum in model.config.removed_drums),
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        data=arguments.data.data,
        hop_bars=arguments.data.hop_bars,
        windows=windows,
        training=arguments.training,
        command=arguments.command,
        progress=progress,
        metrics=progress.best_metrics,
        machine=machine(),
    )
    card.save(folder / "README.md")


def machine() -> str:
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else platform.machine()
    return (
        f"{device}, {os.cpu_count()} CPU cores, {platform.system()}, Python "
        f"{platform.python_version()}, torch {torch.__version__}"
    )


def move_into(source: Path, target: Path) -> None:
    """Moves every file to its place, each in one rename."""
    for path in sorted(source.rglob("*")):
        place = target / path.relative_to(source)
        if path.is_dir():
            place.mkdir(exist_ok=True)
        else:
            path.replace(place)


if __name__ == "__main__":
    main()
