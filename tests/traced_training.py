"""train_accelerate.py, which also writes what its process read and drew to trace-RANK.json."""

import hashlib
import json
import os
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from torch.nn.modules.module import register_module_forward_hook
from training_runs import fixed_noise

import train_accelerate
from modeling_musicvae import MusicVAEModel
from musicvae.training.arguments import TrainingArguments
from musicvae.training.trainer import Trainer

Trace = dict[str, list]


def window_names(timing: torch.Tensor) -> list[str]:
    """Names of windows, made of their timing (batch, drums, steps), which no two share."""
    return [hashlib.sha256(window.numpy().tobytes()).hexdigest()[:16] for window in timing]


def read_traces(output_dir: Path) -> list[Trace]:
    """One of each process; `windows` and `noise`, that of the latents, by training step."""
    return [json.loads(path.read_text()) for path in sorted(output_dir.glob("trace-*.json"))]


def main() -> None:
    trace = {"windows": [], "noise": []}

    def note(module: torch.nn.Module, inputs: tuple[torch.Tensor, ...], output: Any) -> None:
        if isinstance(module, MusicVAEModel) and module.training:
            _, timing = inputs
            noise = (output.latents - output.mean) / output.std
            trace["windows"].append(window_names(timing))
            trace["noise"].append(noise.tolist())

    def write(training: TrainingArguments) -> None:
        path = Path(training.output_dir, f"trace-{os.environ['RANK']}.json")
        path.write_text(json.dumps(trace))

    original = Trainer.train

    def train(self: Trainer) -> None:
        original(self)
        write(self.training)

    Trainer.train = train
    register_module_forward_hook(note)
    with fixed_noise() if "FIXED_NOISE" in os.environ else nullcontext():
        train_accelerate.main()


if __name__ == "__main__":
    main()
