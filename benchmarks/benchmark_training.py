"""Times a training step, compared with its matrix products, and with a step without look-back."""

import argparse
import itertools
from collections.abc import Callable, Sequence
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


def training_step(
    config: MusicVAEConfig, dtype: torch.dtype, batch_size: int
) -> Callable[[], None]:
    """A training step of a new model, on random hits."""
    torch.manual_seed(0)
    model = MusicVAEModel(config).train()
    optimizer = torch.optim.Adam(model.parameters(), fused=True)
    hits = torch.rand(batch_size, config.num_drums, config.num_steps) < 0.2
    return partial(run_training_step, model, optimizer, 100 * hits.to(torch.uint8), dtype)


def measure_share(decoder: str, dtype: torch.dtype, batch_size: int, repetitions: int) -> None:
    """Prints the sequences per second of training, of its products, and their quotient."""
    hits_alone = {"velocity_bins": 0, "timing_bins": 0, "hit_features": False}
    config = MusicVAEConfig(decoder=decoder, **hits_alone)
    products = matrix_products(config, batch_size)
    operands = [
        tuple(torch.ones(shape, dtype=dtype) for shape in ((m, k), (k, n), (m, n)))
        for m, k, n, _ in products
    ]
    training, alone = time_in_turn(
        [
            training_step(config, dtype, batch_size),
            partial(run_products, products, operands),
        ],
        repetitions,
    )
    label = f"{decoder}, {name_of(dtype)}, batch {batch_size}"
    print_figure(f"{label}: training", [batch_size / s for s in training], "sequences/s")
    print_figure(f"{label}: products alone", [batch_size / s for s in alone], "sequences/s")
    shares = [100 * b / a for a, b in zip(training, alone, strict=True)]
    print_figure(f"{label}: products' share of the time", shares, "%")


def measure_lookback(dtype: torch.dtype, batch_size: int, repetitions: int) -> None:
    """Prints the speed of the default model, and its quotient with that without look-back."""
    configs = MusicVAEConfig(), MusicVAEConfig(lookback_bars=0)
    steps = [training_step(config, dtype, batch_size) for config in configs]
    with_lookback, without = time_in_turn(steps, repetitions)
    label = f"default model, {name_of(dtype)}, batch {batch_size}"
    print_figure(f"{label}: training", [batch_size / s for s in with_lookback], "sequences/s")
    quotients = [b / a for a, b in zip(with_lookback, without, strict=True)]
    print_figure(f"{label}: compared with no look-back", quotients, "times")


def name_of(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batch_size", type=int, nargs="+", default=[64, 512], help="sequences")
    parser.add_argument("--steps", type=int, default=10, help="timed steps of each kind")
    parser.add_argument("--threads", type=int, help="torch's threads (default: torch decides)")
    arguments = parser.parse_args(argv)
    if arguments.threads is not None:
        torch.set_num_threads(arguments.threads)
    print_machine(torch.get_num_threads())
    kinds = list(itertools.product((torch.float32, torch.bfloat16), arguments.batch_size))
    for decoder in ("hierarchical", "flat"):
        for kind in kinds:
            measure_share(decoder, *kind, arguments.steps)
    for kind in kinds:
        measure_lookback(*kind, arguments.steps)


if __name__ == "__main__":
    main()
