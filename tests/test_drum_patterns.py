"""Drum patterns: the hits of a step as one number, and back."""

import pytest
import torch

from modeling_musicvae.drum_patterns import from_patterns, to_hits, to_patterns


def test_a_pattern_is_the_sum_of_2_to_the_drums_that_are_hit():
    hits = torch.zeros(3, 9, dtype=torch.bool)
    hits[1, [0, 2]] = True
    hits[2] = True
    assert to_patterns(hits).tolist() == [0, 1 + 4, 511]


def test_a_hit_is_any_velocity_above_zero():
    piano_roll = torch.tensor([[[0, 1, 0], [127, 0, 0]]], dtype=torch.uint8)
    assert to_hits(piano_roll).tolist() == [[[False, True], [True, False], [False, False]]]


@pytest.mark.parametrize("num_drums", [1, 5, 9])
def test_every_pattern_becomes_hits_and_the_same_pattern_again(num_drums):
    patterns = torch.arange(2**num_drums).reshape(2, -1)
    hits = from_patterns(patterns, num_drums)
    assert (hits.dtype, hits.shape) == (torch.bool, (*patterns.shape, num_drums))
    assert len(hits.flatten(0, 1).unique(dim=0)) == 2**num_drums
    again = to_patterns(hits)
    assert again.dtype == torch.int64
    assert torch.equal(again, patterns)
