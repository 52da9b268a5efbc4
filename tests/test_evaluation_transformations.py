"""Evaluation of models that transform drums: known cases."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from factories import random_model, random_windows, windows_of

from modeling_musicvae import MusicVAEConfig
from musicvae.evaluation.transformations import (
    PSEUDOCOUNT,
    VELOCITY_BINS,
    baseline,
    divergence,
    measure_expression,
    measure_transformation,
    removed_alone,
    velocity_histograms,
)

pytestmark = pytest.mark.usefixtures("one_cpu_thread")

WINDOWS, TRAIN = random_windows(), random_windows(9)
TRANSFORMS = {
    "humanize": {"input_transform": "humanize"},
    "humanize, conditioned on the hits": {"input_transform": "humanize", "hits_as_controls": True},
    "tap": {"input_transform": "tap"},
    "tap_fixed_velocity": {"input_transform": "tap_fixed_velocity"},
    "remove_drums": {"input_transform": "remove_drums", "removed_drums": [2]},
}
each_transform = pytest.mark.parametrize("settings", TRANSFORMS.values(), ids=TRANSFORMS)


@each_transform
def test_a_model_is_measured_in_two_ways_and_compared_with_a_baseline(settings):
    measures = measure_transformation(random_model(**settings), WINDOWS, TRAIN, 4, 0)
    assert list(measures["drums"]) == ["sampled", "greedy", "baseline"]
    for figures in measures["drums"].values():
        assert {"velocity_mae", "timing_mae_ms", "velocity_kl", "timing_kl"} <= set(figures)
        assert ("hit_f1" in figures) == ("hits_as_controls" not in settings)


@each_transform
def test_the_baseline_reads_no_more_than_the_model(settings):
    config = random_model(**settings).config
    quiet = replace(WINDOWS, piano_roll=WINDOWS.piano_roll.clone(), timing=WINDOWS.timing.clone())
    match config.input_transform:
        case "humanize":
            quiet.piano_roll.clamp_(max=1)
            quiet.timing.zero_()
        case "tap_fixed_velocity":
            quiet.piano_roll[:, 0] = 127 * (WINDOWS.piano_roll > 0).any(1)
            loudest = WINDOWS.piano_roll.max(1, keepdim=True).indices
            quiet.timing[:, 0] = WINDOWS.timing.gather(1, loudest)[:, 0]
        case "tap":
            quiet.piano_roll[:, 0] = WINDOWS.piano_roll.max(1).values
            quiet.piano_roll[:, 1:] = 0
            loudest = WINDOWS.piano_roll.max(1, keepdim=True).indices
            quiet.timing[:, 0] = WINDOWS.timing.gather(1, loudest)[:, 0]
        case _:  # remove_drums
            quiet.piano_roll[:, 2] = 0
            quiet.timing[:, 2] = 0
    assert not torch.equal(quiet.piano_roll, WINDOWS.piano_roll)
    drums, of_less = baseline(config, WINDOWS, TRAIN), baseline(config, quiet, TRAIN)
    assert torch.equal(drums.piano_roll, of_less.piano_roll)
    assert torch.equal(drums.timing, of_less.timing)


def test_the_hits_of_humanized_drums_are_right():
    measures = measure_transformation(
        random_model(input_transform="humanize"), WINDOWS, TRAIN, 4, 0
    )
    for figures in measures["drums"].values():
        assert figures["hit_f1"] == figures["pattern_accuracy"] == (1, 1, 1)


def test_of_added_drums_nothing_but_these_is_measured():
    model = random_model(input_transform="remove_drums", removed_drums=[1, 3])
    silent = replace(WINDOWS, piano_roll=WINDOWS.piano_roll.clone())
    silent.piano_roll[:, [1, 3]] = 0
    figures = measure_transformation(model, silent, TRAIN, 4, 0)["drums"]["sampled"]
    assert figures["hit_precision"].value == 0  # were the others measured, they would be right
    assert figures["hit_recall"].value is None
    alone = removed_alone(WINDOWS, model.config)
    assert torch.equal(alone.piano_roll[:, [1, 3]], WINDOWS.piano_roll[:, [1, 3]])
    assert not alone.piano_roll[:, [0, 2]].any()


def test_the_baseline_adds_what_is_most_frequent_of_the_drums_to_be_added():
    config = MusicVAEConfig(num_drums=2, input_transform="remove_drums", removed_drums=[1])
    # No pattern of both drums is more frequent than another.
    train = windows_of([[[0, 9], [50, 0]], [[9, 0], [60, 0]], [[0, 9], [0, 70]]])
    drums = baseline(config, windows_of([[[9, 9], [0, 80]]]), train)
    assert drums.piano_roll[0, 1].tolist() == [55, 0]


def test_the_same_expression_does_not_diverge():
    figures = measure_expression(WINDOWS, WINDOWS, seed=0)
    assert figures == {"velocity_kl": (0, 0, 0), "timing_kl": (0, 0, 0)}


def test_divergence_is_that_of_the_summed_histograms():
    played, true = np.array([[3, 0], [4, 1]]), np.array([[1, 3], [3, 1]])
    p, q = (7 + PSEUDOCOUNT) / 9, 0.5
    expected = p * math.log(p / q) + (1 - p) * math.log((1 - p) / q)
    figure = divergence(played, true, np.arange(2), seed=0)
    assert figure.value == pytest.approx(expected)
    assert figure.low < figure.value < figure.high


def test_histograms_count_the_hits_in_bins_of_equal_width():
    windows = windows_of([[[1, 15, 16, 0, 127, 64]]])
    assert velocity_histograms(windows.piano_roll).tolist() == [[3, 0, 0, 1, 0, 0, 0, 1]]
    assert VELOCITY_BINS == 8
