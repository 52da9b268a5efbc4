"""Training runs of tiny models, and what they leave."""

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from accelerate.utils import DataLoaderConfiguration
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.utils.data import DataLoader

import train_accelerate
from modeling_musicvae import MusicVAEConfig, MusicVAEModel
from musicvae.data.batches import load_data
from musicvae.paths import RECIPES
from musicvae.training import trainer
from musicvae.training.arguments import Arguments, parse_arguments
from musicvae.training.checkpoints import checkpoints
from musicvae.training.interruption import INTERRUPTIONS

SCRIPT = Path(train_accelerate.__file__)
WEIGHTS = "model.safetensors"

TINY = {
    "latent_size": 8,
    "encoder_hidden_size": 8,
    "conductor_hidden_size": 8,
    "decoder_hidden_size": 8,
    "num_samples": 2,
    "dropout": 0,
    "beta_rate": 0,
    "input_dropout": 0,
    "weight_decay": 0,
    "warmup_steps": 0,
    "mixed_precision": "no",
}
WAYS = ("teacher_forced", "sampled")
HITS_METRICS = {
    "loss",
    "elbo",
    "reconstruction_loss",
    "kl_bits",
    *(f"pattern_accuracy_{way}" for way in WAYS),
}
EXPRESSION_METRICS = {
    *("hits_loss", "velocity_loss", "timing_loss"),
    *(f"{error}_{way}" for error in ("velocity_mae", "timing_mae_ms") for way in WAYS),
}
METRICS = HITS_METRICS | EXPRESSION_METRICS

# What a recipe trains, and how one differs from it that is named otherwise.
MOST = {
    "data": "groove",
    "bars": 4,
    "decoder": "hierarchical",
    "output": "categorical",
    "velocity_bins": 8,
    "timing_bins": 9,
    "input_transform": "none",
    "removed_drums": [2],
    "hits_as_controls": False,
    "input_as_controls": False,
}
INTENDED = {
    "add_hihat": {"input_transform": "remove_drums"},
    "groove_2bar_flat": {"decoder": "flat", "bars": 2},
    "groove_4bar": {},
    "groove_4bar_fewer_bits": {},
    "groove_4bar_flat": {"decoder": "flat"},
    "groove_4bar_hits": {"velocity_bins": 0, "timing_bins": 0},
    "humanize": {"input_transform": "humanize", "hits_as_controls": True},
    "quickstart": {"data": "demo"},
    "tap_to_drums": {"input_transform": "tap", "input_as_controls": True},
}
# Ends in the second epoch of the demo grooves.
RUN = {
    "max_steps": 10,
    "decay_steps": 10,
    "eval_steps": 4,
    "save_steps": 1000,
    "free_bits": 0,
    "max_beta": 1,
    "beta_rate": 0.9,
}

# What an export has besides the weights of a checkpoint: it is fitted when training is over.
LEARNED_LAST = [
    "attribute_vectors",
    "kernel_centers",
    "latent_mean",
    "latent_scale",
    "style_centers",
]

TWO_PROCESSES = [
    "--multi_gpu",
    "--num_processes=2",
    "--num_machines=1",
    "--mixed_precision=no",
    "--dynamo_backend=no",
]


def parse(**arguments) -> Arguments:
    return parse_arguments(as_argv(arguments))


def as_argv(arguments: dict) -> list[str]:
    return [f"--{name}={value}" for name, value in arguments.items()]


def tiny_model(**settings) -> MusicVAEModel:
    sizes = {name: size for name, size in TINY.items() if name.endswith("size")}
    return MusicVAEModel(MusicVAEConfig(**sizes | settings))


def loaders(data_dir: Path) -> tuple[DataLoader, DataLoader]:
    """Training and validation batches of the demo grooves, as accelerate prepares them."""
    accelerator = Accelerator(dataloader_config=DataLoaderConfiguration(split_batches=True))
    arguments = parse(data="groove", data_dir=data_dir, hop_bars=2)
    train_loader, eval_loader, _ = load_data(accelerator, arguments)
    return train_loader, accelerator.prepare(eval_loader)


@contextmanager
def one_cpu_thread() -> Iterator[None]:
    """More would wait for one another on models so small."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def train(output_dir: Path, **arguments) -> Path:
    """Runs the script in this process on a tiny model, and returns its output folder."""
    handlers = {number: signal.getsignal(number) for number in INTERRUPTIONS}
    argv = as_argv(TINY | {"output_dir": output_dir} | arguments)
    with one_cpu_thread(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(trainer, "use_all_cores", lambda accelerator: None)
        patch.setattr(sys, "argv", [str(SCRIPT), *argv])
        try:
            train_accelerate.main()
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)
    return output_dir


@contextmanager
def fixed_noise() -> Iterator[None]:
    """Latents get the same noise for every window, whichever process and batch it is in."""
    forward = MusicVAEModel.forward

    def noise(shape: tuple[int, ...], **_) -> torch.Tensor:
        return torch.linspace(-1, 1, shape[-1]).expand(shape)

    def forward_with_noise(self: MusicVAEModel, *args, **kwargs):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(torch, "randn_like", lambda like: noise(like.shape))
            return forward(self, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(MusicVAEModel, "forward", forward_with_noise)
        patch.setattr(torch, "randn", noise)  # of which evaluation makes its noise
        yield


def checkpoint_names(output_dir: Path) -> set[str]:
    return {path.name for path in (output_dir / "checkpoints").iterdir()}


def best_checkpoint(output_dir: Path) -> tuple[Path, dict[str, float]]:
    """The folder of the best checkpoint and its metrics, as the last checkpoint has them."""
    last = checkpoints(output_dir)[-1]
    progress = json.loads((last / "progress.json").read_text())
    return last.with_name(f"checkpoint-{progress['best_step']}"), progress["best_metrics"]


def scalars(output_dir: Path) -> dict[str, dict[int, float]]:
    """Scalars that TensorBoard shows: their values by step."""
    events = EventAccumulator(str(output_dir / "logs/musicvae")).Reload()
    return {
        name: {event.step: event.value for event in events.Scalars(name)}
        for name in events.Tags()["scalars"]
    }


def differing_weights(folder: Path, other: Path) -> list[str]:
    """Names of the tensors that the folders do not both hold with the same bits."""
    weights, others = (load_file(path / WEIGHTS) for path in (folder, other))
    names = sorted(weights.keys() | others.keys())
    both = weights.keys() & others.keys()
    return [
        name for name in names if name not in both or not torch.equal(weights[name], others[name])
    ]


def assert_ends_like(output_dir: Path, other: Path) -> None:
    """Both runs have the same weights after their last step, bit for bit."""
    last, last_of_other = (checkpoints(path)[-1] for path in (output_dir, other))
    assert last.name == last_of_other.name
    assert differing_weights(last, last_of_other) == []


# Threads that wait leave their core to others; on a busy machine they would hold each other up.
PATIENT_THREADS = {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}


@contextmanager
def launched(
    output_dir: Path, *launcher_argv: str, script: Path = SCRIPT, **arguments
) -> Iterator[subprocess.Popen]:
    """A script under `accelerate launch`, in a group of processes of its own."""
    command = [sys.executable, "-m", "accelerate.commands.launch", *launcher_argv, str(script)]
    command += as_argv({"config": RECIPES / "quickstart.yaml", "output_dir": output_dir})
    process = subprocess.Popen(
        [*command, *as_argv(TINY | arguments)],
        cwd=output_dir.parent,
        env=os.environ
        | {"PYTHONUNBUFFERED": "1", "PYTHONPATH": str(SCRIPT.parent)}
        | PATIENT_THREADS,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    kill = threading.Timer(120, os.killpg, (process.pid, signal.SIGKILL))
    kill.start()
    with process:
        try:
            yield process
        finally:
            kill.cancel()
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)


def launch(output_dir: Path, *launcher_argv: str, **arguments) -> str:
    """Runs the script under `accelerate launch` to its end, and returns what it prints."""
    with launched(output_dir, *launcher_argv, **arguments) as process:
        printed, _ = process.communicate()
    assert process.returncode == 0, printed
    return printed


# What someone runs who has the libraries and the folder, and nothing of ours.
STRANGER = """
import sys

OURS = {"modeling_musicvae", "processing", "train_accelerate", "musicvae"}


class NotInstalled:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in OURS:
            raise ImportError(f"{name} is not installed")


sys.meta_path.insert(0, NotInstalled())

import torch
from transformers import AutoModel, AutoProcessor

model = AutoModel.from_pretrained(sys.argv[1], trust_remote_code=True)
processor = AutoProcessor.from_pretrained(sys.argv[1], trust_remote_code=True)
drums = model.sample(1, generator=torch.Generator().manual_seed(0))
processor.decode(drums.piano_roll[0], drums.timing[0], bpm=100).write("groove.mid")
"""
