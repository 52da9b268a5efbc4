"""Where in latent space drums are, and that new ones are drawn from there."""

from pathlib import Path

import pytest
import torch
from factories import LATENT_SIZE, random_model, random_rolls, random_timing, seeded
from safetensors.torch import load_file, save_file

from modeling_musicvae import MusicVAEModel
from modeling_musicvae.latent_space import (
    CENTER_SPREAD,
    KERNEL_WIDTH,
    aggregate_gaussian,
    kernel_centers,
)

WEIGHTS = "model.safetensors"
ROLLS = random_rolls(40)
TIMING = random_timing(ROLLS)
NOISE = torch.randn(3, LATENT_SIZE, generator=seeded(5))
CHOICES = torch.tensor([0.1, 0.5, 0.999])


def posteriors(count: int) -> tuple[torch.Tensor, torch.Tensor]:
    correlated = torch.randn(4, 4, generator=seeded(0))
    mean = 2 + torch.randn(count, 4, generator=seeded(1)) @ correlated
    return mean, torch.rand(count, 4, generator=seeded(2)) + 0.1


def test_the_gaussian_has_the_moments_of_draws_from_all_posteriors():
    mean, std = posteriors(1000)
    draws = mean + std * torch.randn(1000, 1000, 4, generator=seeded(3))
    draws = draws.flatten(0, 1)
    found, scale = aggregate_gaussian([(mean, std)])
    torch.testing.assert_close(found, draws.mean(0), atol=0.01, rtol=0)
    torch.testing.assert_close(scale @ scale.T, draws.T.cov(), atol=0.02, rtol=0.01)
    assert torch.equal(scale, scale.tril())


def test_how_posteriors_are_batched_does_not_matter():
    mean, std = posteriors(10)
    batches = list(zip(mean.split(3), std.split(3), strict=True))
    for found, expected in zip(
        aggregate_gaussian(batches), aggregate_gaussian([(mean, std)]), strict=True
    ):
        torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-5)


def test_posteriors_far_from_zero_lose_no_precision():
    mean, std = posteriors(10)
    expected, scale = aggregate_gaussian([(mean.double(), std)])
    far, same_scale = aggregate_gaussian([(mean.double() + 1e6, std)])
    torch.testing.assert_close(far, expected + 1e6)
    torch.testing.assert_close(same_scale, scale, atol=1e-5, rtol=1e-4)


def test_no_posterior_is_refused():
    with pytest.raises(ValueError, match="posteriors: found none, expected at least one"):
        aggregate_gaussian([])


def test_kernels_lie_around_means_that_are_spread_evenly():
    mean, _ = posteriors(9)
    expected = CENTER_SPREAD * (mean[[0, 2, 4, 6, 8]] - 1)
    torch.testing.assert_close(kernel_centers(mean, 5, torch.ones(4)), expected)


def test_kernels_and_their_centers_together_spread_as_the_means_do():
    mean, _ = posteriors(2000)
    whole = mean.T.cov()
    spread = kernel_centers(mean, 2000, mean.mean(0)).T.cov() + KERNEL_WIDTH**2 * whole
    torch.testing.assert_close(spread, whole, atol=1e-4, rtol=1e-4)


def test_fewer_drums_than_kernels_have_some_each():
    mean, _ = posteriors(3)
    assert len(kernel_centers(mean, 7, mean[0]).unique(dim=0)) == 3


@pytest.fixture(scope="module", params=[0, 7], ids=["one Gaussian", "kernels"])
def fitted(request) -> MusicVAEModel:
    model = random_model(latent_kernels=request.param)
    model.fit_latent_distribution([(ROLLS[:25], TIMING[:25]), (ROLLS[25:], TIMING[25:])])
    return model


def test_latents_are_those_of_the_prior_until_others_are_fitted():
    assert torch.equal(random_model(latent_kernels=0).latents_from_noise(NOISE), NOISE)
    assert torch.equal(random_model().latents_from_noise(NOISE, choices=CHOICES), NOISE)


@pytest.mark.parametrize(
    ("choices", "found"),
    [(None, "none"), (torch.zeros(2), r"shape \(2,\)")],
    ids=["none", "2 of 3"],
)
def test_kernels_need_a_choice_for_each_latent(choices, found):
    with pytest.raises(ValueError, match=rf"choices: found {found}, expected shape \(3,\)"):
        random_model().latents_from_noise(NOISE, choices=choices)


def test_latents_are_distributed_as_those_of_drums(fitted):
    posterior = fitted.encode(ROLLS, TIMING)
    mean, scale = aggregate_gaussian([(posterior.mean, posterior.std)])
    if fitted.config.latent_kernels:
        mean = mean + kernel_centers(posterior.mean, 7, mean)[[0, 3, 6]]
        scale = KERNEL_WIDTH * scale
    latents = fitted.latents_from_noise(NOISE, choices=CHOICES)
    torch.testing.assert_close(latents, mean + NOISE @ scale.T)


def test_new_drums_are_drawn_from_there(fitted):
    generator, choices = seeded(6), None
    if fitted.config.latent_kernels:
        choices = torch.rand(3, generator=generator)
    noise = torch.randn(3, LATENT_SIZE, generator=generator)
    expected = fitted.decode(fitted.latents_from_noise(noise, choices=choices), 0)
    assert torch.equal(fitted.sample(3, 0, seeded(6)).piano_roll, expected.piano_roll)
    assert not torch.equal(expected.piano_roll, fitted.decode(noise, 0).piano_roll)


def test_the_distribution_is_saved_and_loaded_bit_for_bit(fitted, tmp_path):
    fitted.save_pretrained(tmp_path)
    loaded = MusicVAEModel.from_pretrained(tmp_path)
    latents = (model.latents_from_noise(NOISE, choices=CHOICES) for model in (loaded, fitted))
    assert torch.equal(*latents)


def without_distribution(folder: Path) -> None:
    weights = load_file(folder / WEIGHTS)
    for name in ("latent_mean", "latent_scale", "kernel_centers"):
        weights.pop(name, None)
    save_file(weights, folder / WEIGHTS, {"format": "pt"})


def test_an_older_checkpoint_has_the_prior(fitted, tmp_path):
    fitted.save_pretrained(tmp_path)
    without_distribution(tmp_path)
    loaded = MusicVAEModel.from_pretrained(tmp_path)
    assert torch.equal(loaded.latents_from_noise(NOISE, choices=CHOICES), NOISE)
