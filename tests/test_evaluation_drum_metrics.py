"""Drums against drums: known cases, and bounds that hold for all."""

import math
from dataclasses import replace

import pytest
import torch
from factories import random_windows, windows_of
from hypothesis import given
from hypothesis import strategies as st

from modeling_musicvae import MusicVAEConfig
from musicvae.evaluation import baselines
from musicvae.evaluation.bootstrap import Estimate
from musicvae.evaluation.drum_metrics import measure_drums, measure_each_drum, measure_ways

CONFIG = MusicVAEConfig(bars=1, steps_per_bar=4, num_drums=4)
HITS = {"pattern_accuracy", "hit_precision", "hit_recall", "hit_f1"}
ERRORS = {"velocity_mae", "timing_mae_ms"}


def values(figures: dict[str, Estimate]) -> dict[str, float | None]:
    return {name: figure.value for name, figure in figures.items()}


def test_perfect_drums_have_no_errors():
    windows = random_windows()
    figures = measure_drums(windows, windows, CONFIG, seed=0)
    assert figures == {name: Estimate(1, 1, 1) for name in HITS} | {
        name: Estimate(0, 0, 0) for name in ERRORS
    }


def test_silence_is_right_where_the_target_is_silent():
    windows = windows_of([[[1, 0, 0, 0], [0, 0, 0, 9]], [[0, 0, 0, 0], [0, 0, 0, 5]]])
    figures = measure_drums(baselines.silence(windows, windows), windows, CONFIG, seed=0)
    assert values(figures) == {
        "pattern_accuracy": 5 / 8,
        "hit_precision": None,
        "hit_recall": 0,
        "hit_f1": 0,
        "velocity_mae": None,
        "timing_mae_ms": None,
    }


def test_drums_are_measured_as_by_hand():
    target = windows_of([[[100, 0, 80, 0], [0, 0, 60, 0]]], [[[0.1, 0, 0, 0], [0, 0, -0.2, 0]]])
    played = windows_of([[[90, 70, 0, 0], [0, 0, 66, 0]]], [[[0.3, 0, 0, 0], [0, 0, -0.1, 0]]])
    figures = measure_drums(played, target, CONFIG, seed=0)
    beat_ms = 500  # at 120 bpm; four steps a bar are beats
    assert values(figures) == pytest.approx(
        {
            "pattern_accuracy": 2 / 4,
            "hit_precision": 2 / 3,
            "hit_recall": 2 / 3,
            "hit_f1": 2 / 3,
            "velocity_mae": (10 + 6) / 2,
            "timing_mae_ms": (0.2 + 0.1) / 2 * beat_ms,
        }
    )
    drums = {
        drum: values(of_drum) for drum, of_drum in measure_each_drum(played, target, 0).items()
    }
    assert drums == {
        "kick": {"hit_precision": 0.5, "hit_recall": 0.5, "hit_f1": 0.5},
        "snare": {"hit_precision": 1, "hit_recall": 1, "hit_f1": 1},
    }


def test_errors_of_timing_are_at_the_tempo_of_each_recording():
    windows = windows_of(torch.full((2, 1, 4), 9))
    windows = replace(windows, bpm=torch.tensor([60.0, 240.0]))
    late = replace(windows, timing=windows.timing + 0.25)
    figure = measure_drums(late, windows, CONFIG, seed=0)["timing_mae_ms"]
    assert figure == pytest.approx((0.25 * (1000 + 250) / 2, 62.5, 250))


rolls = st.lists(st.integers(0, 127), min_size=16, max_size=16).map(
    lambda velocities: windows_of(torch.tensor(velocities).view(2, 2, 4))
)


@given(played=rolls, target=rolls)
def test_f1_is_the_harmonic_mean_and_precision_and_recall_change_places(played, target):
    figures = values(measure_drums(played, target, CONFIG, seed=0))
    swapped = values(measure_drums(target, played, CONFIG, seed=0))
    precision, recall, f1 = (figures[f"hit_{name}"] for name in ("precision", "recall", "f1"))
    assert (precision, recall, f1) == (
        swapped["hit_recall"],
        swapped["hit_precision"],
        swapped["hit_f1"],
    )
    if precision and recall:
        assert math.isclose(f1, 2 / (1 / precision + 1 / recall))


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, HITS | ERRORS),
        ({"hits_as_controls": True}, ERRORS),
        ({"velocity_bins": 0, "timing_bins": 0}, HITS),
        ({"output": "nade"}, HITS),
    ],
    ids=["expressive", "conditioned on the hits", "hits alone", "nade"],
)
def test_a_model_is_measured_by_what_it_has_to_find(settings, expected):
    windows = random_windows()
    tables = measure_ways({"way": windows}, windows, MusicVAEConfig(num_drums=4, **settings), 0)
    assert set(tables["drums"]["way"]) == expected
    of_each_drum = {name for name in tables if name.endswith("of_each_drum")}
    assert len(of_each_drum) == (0 if expected == ERRORS else 3)
