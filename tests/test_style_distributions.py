"""Where in latent space the drums of a style are, and that new ones are drawn from there."""

import re

import pytest
import torch
from factories import LATENT_SIZE, random_model, random_rolls, random_timing, seeded

from modeling_musicvae import MusicVAEModel
from modeling_musicvae.latent_space import STYLE_KERNELS, kernel_centers

ROLLS = random_rolls(60)
TIMING = random_timing(ROLLS)
STYLES = ["funk", "jazz"]
style_numbers = torch.arange(60) % 3 - 1  # a third is of no style
NOISE = torch.randn(3, LATENT_SIZE, generator=seeded(5))
CHOICES = torch.tensor([0.1, 0.5, 0.999])


def batches(size: int = 25) -> list[tuple[torch.Tensor, ...]]:
    parts = (each.split(size) for each in (ROLLS, TIMING, style_numbers))
    return list(zip(*parts, strict=True))


@pytest.fixture
def fitted() -> MusicVAEModel:
    model = random_model(latent_kernels=7)
    model.fit_latent_distribution([(ROLLS, TIMING)])
    model.fit_style_distributions(batches(), STYLES)
    return model


@pytest.mark.parametrize("style", STYLES)
def test_a_style_has_kernels_around_its_windows(style, fitted):
    number = STYLES.index(style)
    own = style_numbers == number
    means = fitted.encode(ROLLS[own], TIMING[own]).mean
    expected = kernel_centers(means, STYLE_KERNELS, fitted.latent_mean)
    torch.testing.assert_close(fitted.style_centers[number], expected)


def test_how_windows_are_batched_does_not_matter(fitted):
    other = random_model(latent_kernels=7)
    other.fit_latent_distribution([(ROLLS, TIMING)])
    other.fit_style_distributions(batches(7), STYLES)
    torch.testing.assert_close(other.style_centers, fitted.style_centers, atol=1e-4, rtol=1e-4)


def test_samples_of_a_style_are_drawn_from_there(fitted):
    generator = seeded(6)
    kernels = (torch.rand(3, generator=generator) * STYLE_KERNELS).long()
    noise = torch.randn(3, LATENT_SIZE, generator=generator)
    latents = fitted.latent_mean + fitted.style_centers[1, kernels] + noise @ fitted.latent_scale.T
    expected = fitted.decode(latents, 0)
    made = fitted.sample(3, 0, seeded(6), style="jazz")
    assert torch.equal(made.piano_roll, expected.piano_roll)
    assert not torch.equal(made.piano_roll, fitted.sample(3, 0, seeded(6)).piano_roll)


def test_an_unknown_style_is_refused_and_the_known_ones_are_named(fitted):
    message = re.escape("style: found 'polka', expected one of ['funk', 'jazz']")
    with pytest.raises(ValueError, match=message):
        fitted.sample(1, style="polka")


def test_a_model_without_styles_says_so():
    with pytest.raises(ValueError, match="style: found 'funk', expected none: this model knows no"):
        random_model().sample(1, style="funk")


def test_a_style_without_windows_is_refused():
    model = random_model()
    with pytest.raises(ValueError, match=re.escape("styles: found no windows of ['polka']")):
        model.fit_style_distributions(batches(), [*STYLES, "polka"])
    assert model.config.styles == () and not hasattr(model, "style_centers")


def test_a_model_without_kernels_learns_no_styles():
    with pytest.raises(ValueError, match="latent_kernels: found 0, expected some"):
        random_model(latent_kernels=0).fit_style_distributions(batches(), STYLES)


def test_styles_are_saved_and_loaded_bit_for_bit(fitted, tmp_path):
    fitted.save_pretrained(tmp_path)
    loaded = MusicVAEModel.from_pretrained(tmp_path)
    assert list(loaded.config.styles) == STYLES
    for style in STYLES:
        latents = (model.latents_from_noise(NOISE, style, CHOICES) for model in (loaded, fitted))
        assert torch.equal(*latents)


def test_styles_can_be_fitted_anew(fitted):
    fitted.fit_style_distributions(batches(), ["shuffle", "rock"])
    assert fitted.config.styles == ["shuffle", "rock"]
    assert fitted.style_centers.shape == (2, STYLE_KERNELS, LATENT_SIZE)


def test_other_training_starts_from_the_weights_without_the_styles(fitted, tmp_path):
    fitted.save_pretrained(tmp_path)
    config = random_model(latent_kernels=fitted.config.latent_kernels).config
    model = MusicVAEModel.from_pretrained(tmp_path, config=config)
    assert not hasattr(model, "style_centers")
    assert torch.equal(model.encoder.mean.weight, fitted.encoder.mean.weight)
