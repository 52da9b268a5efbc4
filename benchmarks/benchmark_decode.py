"""Times decoding at temperature 1, one groove and 64 at once, next to its matrix products alone.

By torch, and exported, by onnxruntime, on one thread. All take turns in one run.
"""

import argparse
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from measure import print_figure, print_machine, time_in_turn

from modeling_musicvae import MusicVAEConfig, MusicVAEModel
from musicvae.onnx_export import export
from musicvae.onnx_model import OnnxModel
from processing import MusicVAEProcessor


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repetitions", type=int, default=50, help="measurements (default: 50)")
    parser.add_argument("--model", help="a model folder (default: random weights)")
    arguments = parser.parse_args(argv)
    torch.set_num_threads(1)
    print_machine(1)
    torch.manual_seed(0)
    model = MusicVAEModel(MusicVAEConfig())
    if arguments.model:
        model = MusicVAEModel.from_pretrained(arguments.model)
    model.eval()
    with tempfile.TemporaryDirectory() as folder:
        export(model, MusicVAEProcessor(), "benchmark", Path(folder, "exported"))
        exported = OnnxModel(Path(folder, "exported"))
        for batch_size in (1, 64):
            measure(model, exported, batch_size, arguments.repetitions)


def measure(model: MusicVAEModel, exported: OnnxModel, batch_size: int, repetitions: int) -> None:
    """Prints milliseconds of each way, and how many times those of the products they are."""
    latents = torch.randn(batch_size, model.config.latent_size)
    ways = {
        "products alone": products(model, batch_size),
        "torch": partial(model.decode, latents),
        "onnxruntime": partial(exported.decoder.run, None, feed(exported, latents)),
    }
    seconds = dict(zip(ways, time_in_turn(list(ways.values()), repetitions), strict=True))
    for way, durations in seconds.items():
        print_figure(f"batch {batch_size}, {way}", [1000 * s for s in durations], "ms")
    alone = seconds.pop("products alone")
    for way, durations in seconds.items():
        ratios = [s / products for s, products in zip(durations, alone, strict=True)]
        print_figure(f"batch {batch_size}, {way} to products", ratios, "times")


def feed(exported: OnnxModel, latents: torch.Tensor) -> dict[str, np.ndarray]:
    """Inputs of the exported decoder, of which nothing but the latents is given."""
    batch_size = len(latents)
    dtypes = {"tensor(float)": np.float32, "tensor(uint8)": np.uint8}
    inputs = {
        each.name: np.zeros(
            [batch_size if isinstance(size, str) else size for size in each.shape],
            dtypes[each.type],
        )
        for each in exported.decoder.get_inputs()
    }
    return inputs | {
        "latents": latents.numpy(),
        "uniform": torch.rand(inputs["uniform"].shape).numpy(),
        "temperature": np.array(1, np.float32),
    }


def products(model: MusicVAEModel, batch_size: int) -> Callable[[], None]:
    """The products of every step: of each layer's inputs and of the output."""
    step = model.decoder.decoding_step()
    weights = [*step.weights, step.head.pattern_weight, step.head.expression_weight]
    pairs = [(torch.randn(batch_size, len(weight)), weight) for weight in weights]
    outputs = [rows @ weight for rows, weight in pairs]

    @torch.no_grad()
    def run() -> None:
        for _ in range(model.config.num_steps):
            for (rows, weight), output in zip(pairs, outputs, strict=True):
                torch.mm(rows, weight, out=output)

    return run


if __name__ == "__main__":
    main()
