"""Baselines: drums without a model.

Each takes windows of the training split and target windows, and returns drums for the latter.
"""

from dataclasses import replace

import numpy as np
import torch

from modeling_musicvae.drum_patterns import from_patterns, to_hits, to_patterns
from modeling_musicvae.drum_transforms import TAP_DRUM

from .windows import Windows


def silence(train: Windows, windows: Windows) -> Windows:
    """No hit at all."""
    return replace(
        windows,
        piano_roll=torch.zeros_like(windows.piano_roll),
        timing=torch.zeros_like(windows.timing),
    )


def most_frequent(train: Windows, windows: Windows) -> Windows:
    """The most frequent training pattern of each step of a window, each of its hits with the mean
    velocity and timing of that drum on that step."""
    hits = _most_frequent_hits(train)
    num_hits = (train.piano_roll > 0).sum(0).clamp(min=1)
    velocity = train.piano_roll.sum(0) / num_hits
    timing = train.timing.sum(0) / num_hits
    return replace(
        windows,
        piano_roll=(velocity.round() * hits).to(torch.uint8).expand_as(windows.piano_roll),
        timing=(timing * hits).expand_as(windows.timing),
    )


def nearest(train: Windows, windows: Windows) -> Windows:
    """The training window whose hits differ in the fewest places, the first of several."""
    index = hamming_distances(windows.piano_roll, train.piano_roll).argmin(1)
    return replace(windows, piano_roll=train.piano_roll[index], timing=train.timing[index])


def quantized(train: Windows, windows: Windows) -> Windows:
    """The hits of the windows on the grid, each with the mean velocity of the training split."""
    velocity = train.piano_roll[train.piano_roll > 0].float().mean().round().to(torch.uint8)
    return replace(
        windows,
        piano_roll=(windows.piano_roll > 0) * velocity,
        timing=torch.zeros_like(windows.timing),
    )


def most_frequent_for_taps(train: Windows, taps: Windows) -> Windows:
    """On each tap the most frequent training pattern, but for silence, of that step of a window,
    with the velocity and the timing of the tap."""
    hits = _most_frequent_hits(train, first_pattern=1)
    return replace(
        taps,
        piano_roll=taps.piano_roll[:, TAP_DRUM, None] * hits,
        timing=taps.timing[:, TAP_DRUM, None] * hits,
    )


def hamming_distances(piano_roll: torch.Tensor, others: torch.Tensor) -> np.ndarray:
    """How many hits are in one of two windows, but not in both.

    Args:
        piano_roll: uint8 (windows, drums, steps).
        others: uint8 (other windows, drums, steps).

    Returns:
        float32 (windows, other windows), whole numbers.
    """
    hits, other_hits = ((roll.flatten(1) > 0).float() for roll in (piano_roll, others))
    num_hits, num_other_hits = hits.sum(1, keepdim=True), other_hits.sum(1)
    return (num_hits + num_other_hits - 2 * hits @ other_hits.T).numpy()


def _most_frequent_hits(train: Windows, first_pattern: int = 0) -> torch.Tensor:
    """Of each step of a window, bool (drums, steps), among the patterns from `first_pattern` on."""
    num_drums = train.piano_roll.shape[1]
    patterns = to_patterns(to_hits(train.piano_roll))
    counts = [torch.bincount(step, minlength=2**num_drums) for step in patterns.T]
    # NumPy's argmax takes the first of several, torch's any of them.
    chosen = torch.stack(counts)[:, first_pattern:].numpy().argmax(1) + first_pattern
    return from_patterns(torch.from_numpy(chosen), num_drums).T
