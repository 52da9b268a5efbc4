"""Estimates and their intervals, against what statistics says of them."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from musicvae.evaluation.bootstrap import Estimate, interval, resampled

# Of each window: a value, a weight and the recording that it is from.
window = st.tuples(st.floats(-100, 100), st.integers(1, 9), st.integers(0, 4))
windows = st.lists(window, min_size=1, max_size=20).map(lambda rows: np.array(rows).T)


def test_a_figure_is_a_ratio_of_sums():
    figure = interval(np.array([1.0, 2.0, 6.0]), np.array([1, 1, 4]), np.arange(3), seed=0)
    assert figure.value == 1.5


def test_a_figure_without_weights_is_a_mean():
    assert interval(np.array([1.0, 2.0, 6.0]), None, np.arange(3), seed=0).value == 3


def test_an_interval_is_that_of_a_mean_of_independent_recordings():
    values = np.random.default_rng(0).normal(10, 3, 900)
    figure = interval(values, None, np.arange(900), seed=0)
    deviation = 1.96 * values.std() / 30
    assert figure.low == pytest.approx(values.mean() - deviation, abs=0.02)
    assert figure.high == pytest.approx(values.mean() + deviation, abs=0.02)


def list_of(figure: Estimate) -> list:
    """Its numbers, which others equal but for rounding."""
    return [None if number is None else pytest.approx(number, abs=1e-9) for number in figure]


@given(windows, st.integers(2, 5))
def test_more_windows_like_those_of_a_recording_tell_nothing_new(rows, times):
    often = np.repeat(rows, times, axis=1)
    assert list(interval(*often, seed=0)) == list_of(interval(*rows, seed=0))


@given(windows, st.randoms(use_true_random=False))
def test_the_order_of_windows_does_not_matter(rows, random):
    order = random.sample(range(rows.shape[1]), rows.shape[1])
    assert list(interval(*rows[:, order], seed=0)) == list_of(interval(*rows, seed=0))


@given(windows, st.floats(-100, 100))
def test_what_is_the_same_in_all_windows_is_certain(rows, constant):
    _, weights, files = rows
    bound = constant if len(set(files)) > 1 else None
    figure = interval(constant * weights, weights, files, seed=0)
    assert list(figure) == list_of(Estimate(constant, bound, bound))


def test_seeds_decide_the_resamples():
    values, files = np.random.default_rng(0).normal(size=50), np.arange(50)
    first, second, other = (interval(values, None, files, seed) for seed in (0, 0, 1))
    assert first == second
    assert first.value == other.value and first.low != other.low


def test_one_recording_has_no_interval():
    assert interval(np.array([1.0, 3.0]), None, np.array([7, 7]), seed=0) == Estimate(2.0)


def test_there_is_no_figure_of_nothing():
    assert interval(np.zeros(3), np.zeros(3), np.arange(3), seed=0) == Estimate(None)


def test_resamples_that_have_nothing_to_measure_are_left_out():
    values, weights = np.array([3.0, 0.0]), np.array([1.0, 0.0])
    assert interval(values, weights, np.arange(2), seed=0) == Estimate(3.0, 3.0, 3.0)


def test_any_statistic_of_sums_is_resampled():
    counts = np.array([[1.0, 2.0], [1.0, 2.0], [1.0, 2.0]])
    figure = resampled(counts, np.arange(3), lambda sums: sums[:, 0] * sums[:, 1], seed=0)
    assert figure == Estimate(18.0, 18.0, 18.0)
