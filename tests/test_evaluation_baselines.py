"""Baselines on drums whose best guess is known."""

import numpy as np
import pytest
import torch
from factories import random_windows, seeded, windows_of

from modeling_musicvae.drum_transforms import TAP_DRUM
from musicvae.evaluation import baselines

# Two drums, three steps; two of the three windows agree on every step.
TRAIN = windows_of(
    [[[90, 0, 0], [0, 50, 0]], [[110, 0, 60], [0, 70, 0]], [[80, 0, 0], [20, 0, 30]]],
    [[[0.1, 0, 0], [0, 0.2, 0]], [[0.3, 0, 0.4], [0, 0.0, 0]], [[-0.1, 0, 0], [0.4, 0, -0.4]]],
)
ALL = [baselines.silence, baselines.most_frequent, baselines.nearest, baselines.quantized]


@pytest.mark.parametrize("baseline", ALL, ids=[baseline.__name__ for baseline in ALL])
def test_a_baseline_returns_drums_like_its_targets(baseline):
    windows = random_windows()
    drums = baseline(random_windows(9), windows)
    for ours, theirs in ((drums.piano_roll, windows.piano_roll), (drums.timing, windows.timing)):
        assert (ours.dtype, ours.shape) == (theirs.dtype, theirs.shape)
    assert not drums.timing[drums.piano_roll == 0].any()
    assert torch.equal(drums.file, windows.file)


def test_silence_has_no_hits():
    assert not baselines.silence(TRAIN, TRAIN).piano_roll.any()


def test_most_frequent_plays_what_most_windows_do_with_the_mean_expression():
    windows = windows_of(torch.zeros(4, 2, 3))
    drums = baselines.most_frequent(TRAIN, windows)
    assert drums.piano_roll[0].tolist() == [[93, 0, 0], [0, 60, 0]]
    assert drums.timing[0].numpy() == pytest.approx(np.array([[0.1, 0, 0], [0, 0.1, 0]]))
    assert (drums.piano_roll == drums.piano_roll[0]).all()


def test_nearest_gives_training_windows_back_as_they_are():
    train = random_windows(20)
    order = torch.randperm(20, generator=seeded(0)).tolist()
    drums = baselines.nearest(train, train.select(order))
    assert torch.equal(drums.piano_roll, train.piano_roll[order])
    assert torch.equal(drums.timing, train.timing[order])


def test_nearest_takes_the_first_of_several():
    train = windows_of([[[1, 1, 0]], [[0, 0, 0]], [[2, 0, 0]], [[3, 0, 0]]])
    drums = baselines.nearest(train, windows_of([[[9, 0, 0]], [[0, 9, 9]]]))
    assert drums.piano_roll.tolist() == [[[2, 0, 0]], [[1, 1, 0]]]


def test_quantized_keeps_the_hits_and_nothing_else():
    windows = windows_of([[[1, 0, 5]]], [[[0.3, 0, -0.2]]])
    drums = baselines.quantized(TRAIN, windows)
    assert drums.piano_roll.tolist() == [[[64, 0, 64]]]  # 510 / 8 is 63.75
    assert not drums.timing.any()


def test_taps_become_the_most_frequent_pattern_with_their_own_expression():
    train = windows_of(torch.tensor([[9, 0], [9, 0], [0, 0], [0, 0]]).repeat(3, 1, 1))
    train.piano_roll[0, 2, 0] = 9
    train.piano_roll[0, 3, 1] = 9  # the only pattern of that step, but for silence
    taps = windows_of(torch.zeros(2, 4, 2))
    taps.piano_roll[0, TAP_DRUM] = torch.tensor([70, 0])
    taps.piano_roll[1, TAP_DRUM] = torch.tensor([0, 80])
    taps.timing[1, TAP_DRUM] = torch.tensor([0.0, 0.25])
    drums = baselines.most_frequent_for_taps(train, taps)
    assert drums.piano_roll.tolist() == [
        [[70, 0], [70, 0], [0, 0], [0, 0]],
        [[0, 0], [0, 0], [0, 0], [0, 80]],
    ]
    assert drums.timing[1, 3].tolist() == [0, 0.25]


def test_hamming_distances_count_the_places_that_differ():
    one, other = random_windows(5).piano_roll, random_windows(7).piano_roll
    other = other.roll(1, 2)
    plain = ((one[:, None] > 0) != (other > 0)).sum((2, 3))
    assert np.array_equal(baselines.hamming_distances(one, other), plain)
