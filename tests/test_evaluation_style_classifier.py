"""The classifier of styles, on styles that are easy to tell apart."""

from dataclasses import replace

import pytest
import torch
from factories import nine_drum_model, seeded, windows_of

from musicvae.evaluation.style_classifier import (
    StyleClassifier,
    draw_style_samples,
    measure_styles,
    recognised,
    style_numbers,
)
from musicvae.evaluation.windows import Windows

STYLES = ["rock", "jazz"]
KICK, RIDE = 0, 8


def drums(labels: list[str], seed: int = 0) -> Windows:
    """Windows of four bars, rock with kicks on the beats, all else with a ride instead; and hits at
    random."""
    roll = (torch.rand(len(labels), 9, 64, generator=seeded(seed)) < 0.05).to(torch.uint8) * 60
    for index, label in enumerate(labels):
        roll[index, KICK if label.startswith("rock") else RIDE, ::4] = 100
    return replace(windows_of(roll), style=labels)


def test_styles_are_recognised():
    train = drums(["rock/folk"] * 20 + ["jazz"] * 20 + ["pop"] * 5)
    classifier = StyleClassifier.fit(train, STYLES, 16)
    test = drums(["jazz", "rock", "jazz/swing", "rock"], seed=1)
    assert [STYLES[number] for number in classifier.classify(test)] == [
        "jazz",
        "rock",
        "jazz",
        "rock",
    ]


def test_a_rare_style_counts_as_much_as_a_frequent_one():
    roll = torch.zeros(20, 9, 64, dtype=torch.uint8)
    roll[:, KICK] = 90  # nothing tells the styles apart
    train = replace(windows_of(roll), style=["rock"] * 19 + ["jazz"])
    classifier = StyleClassifier.fit(train, STYLES, 16)
    logits = classifier.weight[-1]
    assert logits[0].item() == pytest.approx(logits[1].item(), abs=1e-3)


def test_labels_are_numbers_of_main_styles():
    assert style_numbers(["jazz/swing", "", "rock"], STYLES).tolist() == [1, -1, 0]


def test_shares_are_of_each_style_and_all_styles_count_alike():
    target, files = torch.tensor([0, 0, 0, 1, -1]).numpy(), torch.arange(5).numpy()
    right = torch.tensor([1, 1, 0, 0, 0]).double().numpy()
    shares = recognised(right, target, files, [*STYLES, "pop"], seed=0)
    assert shares.keys() == {"all_styles", "rock", "jazz"}
    assert shares["rock"].value == pytest.approx(2 / 3)
    assert shares["all_styles"].value == pytest.approx(1 / 3)


@pytest.fixture(scope="module")
def model():
    """A model that plays styles, whose latents are those of windows of each."""
    model = nine_drum_model(bars=4, steps_per_bar=16)
    train = drums(["rock"] * 5 + ["jazz"] * 5)
    numbers = style_numbers(train.style, STYLES)
    model.fit_latent_distribution([(train.piano_roll, train.timing)])
    model.fit_style_distributions([(train.piano_roll, train.timing, numbers)], STYLES)
    return model


def test_new_drums_of_each_style_are_labelled_and_seeded(model):
    first, again = (draw_style_samples(model, 3, 1.0, seed=0) for _ in range(2))
    assert first.style == ["rock"] * 3 + ["jazz"] * 3
    assert torch.equal(first.piano_roll, again.piano_roll)


def test_new_drums_and_those_of_the_split_are_measured(model, monkeypatch):
    train = drums(["rock"] * 20 + ["jazz"] * 20)
    measures = measure_styles(model, drums(["rock", "rock"], seed=1), train, 1.0, seed=0)
    assert set(measures["samples"]) == {"all_styles", *STYLES}
    assert set(measures["played"]) == {"all_styles", "rock"}
    assert measures["played"]["rock"].value == 1
