"""How much bars of a groove resemble those before them."""

import numpy as np
import torch

from .bootstrap import Estimate, interval, ratio, resampled
from .windows import Windows

# The name of the similarity to the bar that is so many bars before.
LAGS = {1: "bar_similarity", 2: "two_bar_similarity"}
NUM_BINS = 20


def bar_similarities(piano_roll: torch.Tensor, bars: int) -> dict[str, torch.Tensor]:
    """For each window the mean, over its bars that have a bar before, of the F1 of the hits of a
    bar with those of that bar; 1 for two bars without hits.

    Args:
        piano_roll: uint8 (windows, drums, steps).
        bars: in a window.

    Returns:
        Each float64 (windows,), 0 to 1, for those of `LAGS` that a window is longer than.
    """
    hits = (piano_roll > 0).unflatten(2, (bars, -1)).transpose(1, 2).flatten(2)
    similarities = {}
    for lag, name in LAGS.items():
        if lag < bars:
            later, earlier = hits[:, lag:], hits[:, :-lag]
            both, either = (later & earlier).sum(2), later.sum(2) + earlier.sum(2)
            f1 = torch.where(either > 0, 2 * both.double() / either, 1)
            similarities[name] = f1.mean(1)
    return similarities


def measure_bar_similarity(
    sets: dict[str, Windows], bars: int, seed: int
) -> dict[str, dict[str, Estimate]]:
    """The mean similarities of bars of sets of drums, and the overlap of their distributions over
    windows, in bins, with that of the last set.

    Args:
        sets: by name.
        bars: in a window.
        seed: of the bootstrap.
    """
    found = {name: bar_similarities(drums.piano_roll, bars) for name, drums in sets.items()}
    *_, reference = sets
    measures: dict[str, dict[str, Estimate]] = {name: {} for name in sets}
    for name, drums in sets.items():
        files = drums.file.numpy()
        for measure, values in found[name].items():
            measures[name][measure] = interval(values.numpy(), None, files, seed)
            if name != reference:
                measures[name][f"{measure}_overlap_in_bins"] = histogram_overlap(
                    found[reference][measure].numpy(),
                    values.numpy(),
                    sets[reference].file.numpy(),
                    files,
                    seed,
                )
    return measures


def histogram_overlap(
    played: np.ndarray, drawn: np.ndarray, files: np.ndarray, drawn_files: np.ndarray, seed: int
) -> Estimate:
    """The overlap of the histograms of two sets of values in [0, 1], 0 to 1 (the same).

    Args:
        played: (n,).
        drawn: (m,).
        files, drawn_files: int (n,) and (m,), the recordings that the values are from.
        seed: of the bootstrap.
    """
    counts = np.zeros((len(played) + len(drawn), 2 * NUM_BINS))
    counts[: len(played), :NUM_BINS] = one_hot_bins(played)
    counts[len(played) :, NUM_BINS:] = one_hot_bins(drawn)
    files = np.concatenate([files, files.max() + 1 + drawn_files])
    return resampled(counts, files, _overlap, seed)


def one_hot_bins(values: np.ndarray) -> np.ndarray:
    """The bins of values in [0, 1]: float64 (values, bins); 1 is in the last one."""
    return np.eye(NUM_BINS)[np.minimum(values * NUM_BINS, NUM_BINS - 1).astype(int)]


def _overlap(sums: np.ndarray) -> np.ndarray:
    played, drawn = (ratio(each, each.sum(1, keepdims=True)) for each in np.split(sums, 2, axis=1))
    return np.minimum(played, drawn).sum(1)
