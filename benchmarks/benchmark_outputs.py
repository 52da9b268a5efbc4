"""Times a training step with each output and each way of scheduled sampling, in turn."""

import argparse
from collections.abc import Sequence
from functools import partial

import torch
from measure import print_figure, print_machine, time_in_turn

from modeling_musicvae import MusicVAEConfig, MusicVAEModel

HITS = {"velocity_bins": 0, "timing_bins": 0}
VARIANTS = {
    "hits alone": HITS,
    "hits, velocity and timing": {},
    "hits, velocity and timing, told the hits": {"hits_as_controls": True},
    "GrooVAE's output": {"output": "groove"},
    "NADE": {"output": "nade"},
    "hits alone, half sampled, parallel": HITS | {"sampling_rate": 0.5},
    "hits alone, half sampled, exact": HITS | {"sampling_rate": 0.5, "sampling_method": "exact"},
    "velocity and timing, half sampled, parallel": {"sampling_rate": 0.5},
    "velocity and timing, half sampled, exact": {"sampling_rate": 0.5, "sampling_method": "exact"},
}


def run_training_step(
    model: MusicVAEModel,
    optimizer: torch.optim.Optimizer,
    piano_roll: torch.Tensor,
    timing: torch.Tensor,
) -> None:
    model(piano_roll, timing, step=1).loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad()


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batch_size", type=int, default=64, help="sequences")
    parser.add_argument("--steps", type=int, default=10, help="timed steps of each kind")
    parser.add_argument("--threads", type=int, help="torch's threads (default: torch decides)")
    arguments = parser.parse_args(argv)
    if arguments.threads is not None:
        torch.set_num_threads(arguments.threads)
    print_machine(torch.get_num_threads())
    torch.manual_seed(0)
    steps = []
    for variant in VARIANTS.values():
        config = MusicVAEConfig(**variant)
        shape = (arguments.batch_size, config.num_drums, config.num_steps)
        hits = torch.rand(shape) < 0.2
        piano_roll = torch.randint(1, 128, shape).to(torch.uint8) * hits
        timing = (torch.rand(shape) - 0.5) * hits
        model = MusicVAEModel(config).train()
        optimizer = torch.optim.Adam(model.parameters(), fused=True)
        steps.append(partial(run_training_step, model, optimizer, piano_roll, timing))
    seconds = dict(zip(VARIANTS, time_in_turn(steps, arguments.steps), strict=True))
    for name, durations in seconds.items():
        print_figure(name, [arguments.batch_size / s for s in durations], "sequences/s")
    pairs = zip(seconds["hits alone"], seconds["hits, velocity and timing"], strict=True)
    label = "velocity and timing, as a part of the speed of hits alone"
    print_figure(label, [100 * hits / expressive for hits, expressive in pairs], "%")


if __name__ == "__main__":
    main()
