"""Times `MusicVAEModel.decode` at temperature 1: one groove, and 64 at once."""

import argparse
from collections.abc import Sequence
from functools import partial

import torch
from measure import print_figure, print_machine, time_in_turn

from modeling_musicvae import MusicVAEConfig, MusicVAEModel


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repetitions", type=int, default=100, help="measurements (default: 100)")
    parser.add_argument("--threads", type=int, help="torch's threads (default: torch decides)")
    arguments = parser.parse_args(argv)
    if arguments.threads is not None:
        torch.set_num_threads(arguments.threads)
    print_machine(torch.get_num_threads())
    torch.manual_seed(0)
    for decoder in ("hierarchical", "flat"):
        model = MusicVAEModel(MusicVAEConfig(decoder=decoder)).eval()
        one, many = (torch.randn(size, model.config.latent_size) for size in (1, 64))
        decodings = [partial(model.decode, latents, temperature=1.0) for latents in (one, many)]
        seconds_one, seconds_many = time_in_turn(decodings, arguments.repetitions)
        print_figure(f"{decoder}, batch 1", [1000 * s for s in seconds_one], "ms")
        print_figure(f"{decoder}, batch 64", [64 / s for s in seconds_many], "grooves/s")


if __name__ == "__main__":
    main()
