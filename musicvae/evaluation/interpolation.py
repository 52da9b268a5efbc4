"""Paths from one groove to another."""

import numpy as np
import torch

from modeling_musicvae import MusicVAEModel, spherical_interpolation
from modeling_musicvae.drum_patterns import to_hits, to_patterns

from .bootstrap import interval
from .latents import posterior_means
from .report import Measures
from .windows import Windows

NUM_POINTS = 9


def measure_interpolation(
    model: MusicVAEModel, windows: Windows, num_pairs: int, seed: int
) -> Measures:
    """Spherical paths between the posterior means of pairs of windows, decoded greedily.

    As in Roberts et al. 2018 (arXiv 1803.05428, Figure 4). A distance is the share of steps with
    different patterns. The baseline mixes the windows themselves: each step is the
    end's with a probability that grows from 0 to 1 along the path. Each step changes sides once,
    which makes it as even and as short a path as there is; what lies on it is a patchwork.

    Args:
        model: not one that is conditioned on the hits, which it would not change.
        windows: of a split, at least 2.
        num_pairs: of windows, drawn at random.
        seed: of the pairs, the mixtures and the bootstrap, which draws recordings of the first
            windows anew.

    Returns:
        For spherical and mixed paths: distance_to_start and distance_to_end, of the windows
        themselves, at each of `NUM_POINTS` points from 0 to 1; step_distance, the mean distance of
        neighbouring points; and step_variation, the coefficient of variation of these distances
        along a path (0: even), over paths that change at all.
    """
    starts, ends = draw_pairs(len(windows), num_pairs, seed)
    first, last = windows.select(starts.tolist()), windows.select(ends.tolist())
    start, end = (to_patterns(to_hits(each.piano_roll)) for each in (first, last))
    means = zip(posterior_means(model, first), posterior_means(model, last), strict=True)
    latents = torch.cat([spherical_interpolation(*pair, NUM_POINTS) for pair in means])
    decoded = to_patterns(to_hits(model.decode(latents, temperature=0).piano_roll))
    paths = {
        "spherical": decoded.unflatten(0, (num_pairs, NUM_POINTS)),
        "mixed": mix_patterns(start, end, NUM_POINTS, torch.Generator().manual_seed(seed)),
    }
    files = first.file.numpy()
    return {name: measure_paths(path, start, end, files, seed) for name, path in paths.items()}


def draw_pairs(num_windows: int, num_pairs: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Indices of windows, each int (num_pairs,), the two of a pair different.

    Raises:
        ValueError: there are no two windows.
    """
    if num_windows < 2:
        raise ValueError(f"windows: found {num_windows}, expected at least 2, a pair")
    rng = np.random.default_rng(seed)
    starts = rng.integers(num_windows, size=num_pairs)
    return starts, (starts + rng.integers(1, num_windows, size=num_pairs)) % num_windows


def mix_patterns(
    start: torch.Tensor, end: torch.Tensor, num_points: int, generator: torch.Generator
) -> torch.Tensor:
    """Patterns (pairs, steps) of both ends -> paths of mixtures (pairs, num_points, steps)."""
    changes_at = torch.rand(start.shape, generator=generator)[:, None]
    fraction = torch.linspace(0, 1, num_points)[:, None]
    return torch.where(changes_at < fraction, end[:, None], start[:, None])


def measure_paths(
    paths: torch.Tensor, start: torch.Tensor, end: torch.Tensor, files: np.ndarray, seed: int
) -> Measures:
    """See `measure_interpolation`.

    Args:
        paths: int (pairs, points, steps), patterns.
        start, end: int (pairs, steps), the patterns that paths lead from and to.
        files: int (pairs,), recordings to draw anew.
        seed: of the bootstrap.
    """
    measures: Measures = {}
    fractions = np.linspace(0, 1, paths.shape[1])
    for name, goal in (("distance_to_start", start), ("distance_to_end", end)):
        distances = (paths != goal[:, None]).double().mean(2).numpy()
        measures[name] = {
            f"{fraction:g}": interval(column, None, files, seed)
            for fraction, column in zip(fractions, distances.T, strict=True)
        }
    strides = (paths[:, 1:] != paths[:, :-1]).double().mean(2).numpy()
    mean = strides.mean(1)
    moves = mean > 0
    variation = strides.std(1)[moves] / mean[moves]
    measures["step_distance"] = interval(mean, None, files, seed)
    measures["step_variation"] = interval(variation, None, files[moves], seed)
    return measures
