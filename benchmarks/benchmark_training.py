"""Times a training step of a model of hits, compared with the matrix products that it needs."""

import argparse
import itertools
from collections.abc import Sequence
from functools import partial

import torch
from matrix_products import Product, matrix_products
from measure import print_figure, print_machine, time_in_turn

from modeling_musicvae import MusicVAEConfig, MusicVAEModel


def run_products(products: Sequence[Product], operands: Sequence[tuple[torch.Tensor, ...]]) -> None:
    for product, (left, right, out) in zip(products, operands, strict=True):
        for _ in range(product.count):
            torch.mm(left, right, out=out)


def run_training_step(
    model: MusicVAEModel,
    optimizer: torch.optim.Optimizer,
    piano_roll: torch.Tensor,
    dtype: torch.dtype,
) -> None:
    with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
        loss = model(piano_roll).loss
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad()


def measure(decoder: str, dtype: torch.dtype, batch_size: int, repetitions: int) -> None:
    """Prints the sequences per second of training, of its products, and their quotient."""
    torch.manual_seed(0)
    hits_alone = {"velocity_bins": 0, "timing_bins": 0, "hit_features": False}
    config = MusicVAEConfig(decoder=decoder, **hits_alone)
    model = MusicVAEModel(config).train()
    optimizer = torch.optim.Adam(model.parameters(), fused=True)
    hits = torch.rand(batch_size, config.num_drums, config.num_steps) < 0.2
    products = matrix_products(config, batch_size)
    operands = [
        tuple(torch.ones(shape, dtype=dtype) for shape in ((m, k), (k, n), (m, n)))
        for m, k, n, _ in products
    ]
    training, alone = time_in_turn(
        [
            partial(run_training_step, model, optimizer, 100 * hits.to(torch.uint8), dtype),
            partial(run_products, products, operands),
        ],
        repetitions,
    )
    label = f"{decoder}, {str(dtype).removeprefix('torch.')}, batch {batch_size}"
    print_figure(f"{label}: training", [batch_size / s for s in training], "sequences/s")
    print_figure(f"{label}: products alone", [batch_size / s for s in alone], "sequences/s")
    shares = [100 * b / a for a, b in zip(training, alone, strict=True)]
    print_figure(f"{label}: products' share of the time", shares, "%")


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batch_size", type=int, nargs="+", default=[64, 512], help="sequences")
    parser.add_argument("--steps", type=int, default=10, help="timed steps of each kind")
    parser.add_argument("--threads", type=int, help="torch's threads (default: torch decides)")
    arguments = parser.parse_args(argv)
    if arguments.threads is not None:
        torch.set_num_threads(arguments.threads)
    print_machine(torch.get_num_threads())
    kinds = itertools.product(
        ("hierarchical", "flat"), (torch.float32, torch.bfloat16), arguments.batch_size
    )
    for decoder, dtype, batch_size in kinds:
        measure(decoder, dtype, batch_size, arguments.steps)


if __name__ == "__main__":
    main()
