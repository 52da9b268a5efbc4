"""Measures the cost of 8-bit weights in reconstructions and in likelihood."""

import argparse
import copy
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from measure import print_machine

from modeling_musicvae import MusicVAEConfig, MusicVAEModel
from modeling_musicvae.generation_musicvae import MusicVAEDecoderOutput
from musicvae.evaluation.drum_metrics import join, measure_drums
from musicvae.evaluation.metrics import forward
from musicvae.evaluation.reconstruction import objective
from musicvae.evaluation.windows import Windows
from musicvae.exporting import export_model
from musicvae.onnx_model import OnnxModel
from musicvae.paths import MUSICVAE_GROOVE_4BAR

LEVELS = 127
BATCH_SIZE = 64


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default=MUSICVAE_GROOVE_4BAR, help="a model folder")
    parser.add_argument("--data", default="groove", help="as train_accelerate.py takes it")
    parser.add_argument("--data_dir", help="of the data")
    parser.add_argument("--split", default="validation", help="of the data")
    arguments = parser.parse_args(argv)
    torch.set_num_threads(1)
    print_machine(1)
    model = MusicVAEModel.from_pretrained(arguments.model, dtype=torch.float32).eval()
    config = model.config
    windows = Windows.load(
        arguments.split,
        data=arguments.data,
        data_dir=arguments.data_dir,
        bars=config.bars,
        steps_per_bar=config.steps_per_bar,
        hop_bars=config.bars,
    )
    print(f"{len(windows)} windows of the {arguments.split} split")
    with tempfile.TemporaryDirectory() as folder:
        exported = Path(folder, "exported")
        export_model(arguments.model, exported, int8=True)
        for bits, is_int8 in ((32, False), (8, True)):
            decoder = OnnxModel(exported, int8=is_int8)
            for temperature, way in ((0.0, "greedy"), (1.0, "sampled")):
                print_reconstructions(f"{bits} bits, {way}", decoder, windows, temperature, config)
    print(f"32 bits, ELBO: {elbo(model, windows):.2f} nats")
    print(f"8 bits, ELBO: {elbo(with_rounded_decoder(model), windows):.2f} nats")


def print_reconstructions(
    label: str, decoder: OnnxModel, windows: Windows, temperature: float, config: MusicVAEConfig
) -> None:
    """Prints how near the drums of the posterior means come to the windows."""
    means = decoder.encode(windows.piano_roll.numpy(), windows.timing.numpy())["mean"]
    drums = []
    for seed, mean in enumerate(means):  # each alone, for windows that are decoded at once follow
        made = decoder.decode(mean[None], temperature, seed)
        grids = map(torch.from_numpy, (made.piano_roll, made.timing))
        drums.append(MusicVAEDecoderOutput(*grids))
    for name, figure in measure_drums(join(drums, windows), windows, config, seed=0).items():
        print(f"{label}, {name}: {figure.value:.4f}", flush=True)


def elbo(model: MusicVAEModel, windows: Windows) -> float:
    """The mean over the windows, in nats, with latents of one seed."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        values = [
            objective(forward(model, batch.piano_roll, batch.timing, generator))["elbo"]
            for batch in windows.batches(BATCH_SIZE)
        ]
    return float(np.concatenate(values).mean())


def with_rounded_decoder(model: MusicVAEModel) -> MusicVAEModel:
    """The model with the matrices of its decoder rounded to 8 bits, each by its own scale."""
    rounded = copy.deepcopy(model)
    for weight in rounded.decoder.parameters():
        if weight.dim() == 2:
            scale = weight.data.abs().max().clamp(min=1e-12) / LEVELS
            weight.data = (weight.data / scale).round() * scale
    return rounded


if __name__ == "__main__":
    main()
