"""The similarity of bars, on bars whose F1 is known."""

import numpy as np
import pytest
import torch
from factories import windows_of

from musicvae.evaluation.bar_similarity import (
    bar_similarities,
    histogram_overlap,
    measure_bar_similarity,
)

BEFORE, TWO_BEFORE = "bar_similarity", "two_bar_similarity"
# Two drums, two steps; B has one of A's two hits and one of its own, C none, S no hit.
BARS = {
    "A": [[1, 0], [0, 1]],
    "B": [[1, 1], [0, 0]],
    "C": [[0, 0], [1, 0]],
    "S": [[0, 0], [0, 0]],
}


def piano_roll(*windows: str) -> torch.Tensor:
    rolls = [torch.cat([torch.tensor(BARS[bar]) for bar in window], 1) for window in windows]
    return (90 * torch.stack(rolls)).to(torch.uint8)


@pytest.mark.parametrize(
    ("bars", "before", "two_before"),
    [
        pytest.param("AAAA", 1, 1, id="repeated"),
        pytest.param("ABAB", 0.5, 1, id="alternating"),
        pytest.param("ACAC", 0, 1, id="alternating, without a hit in common"),
        pytest.param("SSSS", 1, 1, id="silence"),
        pytest.param("AASS", 2 / 3, 0, id="silence after hits"),
        pytest.param("AABC", 0.5, 0.25, id="F1 of each bar, not of all hits"),
    ],
)
def test_the_similarity_is_the_mean_f1_of_bars(bars, before, two_before):
    found = bar_similarities(piano_roll(bars), 4)
    assert {name: values.item() for name, values in found.items()} == pytest.approx(
        {BEFORE: before, TWO_BEFORE: two_before}
    )


@pytest.mark.parametrize(("bars", "names"), [("A", set()), ("AB", {BEFORE})])
def test_a_window_has_similarities_to_the_bars_that_it_has(bars, names):
    assert set(bar_similarities(piano_roll(bars), len(bars))) == names


def test_velocities_do_not_count():
    roll = piano_roll("AAAA")
    assert bar_similarities(roll, 4)[BEFORE] == bar_similarities(roll // 2, 4)[BEFORE]


@pytest.mark.parametrize(
    ("played", "drawn", "overlap"),
    [
        pytest.param([0.0, 0.5, 1.0], [0.0, 0.5, 1.0], 1, id="the same"),
        pytest.param([0.01, 0.01], [0.04, 0.04], 1, id="in one bin"),
        pytest.param([0.04, 0.04], [0.06, 0.06], 0, id="in neighbouring bins"),
        pytest.param([0.0, 0.0, 1.0, 1.0], [1.0, 1.0, 1.0, 0.3], 0.5, id="half"),
    ],
)
def test_overlaps_are_those_of_twenty_bins(played, drawn, overlap):
    played, drawn = np.array(played), np.array(drawn)
    files, drawn_files = np.arange(len(played)), np.arange(len(drawn))
    found = histogram_overlap(played, drawn, files, drawn_files, seed=0)
    assert found.value == pytest.approx(overlap)
    assert 0 <= found.low <= found.high <= 1


def test_sets_are_compared_with_the_last_one():
    sets = {
        "samples": windows_of(piano_roll("AAAA", "ABAB")),
        "played": windows_of(piano_roll("AAAA", "AAAA")),
    }
    measures = measure_bar_similarity(sets, 4, seed=0)
    assert measures["samples"][BEFORE].value == pytest.approx(0.75)
    assert measures["samples"][f"{BEFORE}_overlap_in_bins"].value == pytest.approx(0.5)
    assert set(measures["played"]) == {BEFORE, TWO_BEFORE}
