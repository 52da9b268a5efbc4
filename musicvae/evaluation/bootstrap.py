"""How sure a figure is: 95 % intervals by the bootstrap, with whole recordings drawn anew.

Windows of one recording are alike, so that drawing them one by one would make the intervals too
narrow. Efron and Tibshirani, An Introduction to the Bootstrap, 1993: percentile intervals of a
cluster bootstrap.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

NUM_RESAMPLES = 1000
PERCENTILES = (2.5, 97.5)


class Estimate(NamedTuple):
    """A measured number and its 95 % interval.

    Attributes:
        value: None where there is nothing to measure it on.
        low, high: None where an interval has no meaning.
    """

    value: float | None
    low: float | None = None
    high: float | None = None


def interval(
    values: np.ndarray, weights: np.ndarray | None, files: np.ndarray, seed: int
) -> Estimate:
    """A ratio of sums: sum(values) / sum(weights), or the mean of the values.

    Args:
        values: (windows,), such as the errors of all hits of each window, added up.
        weights: (windows,), such as the number of hits; None for ones.
        files: int (windows,), the recording that each window is from.
        seed: of the resamples; the same ones for figures of the same files.
    """
    weights = np.ones_like(values) if weights is None else weights
    return resampled(np.stack([values, weights], 1), files, lambda sums: ratio(*sums.T), seed)


def difference(
    values: np.ndarray, others: np.ndarray, files: np.ndarray, other_files: np.ndarray, seed: int
) -> Estimate:
    """The mean of values less the mean of others, of other recordings.

    Args:
        values, others: (n,) and (m,).
        files, other_files: int (n,) and (m,), the recording that each is from.
        seed: of the resamples, in which recordings of both are drawn anew.
    """
    counts = np.zeros((len(values) + len(others), 4))
    counts[: len(values), :2] = np.stack([values, np.ones_like(values)], 1)
    counts[len(values) :, 2:] = np.stack([others, np.ones_like(others)], 1)
    files = np.concatenate([files, files.max() + 1 + other_files])
    return resampled(
        counts, files, lambda sums: ratio(*sums[:, :2].T) - ratio(*sums[:, 2:].T), seed
    )


def ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """NaN where the denominator is 0."""
    return numerator / np.where(denominator == 0, np.nan, denominator)


def resampled(
    counts: np.ndarray,
    files: np.ndarray,
    statistic: Callable[[np.ndarray], np.ndarray],
    seed: int,
) -> Estimate:
    """A statistic of numbers that add up over windows; see `resample`."""
    return estimate(*resample(counts, files, statistic, seed))


def resample(
    counts: np.ndarray,
    files: np.ndarray,
    statistic: Callable[[np.ndarray], np.ndarray],
    seed: int,
) -> tuple[float, np.ndarray]:
    """The value of a statistic, and its values on resamples of the recordings.

    Args:
        counts: (windows, numbers), which add up over windows.
        files: int (windows,), the recording that each window is from.
        statistic: sums (resamples, numbers) -> (resamples,), NaN where it is not defined.
        seed: of the resamples.

    Returns:
        The value, and float64 (resamples,); none of a single recording.
    """
    names, files = np.unique(files, return_inverse=True)
    sums = np.zeros((len(names), counts.shape[1]))
    np.add.at(sums, files, counts)
    value = statistic(sums.sum(0, keepdims=True)).item()
    if len(names) == 1 or np.isnan(value):
        return value, np.empty(0)
    rng = np.random.default_rng(seed)
    times_drawn = rng.multinomial(len(names), np.full(len(names), 1 / len(names)), NUM_RESAMPLES)
    return value, statistic(times_drawn @ sums)


def estimate(value: float, resamples: np.ndarray) -> Estimate:
    """The estimate of what `resample` returns."""
    if np.isnan(value):
        return Estimate(None)
    if len(resamples) == 0:
        return Estimate(value)
    low, high = np.nanpercentile(resamples, PERCENTILES)
    return Estimate(value, float(low), float(high))
