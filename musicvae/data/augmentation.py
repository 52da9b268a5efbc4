"""Augmentation: training windows changed in ways that are true to music.

Every function takes and returns a batch, `piano_roll` uint8 (batch, drums, steps) and, where it
matters, `timing` float32 (batch, drums, steps), and leaves its arguments as they are.
"""

import torch

from processing.drum_kit import DRUM_NAMES

Drums = tuple[torch.Tensor, torch.Tensor]

CLOSED_HIHAT, RIDE = DRUM_NAMES.index("closed hi-hat"), DRUM_NAMES.index("ride")


def scale_velocities(
    piano_roll: torch.Tensor, max_change: float, generator: torch.Generator | None = None
) -> torch.Tensor:
    """Scales the velocities of each sequence by a factor from 1 / (1 + max_change) to
    1 + max_change, drawn evenly on a logarithmic scale; a hit stays within 1 to 127."""
    draws = torch.rand(len(piano_roll), 1, 1, generator=generator, device=piano_roll.device)
    factor = (1 + max_change) ** (2 * draws - 1)
    scaled = (piano_roll * factor).round_().clamp_(1, 127)
    return scaled.to(torch.uint8) * (piano_roll > 0)


def recombine_drums(
    piano_roll: torch.Tensor,
    timing: torch.Tensor,
    probability: float,
    generator: torch.Generator | None = None,
) -> Drums:
    """Sequences that take each whole drum from another of the batch by a fair coin.

    Whole drums, not whole bars: bars of different recordings in one sequence would contradict what
    the decoder's look-back learns, that a bar resembles those before it.

    Args:
        piano_roll, timing: see above.
        probability: of a sequence to be recombined.
        generator: of the draws.
    """
    batch_size, num_drums, _ = piano_roll.shape

    def draw(*shape: int) -> torch.Tensor:
        return torch.rand(shape, generator=generator, device=piano_roll.device)

    taken = (draw(batch_size, num_drums, 1) < 0.5) & (draw(batch_size, 1, 1) < probability)
    other = draw(batch_size).argsort()
    return piano_roll[other].where(taken, piano_roll), timing[other].where(taken, timing)


def exchange_cymbals(
    piano_roll: torch.Tensor,
    timing: torch.Tensor,
    probability: float,
    generator: torch.Generator | None = None,
) -> Drums:
    """Sequences whose closed hi-hat and ride change places, with a probability: drummers keep time
    on either."""
    order = torch.arange(piano_roll.shape[1], device=piano_roll.device)
    order[[CLOSED_HIHAT, RIDE]] = order[[RIDE, CLOSED_HIHAT]]
    draws = torch.rand(len(piano_roll), 1, 1, generator=generator, device=piano_roll.device)
    exchanged = draws < probability
    return (
        piano_roll[:, order].where(exchanged, piano_roll),
        timing[:, order].where(exchanged, timing),
    )
