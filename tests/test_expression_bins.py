"""Velocity and timing as bins, and back within half a bin."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from modeling_musicvae.expression_bins import (
    bin_to_timing,
    bin_to_velocity,
    timing_to_bin,
    velocity_to_bin,
)

repeatable = settings(derandomize=True, deadline=None, max_examples=200)
VELOCITIES = torch.arange(1, 128, dtype=torch.uint8)
JUST_BELOW_HALF = 0.5 - 2**-25  # in float32
odd_numbers = st.integers(0, 100).map(lambda n: 2 * n + 1)


@given(st.integers(1, 127))
@repeatable
def test_a_velocity_comes_back_within_half_a_bin(num_bins):
    bins = velocity_to_bin(VELOCITIES, num_bins)
    again = bin_to_velocity(bins, num_bins)
    assert bins.dtype == again.dtype == torch.int64
    half_a_bin = 127 / num_bins / 2
    assert (again - VELOCITIES.long()).abs().max() <= round(half_a_bin)  # a whole velocity


@given(st.integers(1, 127))
@repeatable
def test_velocity_bins_are_in_order_equally_wide_and_hold_their_middle(num_bins):
    bins = velocity_to_bin(VELOCITIES, num_bins)
    assert torch.equal(bins, bins.sort().values)
    sizes = bins.bincount()
    assert len(sizes) == num_bins
    assert sizes.max() - sizes.min() <= 1
    every_bin = torch.arange(num_bins)
    assert torch.equal(velocity_to_bin(bin_to_velocity(every_bin, num_bins), num_bins), every_bin)


def test_eight_bins_of_velocity():
    edges = torch.tensor([1, 16, 17, 64, 111, 112, 113, 127], dtype=torch.uint8)
    assert velocity_to_bin(edges, 8).tolist() == [0, 0, 1, 3, 6, 6, 7, 7]
    assert bin_to_velocity(torch.arange(8), 8).tolist() == [9, 25, 41, 57, 72, 88, 104, 120]


@given(st.floats(-0.5, JUST_BELOW_HALF, width=32), st.integers(1, 201))
@repeatable
def test_a_timing_comes_back_within_half_a_bin(timing, num_bins):
    bins = timing_to_bin(torch.tensor([timing]), num_bins)
    again = bin_to_timing(bins, num_bins)
    assert (bins.dtype, again.dtype) == (torch.int64, torch.float32)
    assert 0 <= bins < num_bins
    assert again.item() == pytest.approx(timing, abs=0.5 / num_bins + 1e-7)


@given(odd_numbers)
@repeatable
def test_the_middle_bin_of_an_odd_number_is_on_the_grid(num_bins):
    middle = timing_to_bin(torch.zeros(1), num_bins)
    assert middle.tolist() == [num_bins // 2]
    assert bin_to_timing(middle, num_bins).tolist() == [0.0]


@given(st.integers(1, 201))
@repeatable
def test_timing_bins_hold_their_middle_and_span_a_step(num_bins):
    every_bin = torch.arange(num_bins)
    assert torch.equal(timing_to_bin(bin_to_timing(every_bin, num_bins), num_bins), every_bin)
    edges = torch.tensor([-0.5, JUST_BELOW_HALF])
    assert timing_to_bin(edges, num_bins).tolist() == [0, num_bins - 1]


def test_three_bins_of_timing():
    timing = torch.tensor([-0.5, -0.17, -0.16, 0.16, 0.17, JUST_BELOW_HALF])
    assert timing_to_bin(timing, 3).tolist() == [0, 0, 1, 1, 2, 2]
    torch.testing.assert_close(bin_to_timing(torch.arange(3), 3), torch.tensor([-1, 0, 1]) / 3)
