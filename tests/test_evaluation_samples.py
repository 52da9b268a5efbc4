"""Distributions and distances of samples, on drums and numbers whose answers are known."""

from dataclasses import replace
from statistics import NormalDist

import numpy as np
import pytest
import torch
from factories import GIVEN_HITS, NO_EXPRESSION, nine_drum_model, nine_drum_windows, windows_of
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from modeling_musicvae import MusicVAEConfig
from musicvae.evaluation.bootstrap import Estimate
from musicvae.evaluation.samples import (
    compare_features,
    draw_samples,
    features,
    measure_samples,
    nearest_distances,
    summarize_distances,
)

OF_EXPRESSION = {"velocity_mean", "velocity_spread", "timing_mean", "timing_spread"}
values_of_sets = arrays(float, st.integers(2, 20), elements=st.floats(-100, 100, width=16))
hits_of_windows = arrays(np.uint8, (5, 2, 4), elements=st.integers(0, 1))


def compared(played: np.ndarray, drawn: np.ndarray) -> tuple[float, float]:
    """Overlapping area and KL divergence, each value being of a recording of its own."""
    files, drawn_files = np.arange(len(played)), np.arange(len(drawn))
    comparison, mean = compare_features({"f": played}, {"f": drawn}, files, drawn_files, seed=0)
    assert mean == comparison["f"]["overlapping_area"]
    return mean.value, comparison["f"]["kl_divergence"].value


def test_features_of_a_window():
    roll, timing = torch.zeros(1, 9, 8, dtype=torch.uint8), torch.zeros(1, 9, 8)
    for drum, step, velocity, late in ((0, 0, 60, 0.1), (0, 4, 60, 0.1), (2, 3, 120, -0.05)):
        roll[0, drum, step], timing[0, drum, step] = velocity, late
    measured = features(windows_of(roll, timing), MusicVAEConfig(bars=2, steps_per_bar=4))
    assert {name: column.item() for name, column in measured.items() if column} == pytest.approx(
        {
            "hits_per_bar": 1.5,
            "kick_hits_per_bar": 1.0,
            "bar_similarity": 2 / 3,
            "closed_hi-hat_hits_per_bar": 0.5,
            "velocity_mean": 80,
            "velocity_spread": np.std([60, 60, 120]),
            "timing_mean": 0.05,
            "timing_spread": np.std([0.1, 0.1, -0.05]),
        }
    )


@pytest.mark.parametrize(
    ("bars", "share"),
    [("AAAA", 1), ("ABAB", 2 / 3), ("ABBC", 1 / 3), ("ABCD", 0), ("ABCA", 1 / 3)],
)
def test_bars_that_come_again_are_counted(bars, share):
    steps = torch.tensor([[0, 1, 1, 0], [1, 0, 1, 0], [1, 1, 0, 0], [1, 1, 1, 1]])
    kick = torch.cat([steps["ABCD".index(bar)] for bar in bars])
    roll = torch.zeros(1, 9, 16)
    roll[0, 0] = 100 * kick
    config = MusicVAEConfig(bars=4, steps_per_bar=4)
    assert features(windows_of(roll), config)["repeated_bars"].item() == pytest.approx(share)


def test_a_silent_window_has_no_velocity_and_no_timing():
    measured = features(windows_of(torch.zeros(1, 9, 8)), MusicVAEConfig(bars=2, steps_per_bar=4))
    assert {name for name, column in measured.items() if np.isnan(column)} == OF_EXPRESSION


def test_only_what_a_model_decides_is_a_feature():
    windows = nine_drum_windows()
    names = {
        kind: set(features(windows, nine_drum_model(**settings).config))
        for kind, settings in {"all": {}, "hits": NO_EXPRESSION, "conditioned": GIVEN_HITS}.items()
    }
    assert names["conditioned"] == OF_EXPRESSION
    assert names["hits"] == names["all"] - OF_EXPRESSION
    assert "repeated_bars" not in features(windows, nine_drum_model(bars=1).config)


@pytest.mark.parametrize(
    ("mean", "std", "area", "divergence"),
    [
        pytest.param(1, 1, 0.617, 0.5, id="shifted"),  # 2 * Phi(-1/2)
        pytest.param(0, 0.5, 0.677, 0.318, id="narrower"),  # log 2 + 1/8 - 1/2
        pytest.param(0, 2, 0.677, 0.807, id="wider"),  # -log 2 + 2 - 1/2
    ],
)
def test_normal_distributions_compare_as_the_textbook_says(mean, std, area, divergence):
    shares = (np.arange(1000) + 0.5) / 1000
    played, drawn = (
        np.array([normal.inv_cdf(share) for share in shares])
        for normal in (NormalDist(0, 1), NormalDist(mean, std))
    )
    figures = compared(played, drawn)
    assert figures[0] == pytest.approx(area, abs=0.03)
    assert figures[1] == pytest.approx(divergence, rel=0.2)  # the tails are few values' estimate


@pytest.mark.parametrize("values", [[3.0, 3.0, 3.0], [0.0, 1.0, 5.0]], ids=["constant", "spread"])
def test_equal_sets_overlap_wholly(values):
    values = np.array(values)
    assert compared(values, values) == pytest.approx((1, 0))


def test_sets_that_nowhere_meet_do_not_overlap_and_their_divergence_is_finite():
    area, divergence = compared(np.zeros(500), np.ones(500))
    assert area < 1e-3
    assert 10 < divergence < 24


@given(values_of_sets, values_of_sets)
@settings(max_examples=30)
def test_the_overlap_is_a_share_and_symmetric_and_no_divergence_is_negative(played, drawn):
    area, divergence = compared(played, drawn)
    assert 0 <= area <= 1 + 1e-9
    assert divergence >= -1e-6
    assert compared(drawn, played)[0] == pytest.approx(area)


def test_values_that_are_not_defined_do_not_count():
    played, drawn = np.array([1.0, 2.0, np.nan]), np.array([np.nan, 1.0, 2.0])
    assert compared(played, drawn) == pytest.approx((1, 0))
    assert compared(played, np.full(3, np.nan)) == (None, None)


def test_the_mean_overlap_is_that_of_all_features_with_values():
    zeros, files = np.zeros(500), np.arange(500)
    played = {"same": zeros, "apart": zeros, "none": zeros + np.nan}
    drawn = played | {"apart": zeros + 1}
    _, mean = compare_features(played, drawn, files, files, seed=0)
    assert mean.value == pytest.approx(0.5, abs=1e-3)


@given(hits_of_windows, hits_of_windows)
def test_the_nearest_differs_in_the_fewest_cells(rolls, others):
    expected = [min((roll != other).sum() for other in others) for roll in rolls]
    distances = nearest_distances(torch.from_numpy(rolls), torch.from_numpy(others))
    assert distances.tolist() == expected


@given(hits_of_windows)
def test_the_nearest_other_is_not_the_window_itself(rolls):
    expected = [
        min((roll != other).sum() for j, other in enumerate(rolls) if j != i)
        for i, roll in enumerate(rolls)
    ]
    assert nearest_distances(torch.from_numpy(rolls)).tolist() == expected


def test_a_window_alone_has_no_other():
    with pytest.raises(ValueError, match="rolls: found 1, expected at least 2"):
        nearest_distances(torch.zeros(1, 9, 8))


def test_distances_are_summed_up():
    windows = windows_of(torch.zeros(100, 1, 1))
    figures = summarize_distances(np.arange(100), windows, seed=0)
    expected = {"mean": 49.5, "5%": 4, "50%": 49, "95%": 94, "identical": 0.01}
    assert {name: figure.value for name, figure in figures.items()} == pytest.approx(expected)
    assert all(figure.low <= figure.value <= figure.high for figure in figures.values())


def test_samples_are_seeded():
    model, windows = nine_drum_model(), nine_drum_windows()
    first, again, other = (draw_samples(model, windows, 4, 1.0, seed) for seed in (0, 0, 1))
    assert torch.equal(first.piano_roll, again.piano_roll)
    assert not torch.equal(first.piano_roll, other.piano_roll)
    assert first.file.tolist() == [0, 1, 2, 3]


def test_a_model_that_is_conditioned_on_hits_samples_those_of_the_windows_in_turn():
    windows = nine_drum_windows(3)
    samples = draw_samples(nine_drum_model(**GIVEN_HITS), windows, 5, 1.0, seed=0)
    scores = windows.select([0, 1, 2, 0, 1])
    assert torch.equal(samples.piano_roll > 0, scores.piano_roll > 0)


def test_samples_that_are_the_windows_are_found_alike_and_memorised():
    windows = nine_drum_windows()
    windows = replace(windows, piano_roll=windows.piano_roll[[0, 1, 2, 3, 4, 4]])
    config = nine_drum_model().config
    measures = measure_samples(windows, windows, windows, windows, config, seed=0)
    for feature in measures["distributions"].values():
        for sets in ("samples", "other_split"):
            assert feature["overlapping_area"][sets].value == pytest.approx(1)
            assert feature["kl_divergence"][sets].value == pytest.approx(0)
    summary = measures["summary"]["samples"]
    assert summary["mean_overlapping_area"].value == pytest.approx(1)
    assert summary["bar_similarity_overlap_in_bins"].value == pytest.approx(1)
    assert measures["nearest_training_window"]["samples"]["identical"] == Estimate(1, 1, 1)
    assert measures["nearest_other"]["samples"]["identical"].value == pytest.approx(2 / 6)
    assert measures["nearest_other"]["samples"] == measures["nearest_other"]["played"]


def test_of_a_model_that_is_conditioned_on_hits_only_the_distributions_are_measured():
    windows, config = nine_drum_windows(), nine_drum_model(**GIVEN_HITS).config
    measures = measure_samples(windows, windows, windows, windows, config, seed=0)
    assert set(measures) == {"summary", "distributions"}
    assert set(measures["summary"]["samples"]) == {"mean_overlapping_area"}
