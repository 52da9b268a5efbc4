"""Greedy drums for taps: the hits that draws agree on.

What is most likely at each step has fewer hits in common with what drummers play than what many
whole draws agree on.
"""

import torch

# Chosen on the validation split.
NUM_DRAWS, LEAST_DRAWS, TEMPERATURE = 32, 13, 0.7
MAX_WINDOWS = 16  # whose draws are held at once
# Of the numbers that decide the draws: stream 2 of seed 0 and those that follow it, one for each
# draw, as docs/onnx.md describes them.
FIRST_STREAM, STREAM_STEP = 2, 0x9E3779B9
UINT32 = 0xFFFFFFFF


class FixedDraws:
    """The `generator` of `NUM_DRAWS` draws of each window that never change, so that greedy drums
    do not: the numbers are the same in every window, on every device, and without torch."""

    def rand(self, shape: tuple[int, int, int]) -> torch.Tensor:
        """float32 (steps, windows * NUM_DRAWS, num_draws), in [0, 1)."""
        steps, batch_size, num_draws = shape
        streams = FIRST_STREAM + torch.arange(NUM_DRAWS)
        keys = _mix((streams + 1) * STREAM_STEP & UINT32)
        index = torch.arange(steps * num_draws).view(steps, 1, num_draws)
        numbers = (_mix(_mix(index) ^ keys[:, None]) >> 8).float() * 2.0**-24
        return numbers.repeat(1, batch_size // NUM_DRAWS, 1)


def agreed_hits(piano_roll: torch.Tensor) -> torch.Tensor:
    """The hits that enough draws have.

    Args:
        piano_roll: uint8 (batch * NUM_DRAWS, drums, steps): all draws of a window are in a row.

    Returns:
        bool (batch, drums, steps).
    """
    return (piano_roll.unflatten(0, (-1, NUM_DRAWS)) > 0).sum(1) >= LEAST_DRAWS


def _mix(x: torch.Tensor) -> torch.Tensor:
    """The finalizer lowbias32 of Chris Wellons, a bijection of uint32, here in int64."""
    x = (x ^ (x >> 16)) * 0x7FEB352D & UINT32
    x = (x ^ (x >> 15)) * 0x846CA68B & UINT32
    return x ^ (x >> 16)
