"""Windows of drums as the evaluation has them, made by hand or at random."""

from collections.abc import Sequence

import torch
from tiny_models import random_rolls, random_timing

from musicvae.evaluation.windows import Windows


def windows_of(
    piano_roll: torch.Tensor | list,
    timing: torch.Tensor | list | None = None,
    file: Sequence[int] | None = None,
    bpm: float = 120,
) -> Windows:
    """Windows of these drums, each of a recording of its own unless `file` says otherwise."""
    piano_roll = torch.as_tensor(piano_roll, dtype=torch.uint8)
    timing = torch.zeros(piano_roll.shape) if timing is None else torch.as_tensor(timing)
    number = len(piano_roll)
    file = torch.arange(number) if file is None else torch.tensor(file)
    return Windows(piano_roll, timing, torch.full((number,), bpm), [""] * number, file)


def random_windows(number: int = 6, steps: int = 15, num_drums: int = 4, files: int = 3) -> Windows:
    rolls = random_rolls(number, steps, num_drums)
    return windows_of(rolls, random_timing(rolls), [index % files for index in range(number)])
