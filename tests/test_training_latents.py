"""Fits to the latents of the training windows."""

import datasets
import numpy as np
import pytest
import torch

from modeling_musicvae import MusicVAEConfig, MusicVAEModel
from musicvae.training import latents

SIZES = {"latent_size": 4, "encoder_hidden_size": 6, "decoder_hidden_size": 6}
LABELS = 3 * ["funk/groove1"] + 2 * ["funk"] + 4 * ["jazz"] + 1 * ["rock"] + 2 * [""]


@pytest.fixture
def windows(monkeypatch) -> datasets.Dataset:
    """Windows of which two styles have enough, and one has too few."""
    monkeypatch.setattr(latents, "MIN_STYLE_WINDOWS", 4)
    rng = np.random.default_rng(0)
    rolls = (rng.random((len(LABELS), 9, 64)) < 0.2) * rng.integers(1, 128, (len(LABELS), 9, 64))
    columns = {
        "piano_roll": list(rolls.astype(np.uint8)),
        "timing": list(np.zeros(rolls.shape, np.float32)),
        "style": LABELS,
    }
    features = datasets.Features(
        piano_roll=datasets.Array2D((9, 64), "uint8"),
        timing=datasets.Array2D((9, 64), "float32"),
        style=datasets.Value("string"),
    )
    return datasets.Dataset.from_dict(columns, features).with_format(
        "numpy", columns=["piano_roll", "timing"]
    )


def test_styles_with_enough_windows_get_a_distribution(windows):
    model = MusicVAEModel(MusicVAEConfig(**SIZES)).eval()
    latents.fit_latents(model, windows)
    assert list(model.config.styles) == ["funk", "jazz"]
    assert not torch.equal(*model.style_centers)


@pytest.mark.parametrize(
    "settings",
    [{"input_transform": "tap", "input_as_controls": True}, {"latent_kernels": 0}],
    ids=["conditional", "without kernels"],
)
def test_a_model_that_draws_no_kernels_of_styles_has_none(windows, settings):
    config = MusicVAEConfig(**SIZES, **settings)
    model = MusicVAEModel(config).eval()
    latents.fit_latents(model, windows)
    assert list(model.config.styles) == []


@pytest.mark.parametrize("most", [1, 2, 100])
def test_no_more_than_so_many_windows_of_a_style_are_used(windows, monkeypatch, most):
    monkeypatch.setattr(latents, "MAX_STYLE_WINDOWS", most)
    counts = {name: len(places) for name, places in latents.windows_by_style(windows).items()}
    assert counts == {"funk": min(5, most), "jazz": min(4, most)}


def test_windows_without_styles_give_none(windows):
    assert latents.windows_by_style(windows.remove_columns("style")) == {}
