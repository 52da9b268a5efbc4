"""Paths between drums, on paths whose shape is known."""

import math

import numpy as np
import pytest
import torch
from factories import random_model, random_windows, seeded
from hypothesis import given
from hypothesis import strategies as st

from modeling_musicvae.drum_patterns import to_hits, to_patterns
from musicvae.evaluation.bootstrap import Estimate
from musicvae.evaluation.interpolation import (
    NUM_POINTS,
    draw_pairs,
    measure_interpolation,
    measure_paths,
    mix_patterns,
)
from musicvae.evaluation.latents import posterior_means


@given(st.integers(2, 50), st.integers(0, 1000))
def test_a_pair_is_two_different_windows(num_windows, seed):
    starts, ends = draw_pairs(num_windows, 20, seed)
    assert (starts != ends).all()
    for indices in (starts, ends):
        assert 0 <= indices.min() <= indices.max() < num_windows


def test_there_is_no_pair_of_one_window():
    with pytest.raises(ValueError, match="windows: found 1, expected at least 2"):
        draw_pairs(1, 20, seed=0)


def test_a_mixture_leads_from_one_end_to_the_other_and_each_step_changes_once():
    start, end = torch.zeros(50, 64, dtype=torch.long), torch.ones(50, 64, dtype=torch.long)
    paths = mix_patterns(start, end, 9, seeded(0))
    assert torch.equal(paths[:, 0], start)
    assert torch.equal(paths[:, -1], end)
    assert (paths.diff(dim=1) >= 0).all()
    shares = paths.double().mean((0, 2)).numpy()
    assert shares == pytest.approx(np.linspace(0, 1, 9), abs=0.03)


# Four steps, five points: each point changes one step, or one changes all.
EVEN = torch.ones(5, 4).tril(-1).long()
AT_ONCE = torch.tensor([0, 0, 1, 1, 1])[:, None].expand(5, 4)


@pytest.mark.parametrize(
    ("path", "to_start", "variation"),
    [
        pytest.param(EVEN, [0, 0.25, 0.5, 0.75, 1], 0, id="even"),
        pytest.param(AT_ONCE, [0, 0, 1, 1, 1], math.sqrt(3), id="at once"),
    ],
)
def test_distances_and_evenness_of_a_path(path, to_start, variation):
    ends = torch.zeros(1, 4), torch.ones(1, 4)
    figures = measure_paths(path[None], *ends, files=np.array([0]), seed=0)
    points = ["0", "0.25", "0.5", "0.75", "1"]
    for name, distances in (
        ("distance_to_start", to_start),
        ("distance_to_end", [1 - each for each in to_start]),
    ):
        assert figures[name] == {
            point: Estimate(distance) for point, distance in zip(points, distances, strict=True)
        }
    assert figures["step_distance"].value == pytest.approx(0.25)
    assert figures["step_variation"].value == pytest.approx(variation)


def test_a_path_that_stands_still_is_neither_even_nor_uneven():
    still, ends = torch.zeros(1, 5, 4), torch.zeros(2, 4)
    figures = measure_paths(
        torch.cat([still, EVEN[None]]), ends, ends, files=np.array([0, 1]), seed=0
    )
    assert figures["step_distance"].value == pytest.approx(0.125)
    assert figures["step_variation"].value == 0
    alone = measure_paths(still, ends[:1], ends[:1], files=np.array([0]), seed=0)
    assert alone["step_variation"] == Estimate(None)


def test_a_spherical_path_starts_at_the_reconstruction_and_a_mixed_one_at_the_window():
    model, windows = random_model(), random_windows()
    starts, _ = draw_pairs(len(windows), 20, seed=0)
    measures = measure_interpolation(model, windows, num_pairs=20, seed=0)
    decoded = model.decode(posterior_means(model, windows), temperature=0)
    patterns, target = (to_patterns(to_hits(drums.piano_roll)) for drums in (decoded, windows))
    expected = (patterns != target).double().mean(1)[starts].mean().item()
    assert measures["spherical"]["distance_to_start"]["0"].value == pytest.approx(expected)
    assert measures["mixed"]["distance_to_start"]["0"].value == 0
    assert measures["mixed"]["distance_to_end"]["1"].value == 0
    assert len(measures["spherical"]["distance_to_start"]) == NUM_POINTS
    assert measures == measure_interpolation(model, windows, num_pairs=20, seed=0)
