"""New drums compared with drums that were played."""

from functools import partial

import numpy as np
import torch

from modeling_musicvae import MusicVAEConfig, MusicVAEModel
from modeling_musicvae.drum_attributes import syncopation
from processing.drum_kit import DRUM_NAMES

from .bar_similarity import bar_similarities, measure_bar_similarity
from .baselines import hamming_distances
from .bootstrap import Estimate, estimate, interval, ratio, resample, resampled
from .report import Measures
from .windows import Windows

GRID_POINTS = 256
# Keeps the divergence of distributions that nowhere meet finite.
LEAST_PROBABILITY = 1e-10
QUANTILES = (0.05, 0.5, 0.95)
CHUNK = 256  # rolls, whose distances to a whole training set are 16 MB


def draw_samples(
    model: MusicVAEModel, windows: Windows, num_samples: int, temperature: float, seed: int
) -> Windows:
    """New drums, each a recording of its own, at 120 bpm.

    A conditional model is conditioned on `windows`, one after the other.
    """
    index = torch.arange(num_samples)
    piano_roll, timing = (
        each[index % len(windows)] for each in (windows.piano_roll, windows.timing)
    )
    generator = torch.Generator().manual_seed(seed)
    conditioning = model.conditioning(piano_roll, timing)
    drums = model.sample(num_samples, temperature, generator, *conditioning)
    bpm = torch.full((num_samples,), 120.0)
    return Windows(drums.piano_roll, drums.timing, bpm, [""] * num_samples, index)


def measure_samples(
    samples: Windows,
    windows: Windows,
    other_windows: Windows,
    train_windows: Windows,
    config: MusicVAEConfig,
    seed: int,
) -> Measures:
    """How like the drums of a split samples are, and how unlike each other and the training set.

    Args:
        samples: drawn by `draw_samples`.
        windows: of the split, without overlap.
        other_windows: of another split, without overlap: how they compare with `windows` is what
            real drummers differ by.
        train_windows: all of them, overlapping.
        config: of the model, which decides what its drums can be measured by.
        seed: of the bootstrap.

    Returns:
        summary: mean_overlapping_area, over all features, of the samples and of the other split;
            and `measure_bar_similarity`.
        distributions: for each of `features`, overlapping_area and kl_divergence (see
            `compare_features`) of the samples and of the other split.
        nearest_training_window: the distances of samples and of windows to it; and
        nearest_other: to the nearest other sample and the nearest other window (see
            `summarize_distances`).
        The similarity of bars and the last two are left out for a model that is given the hits.
    """
    played, sampled, others = (features(each, config) for each in (windows, samples, other_windows))
    files, other_files = windows.file.numpy(), other_windows.file.numpy()
    of_samples, samples_mean = compare_features(played, sampled, files, samples.file.numpy(), seed)
    of_others, others_mean = compare_features(played, others, files, other_files, seed)
    summary = {
        "samples": {"mean_overlapping_area": samples_mean},
        "other_split": {"mean_overlapping_area": others_mean},
    }
    distributions = {
        name: {
            measure: {"samples": of_samples[name][measure], "other_split": of_others[name][measure]}
            for measure in of_samples[name]
        }
        for name in played
    }
    measures: Measures = {"summary": summary, "distributions": distributions}
    if not config.hits_as_controls:
        sets = {"samples": samples, "other_split": other_windows, "played": windows}
        for name, similarity in measure_bar_similarity(sets, config.bars, seed).items():
            summary[name] = summary.get(name, {}) | similarity
        named = {"samples": samples, "played": windows}
        measures |= measure_distances(named, train_windows.piano_roll, seed)
    return measures


def measure_distances(sets: dict[str, Windows], train: torch.Tensor, seed: int) -> Measures:
    """Distances of each set of drums to the nearest training window, and to their nearest others;
    see `summarize_distances`."""
    measures: Measures = {"nearest_training_window": {}, "nearest_other": {}}
    for name, drums in sets.items():
        for measure, others in (("nearest_training_window", train), ("nearest_other", None)):
            distances = nearest_distances(drums.piano_roll, others)
            measures[measure][name] = summarize_distances(distances, drums, seed)
    return measures


def features(windows: Windows, config: MusicVAEConfig) -> dict[str, np.ndarray]:
    """The features whose distributions are compared, each float (windows,).

    Those that the model decides: hits_per_bar, of all drums and of each; syncopation, a
    bar (see `drum_attributes`); repeated_bars, the share of the bars after the first whose hits
    are those of an earlier bar of the window; bar_similarity and two_bar_similarity, see
    `bar_similarities`; mean and spread (standard
    deviation) of the velocities of a window, in MIDI units, and of its timing, in steps. A window
    without hits has NaN for the last four.
    """
    piano_roll, timing = windows.piano_roll, windows.timing
    hits = piano_roll > 0
    values = {}
    if not config.hits_as_controls:
        per_bar = hits.sum(2) / config.bars
        values["hits_per_bar"] = per_bar.sum(1)
        for drum, column in zip(DRUM_NAMES, per_bar.T, strict=True):
            values[f"{drum.replace(' ', '_')}_hits_per_bar"] = column
        values["syncopation"] = syncopation(piano_roll, timing, config.steps_per_bar)
        if config.bars > 1:
            values["repeated_bars"] = _repeated_bars(hits, config.bars)
        values |= bar_similarities(piano_roll, config.bars)
    if config.models_expression:
        for name, column in (("velocity", piano_roll), ("timing", timing)):
            mean, spread = _mean_and_spread(column.double(), hits)
            values |= {f"{name}_mean": mean, f"{name}_spread": spread}
    return {name: column.double().numpy() for name, column in values.items()}


def _repeated_bars(hits: torch.Tensor, bars: int) -> torch.Tensor:
    in_bars = hits.unflatten(2, (bars, -1)).transpose(1, 2).flatten(2)
    equal = (in_bars[:, :, None] == in_bars[:, None]).all(3)
    return equal.tril(-1).any(2)[:, 1:].double().mean(1)


def _mean_and_spread(values: torch.Tensor, hits: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    count = hits.sum((1, 2))
    mean = (values * hits).sum((1, 2)) / count
    squares = (values - mean[:, None, None]) ** 2 * hits
    return mean, (squares.sum((1, 2)) / count).sqrt()


def compare_features(
    played: dict[str, np.ndarray],
    drawn: dict[str, np.ndarray],
    files: np.ndarray,
    drawn_files: np.ndarray,
    seed: int,
) -> tuple[dict[str, dict[str, Estimate]], Estimate]:
    """How alike two sets of windows are in the distributions of their features.

    After Yang and Lerch (2018), "On the evaluation of generative models in music", by kernel
    density estimates; theirs are of the distances within a set and between the sets, these of the
    values themselves, so that a plot shows what is measured.

    Args:
        played: of each feature (n,), NaN where there is no value.
        drawn: of each feature (m,), of the set that is judged.
        files: int (n,), the recordings that the played values are from.
        drawn_files: int (m,).
        seed: of the bootstrap, which draws recordings of both sets anew.

    Returns:
        For each feature overlapping_area, of both densities, 0 to 1 (the same), and kl_divergence,
        of the drawn values' density from that of the played ones, KL(drawn || played), in nats;
        drawn values far from all played ones weigh most in it. And the mean overlapping area.

        Drawing anew makes two sets differ more than they do, so that the intervals reach farther
        to the side of the worse.
    """
    files = np.concatenate([files, files.max() + 1 + drawn_files])
    comparisons, areas = {}, []
    for name in played:
        counts = kernels_of_both(played[name], drawn[name])
        area = resample(counts, files, _overlapping_area, seed)
        divergence = resample(counts, files, _kl_divergence, seed)
        comparisons[name] = {
            "overlapping_area": estimate(*area),
            "kl_divergence": estimate(*divergence),
        }
        if not np.isnan(area[0]):
            areas.append(area)
    if not areas:
        return comparisons, Estimate(None)
    values, resamples = zip(*areas, strict=True)
    return comparisons, estimate(np.mean(values).item(), np.mean(resamples, 0))


def kernels_of_both(played: np.ndarray, drawn: np.ndarray) -> np.ndarray:
    """The kernels of played values on the first half of the columns, those of drawn ones on the
    second, (n + m, 2 * GRID_POINTS); zeros for NaN."""
    kernels = np.zeros((len(played) + len(drawn), 2 * GRID_POINTS))
    has_value = ~np.isnan(np.concatenate([played, drawn]))
    if not has_value[: len(played)].any() or not has_value[len(played) :].any():
        return kernels
    some = [values[~np.isnan(values)] for values in (played, drawn)]
    grid, bandwidth = common_grid(*some)
    first, second = np.flatnonzero(has_value), len(some[0])
    kernels[first[:second], :GRID_POINTS] = gaussian_kernels(some[0], grid, bandwidth)
    kernels[first[second:], GRID_POINTS:] = gaussian_kernels(some[1], grid, bandwidth)
    return kernels


def common_grid(*sets: np.ndarray) -> tuple[np.ndarray, float]:
    """Points that cover all values, and the bandwidth of Silverman's rule for all together.

    One bandwidth smooths all sets alike, so that equal sets have equal densities.
    """
    values = np.concatenate(sets)
    # Any width does for values that are all the same.
    bandwidth = values.std() * (0.75 * len(values)) ** -0.2 or 1.0
    margin = 3 * bandwidth
    return np.linspace(values.min() - margin, values.max() + margin, GRID_POINTS), bandwidth


def gaussian_kernels(values: np.ndarray, grid: np.ndarray, bandwidth: float) -> np.ndarray:
    """The probability that each value gives to each point: (values, points), rows sum to 1."""
    kernels = np.exp(-0.5 * ((grid - values[:, None]) / bandwidth) ** 2)
    return kernels / kernels.sum(1, keepdims=True)


def _overlapping_area(sums: np.ndarray) -> np.ndarray:
    played, drawn = _probabilities(sums)
    return np.minimum(played, drawn).sum(1)


def _kl_divergence(sums: np.ndarray) -> np.ndarray:
    played, drawn = (each.clip(LEAST_PROBABILITY) for each in _probabilities(sums))
    return (drawn * np.log(drawn / played)).sum(1)


def _probabilities(sums: np.ndarray) -> list[np.ndarray]:
    return [ratio(each, each.sum(1, keepdims=True)) for each in np.split(sums, 2, axis=1)]


def nearest_distances(rolls: torch.Tensor, others: torch.Tensor | None = None) -> np.ndarray:
    """Hamming distance of the hits of each roll to those of the nearest of others.

    Args:
        rolls: uint8 (n, drums, steps), piano rolls.
        others: uint8 (m, drums, steps), to search; without them each roll's nearest among the
            other rolls, at least 2.

    Returns:
        int (n,), the cells, of drums x steps, where one has a hit and the other none.

    Raises:
        ValueError: a roll has no others.
    """
    if others is None and len(rolls) < 2:
        raise ValueError(f"rolls: found {len(rolls)}, expected at least 2, to compare them")
    nearest = []
    for index in torch.arange(len(rolls)).split(CHUNK):
        distances = hamming_distances(rolls[index], rolls if others is None else others)
        if others is None:
            distances[np.arange(len(index)), index] = np.inf
        nearest.append(distances.min(1))
    return np.concatenate(nearest).astype(np.int64)


def summarize_distances(distances: np.ndarray, windows: Windows, seed: int) -> dict[str, Estimate]:
    """Mean and quantiles of distances that belong to windows, and identical, the share of 0."""
    files = windows.file.numpy()
    histogram = np.eye(distances.max() + 1)[distances]
    return {
        "mean": interval(distances.astype(float), None, files, seed),
        **{
            f"{quantile:.0%}": resampled(histogram, files, partial(_quantile, quantile), seed)
            for quantile in QUANTILES
        },
        "identical": interval((distances == 0).astype(float), None, files, seed),
    }


def _quantile(quantile: float, histograms: np.ndarray) -> np.ndarray:
    cumulative = histograms.cumsum(1)
    return (cumulative >= quantile * cumulative[:, -1:]).argmax(1).astype(float)
