"""Drum patterns: hits, pattern numbers and rolls, and draws from logits."""

import pytest
import torch

from modeling_musicvae.drum_patterns import sample_patterns, to_hits, to_patterns, to_piano_roll

ALMOST_ONE = 1 - 2**-24  # the largest float32 below 1


def test_a_pattern_is_the_sum_of_2_to_the_drums_that_are_hit():
    hits = torch.zeros(3, 9, dtype=torch.bool)
    hits[1, [0, 2]] = True
    hits[2] = True
    assert to_patterns(hits).tolist() == [0, 1 + 4, 511]


def test_a_hit_is_any_velocity_above_zero():
    piano_roll = torch.tensor([[[0, 1, 0], [127, 0, 0]]], dtype=torch.uint8)
    assert to_hits(piano_roll).tolist() == [[[False, True], [True, False], [False, False]]]


@pytest.mark.parametrize("num_drums", [1, 5, 9])
def test_every_pattern_becomes_a_roll_and_the_same_pattern_again(num_drums):
    patterns = torch.arange(2**num_drums).reshape(2, -1)
    piano_roll = to_piano_roll(patterns, num_drums)
    assert piano_roll.dtype == torch.uint8
    assert piano_roll.shape == (2, num_drums, 2**num_drums // 2)
    assert piano_roll.unique().tolist() == [0, 100]
    again = to_patterns(to_hits(piano_roll))
    assert again.dtype == torch.int64
    assert torch.equal(again, patterns)


def test_temperature_zero_takes_the_most_likely_pattern():
    logits = torch.randn(20, 16, generator=torch.Generator().manual_seed(0))
    drawn = sample_patterns(logits, 0, torch.full((20,), ALMOST_ONE))
    assert torch.equal(drawn, logits.argmax(-1))


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_patterns_are_drawn_as_often_as_the_softmax_says(temperature):
    logits = torch.randn(16, generator=torch.Generator().manual_seed(0))
    count = 10_000
    evenly_spaced = (torch.arange(count) + 0.5) / count
    drawn = sample_patterns(logits.expand(count, -1), temperature, evenly_spaced)
    expected = count * torch.softmax(logits.double() / temperature, -1)
    # Evenly spaced numbers leave no chance: a pattern is off by less than one at either end.
    assert (drawn.bincount(minlength=16) - expected).abs().max() < 2


def test_a_draw_depends_on_its_own_row_alone():
    generator = torch.Generator().manual_seed(0)
    logits, uniform = torch.randn(50, 16, generator=generator), torch.rand(50, generator=generator)
    alone = [sample_patterns(logits[i, None], 1.0, uniform[i, None]) for i in range(50)]
    together = sample_patterns(logits, 1.0, uniform)
    assert together.dtype == torch.int64
    assert torch.equal(together, torch.cat(alone))
    assert together.unique().numel() > 5


@pytest.mark.parametrize("uniform", [0.0, 0.5, ALMOST_ONE])
@pytest.mark.parametrize("scale", [1.0, 30.0])
def test_a_pattern_without_probability_is_never_drawn(uniform, scale):
    logits = scale * torch.randn(2000, 512, generator=torch.Generator().manual_seed(0))
    logits[:, [0, 1, 255, 256, 510, 511]] = -torch.inf
    drawn = sample_patterns(logits, 1.0, torch.full((2000,), uniform))
    assert torch.softmax(logits, -1).gather(1, drawn[:, None]).min() > 0
