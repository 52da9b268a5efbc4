"""Where in latent space the drums of a style are, and that new ones are drawn from there."""

import re

import pytest
import torch
from factories import LATENT_SIZE, random_model, random_rolls, random_timing, seeded

from modeling_musicvae import MusicVAEModel
from modeling_musicvae.latent_space import PosteriorMoments, aggregate_gaussian
from modeling_musicvae.modeling_musicvae import STYLE_SHRINKAGE

ROLLS = random_rolls(60)
TIMING = random_timing(ROLLS)
STYLES = ["funk", "jazz"]
style_numbers = torch.arange(60) % 3 - 1  # a third is of no style
NOISE = torch.randn(3, LATENT_SIZE, generator=seeded(5))


def batches(size: int = 25) -> list[tuple[torch.Tensor, ...]]:
    parts = (each.split(size) for each in (ROLLS, TIMING, style_numbers))
    return list(zip(*parts, strict=True))


@pytest.fixture(params=[0, 7], ids=["one Gaussian", "kernels"])
def fitted(request) -> MusicVAEModel:
    model = random_model(latent_kernels=request.param)
    model.fit_latent_distribution([(ROLLS, TIMING)])
    model.fit_style_distributions(batches(), STYLES)
    return model


@pytest.mark.parametrize("style", STYLES)
def test_a_style_is_its_windows_and_some_of_the_whole(style, fitted):
    """The moments are those of draws from both, in their proportion."""
    own = style_numbers == STYLES.index(style)
    posterior, every = fitted.encode(ROLLS[own], TIMING[own]), fitted.encode(ROLLS, TIMING)
    mean, scale = aggregate_gaussian([(posterior.mean, posterior.std)])
    whole_mean, whole_scale = aggregate_gaussian([(every.mean, every.std)])
    share = len(posterior.mean) / (len(posterior.mean) + STYLE_SHRINKAGE)
    expected_mean = share * mean + (1 - share) * whole_mean
    second_moments = [
        covariance @ covariance.T + center.outer(center)
        for covariance, center in ((scale, mean), (whole_scale, whole_mean))
    ]
    covariance = share * second_moments[0] + (1 - share) * second_moments[1]
    covariance = covariance - expected_mean.outer(expected_mean)
    number = STYLES.index(style)
    torch.testing.assert_close(fitted.style_means[number], expected_mean)
    found = fitted.style_scales[number]
    torch.testing.assert_close(found @ found.T, covariance, atol=1e-4, rtol=1e-4)
    assert torch.equal(found, found.tril())


def test_the_more_windows_a_style_has_the_more_it_is_its_own():
    whole = torch.zeros(4), torch.eye(4)
    distances = []
    for count in (10, 100, 10_000):
        moments = PosteriorMoments()
        moments.add(5 + torch.randn(count, 4, generator=seeded(0)), torch.full((count, 4), 0.1))
        distances.append((moments.shrunk(*whole, STYLE_SHRINKAGE)[0] - 5).norm().item())
    assert distances[0] > 1.5 * distances[1] and distances[1] > 10 * distances[2]


def test_how_windows_are_batched_does_not_matter(fitted):
    other = random_model()
    other.fit_latent_distribution([(ROLLS, TIMING)])
    other.fit_style_distributions(batches(7), STYLES)
    torch.testing.assert_close(other.style_means, fitted.style_means, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(other.style_scales, fitted.style_scales, atol=1e-4, rtol=1e-4)


def test_samples_of_a_style_are_drawn_from_there(fitted):
    noise = torch.randn(3, LATENT_SIZE, generator=seeded(6))
    latents = fitted.style_means[1] + noise @ fitted.style_scales[1].T
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
    assert model.config.styles == () and not hasattr(model, "style_means")


def test_styles_are_saved_and_loaded_bit_for_bit(fitted, tmp_path):
    fitted.save_pretrained(tmp_path)
    loaded = MusicVAEModel.from_pretrained(tmp_path)
    assert list(loaded.config.styles) == STYLES
    for style in STYLES:
        latents = (model.latents_from_noise(NOISE, style) for model in (loaded, fitted))
        assert torch.equal(*latents)


def test_styles_can_be_fitted_anew(fitted):
    fitted.fit_style_distributions(batches(), ["shuffle", "rock"])
    assert fitted.config.styles == ["shuffle", "rock"]
    assert fitted.style_means.shape == (2, LATENT_SIZE)


def test_other_training_starts_from_the_weights_without_the_styles(fitted, tmp_path):
    fitted.save_pretrained(tmp_path)
    config = random_model(latent_kernels=fitted.config.latent_kernels).config
    model = MusicVAEModel.from_pretrained(tmp_path, config=config)
    assert not hasattr(model, "style_means")
    assert torch.equal(model.encoder.mean.weight, fitted.encoder.mean.weight)
