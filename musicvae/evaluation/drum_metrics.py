"""Drums measured against those that they are to be."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from modeling_musicvae import MusicVAEConfig
from musicvae.evaluation.metrics import compare
from processing.drum_kit import DRUM_NAMES

from .bootstrap import Estimate, interval
from .windows import Windows

Estimates = dict[str, Estimate]


def join(batches: Sequence[Any], windows: Windows) -> Windows:
    """The windows with the drums that a model made of all their batches."""
    return replace(
        windows,
        piano_roll=torch.cat([drums.piano_roll for drums in batches]),
        timing=torch.cat([drums.timing for drums in batches]),
    )


def measure_ways(
    ways: dict[str, Windows], windows: Windows, config: MusicVAEConfig, seed: int
) -> dict[str, dict[str, Estimates]]:
    """`measure_drums` of drums that were made in several ways and, unless the model is conditioned
    on the hits, `measure_each_drum`.

    Returns:
        For each measure of each drum, and for all others together, a table: way -> name -> figure.
    """
    tables = {"drums": {way: measure_drums(ways[way], windows, config, seed) for way in ways}}
    if not config.hits_as_controls:
        drums = {way: measure_each_drum(ways[way], windows, seed) for way in ways}
        for measure in ("precision", "recall", "f1"):
            tables[f"hit_{measure}_of_each_drum"] = {
                way: {drum: figures[f"hit_{measure}"] for drum, figures in drums[way].items()}
                for way in ways
            }
    return tables


def measure_drums(drums: Windows, windows: Windows, config: MusicVAEConfig, seed: int) -> Estimates:
    """How near drums come to the windows, in what a model of this kind has to find.

    Returns:
        pattern_accuracy, the share of steps whose pattern is right; hit_precision, hit_recall and
        hit_f1; and on hits that both have the mean absolute errors, velocity_mae in MIDI units and
        timing_mae_ms in milliseconds at the tempo of the recording. Those of hits are left out for
        a model that is conditioned on them, the errors for one of hits alone.
    """
    files = windows.file.numpy()
    differences = compare(
        drums, windows.piano_roll, windows.timing, windows.bpm, config.steps_per_bar
    )
    sums = {name: column.double().numpy() for name, column in differences.items()}
    figures = {}
    if not config.hits_as_controls:
        figures["pattern_accuracy"] = interval(sums["pattern_accuracy"], None, files, seed)
        played, true = (num_hits(roll).sum(1) for roll in (drums.piano_roll, windows.piano_roll))
        figures |= measure_hits(sums["common_hits"], played, true, files, seed)
    if config.models_expression:
        for name, error in (
            ("velocity_mae", "velocity_error"),
            ("timing_mae_ms", "timing_error_ms"),
        ):
            figures[name] = interval(sums[error], sums["common_hits"], files, seed)
    return figures


def measure_each_drum(drums: Windows, windows: Windows, seed: int) -> dict[str, Estimates]:
    """hit_precision, hit_recall and hit_f1 of each drum."""
    rolls = drums.piano_roll, windows.piano_roll
    common = num_hits((rolls[0] > 0) & (rolls[1] > 0))
    counts = (common.T, *(num_hits(roll).T for roll in rolls))
    return {
        name: measure_hits(common, played, true, windows.file.numpy(), seed)
        for name, common, played, true in zip(DRUM_NAMES, *counts, strict=False)
    }


def num_hits(piano_roll: torch.Tensor) -> np.ndarray:
    """(windows, drums, steps) -> int64 (windows, drums)."""
    return (piano_roll > 0).sum(2).numpy()


def measure_hits(
    common: np.ndarray, played: np.ndarray, true: np.ndarray, files: np.ndarray, seed: int
) -> Estimates:
    """Precision, recall and F1 of hits.

    Args:
        common: (windows,), hits that are both played and true.
        played: (windows,), hits that are played.
        true: (windows,), hits that are to be played.
        files: int (windows,), the recording that each window is from.
        seed: of the intervals.
    """
    return {
        "hit_precision": interval(common, played, files, seed),
        "hit_recall": interval(common, true, files, seed),
        "hit_f1": interval(2 * common, played + true, files, seed),
    }
