"""Arithmetic on latents."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from modeling_musicvae.latent_space import attribute_vectors, spherical_interpolation

GOLDEN = {
    "orthogonal": ([1, 0], [0, 1], [[1, 0], [math.sqrt(1 / 2)] * 2, [0, 1]]),
    "60 degrees": (
        [1, 0],
        [1 / 2, math.sqrt(3) / 2],
        [[1, 0], [math.sqrt(3) / 2, 1 / 2], [1 / 2, math.sqrt(3) / 2]],
    ),
    "norms change evenly": ([2, 0], [0, 4], [[2, 0], [3 * math.sqrt(1 / 2)] * 2, [0, 4]]),
    "parallel": ([1, 1], [3, 3], [[1, 1], [2, 2], [3, 3]]),
    "equal": ([1, 2], [1, 2], [[1, 2], [1, 2], [1, 2]]),
    "opposite, through the middle": ([2, 0], [-2, 0], [[2, 0], [0, 0], [-2, 0]]),
}


@pytest.mark.parametrize("start, end, points", GOLDEN.values(), ids=GOLDEN)
def test_three_points(start, end, points):
    start, end = torch.tensor(start).float(), torch.tensor(end).float()
    interpolated = spherical_interpolation(start, end, 3)
    torch.testing.assert_close(interpolated, torch.tensor(points).float(), atol=1e-6, rtol=1e-6)


def test_points_lie_evenly_on_the_arc():
    start, end = torch.randn(2, 256, generator=torch.Generator().manual_seed(0)).double()
    points = spherical_interpolation(start, end, 9)
    assert points.shape == (9, 256)
    torch.testing.assert_close(points[[0, -1]], torch.stack([start, end]))
    norms = points.norm(dim=-1)
    torch.testing.assert_close(norms.diff(), (end.norm() - start.norm()).expand(8) / 8)
    directions = points / norms[:, None]
    angles = (directions[:-1] * directions[1:]).sum(-1).arccos()
    whole_angle = (directions[0] @ directions[-1]).arccos()
    torch.testing.assert_close(angles, whole_angle.expand(8) / 8)


@pytest.mark.parametrize("angle", [1e-6, 1e-4, 2e-4, 1e-3, 0.1])
def test_points_between_nearly_parallel_latents_stay_between_them(angle):
    start, end = torch.tensor([1.0, 0.0]), torch.tensor([math.cos(angle), math.sin(angle)])
    middle = spherical_interpolation(start, end, 3)[1]
    expected = torch.tensor([math.cos(angle / 2), math.sin(angle / 2)])
    torch.testing.assert_close(middle, expected, atol=1e-3, rtol=0)


@pytest.mark.parametrize("num_points", [1, 0, -1])
def test_fewer_than_two_points_are_refused(num_points):
    with pytest.raises(ValueError, match=f"num_points: found {num_points}"):
        spherical_interpolation(torch.ones(2), torch.ones(2), num_points)


def linear_data(num_pairs=500, latent_size=8, num_attributes=3):
    """Correlated latents, attributes that are linear in them, and the weights."""
    generator = torch.Generator().manual_seed(0)
    mixing = torch.randn(latent_size, latent_size, generator=generator)
    latents = torch.randn(num_pairs, latent_size, generator=generator) @ mixing + 5
    weights = torch.randn(latent_size, num_attributes, generator=generator)
    return latents, latents @ weights + torch.tensor([100.0, 0, -3]), weights


def test_a_vector_raises_its_own_attribute_by_one_standard_deviation_and_no_other():
    latents, attributes, weights = linear_data()
    vectors = attribute_vectors([(latents, attributes)])
    assert vectors.dtype == torch.float32
    assert vectors.shape == (3, 8)
    expected = attributes.std(0, correction=0).diag()
    torch.testing.assert_close(vectors @ weights, expected, atol=1e-3, rtol=1e-4)


def test_a_vector_is_the_direction_along_which_the_attribute_grows():
    """Each attribute moves the latents along one direction of its own, amid noise."""
    generator = torch.Generator().manual_seed(0)
    common = torch.randn(20_000, 1, generator=generator)
    attributes = 10 + common + torch.tensor([0.5, 2]) * torch.randn(20_000, 2, generator=generator)
    directions = torch.randn(2, 16, generator=generator)
    latents = attributes @ directions + torch.randn(20_000, 16, generator=generator)
    vectors = attribute_vectors([(latents, attributes)])
    expected = attributes.std(0)[:, None] * directions
    torch.testing.assert_close(vectors, expected, atol=0.1, rtol=0)


@given(st.randoms(use_true_random=False), st.integers(1, 60))
@settings(derandomize=True, deadline=None, max_examples=30)
def test_one_pass_in_any_order_equals_a_regression_on_everything(random, batch_size):
    latents, attributes, _ = linear_data(num_pairs=120)
    attributes = attributes + torch.randn(120, 3, generator=torch.Generator().manual_seed(1))
    standardized = (attributes - attributes.mean(0)) / attributes.std(0, correction=0)
    design = torch.cat([standardized, torch.ones(120, 1)], 1).double()
    direct = torch.linalg.lstsq(design, latents.double()).solution[:3].float()
    order = torch.tensor(random.sample(range(120), 120))
    batches = zip(
        latents[order].split(batch_size), attributes[order].split(batch_size), strict=True
    )
    torch.testing.assert_close(attribute_vectors(batches), direct, atol=1e-5, rtol=1e-4)


def test_offsets_that_dwarf_the_data_do_no_harm():
    latents, attributes, _ = (tensor.double() for tensor in linear_data())
    expected = attribute_vectors([(latents, attributes)])
    found = attribute_vectors([(latents + 1e6, attributes - 1e7)])
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


def test_the_scale_of_an_attribute_does_not_matter():
    latents, attributes, _ = linear_data()
    expected = attribute_vectors([(latents, attributes)])
    scaled = attribute_vectors([(latents, attributes * torch.tensor([1e-4, 1, -1e4]))])
    torch.testing.assert_close(scaled, expected * torch.tensor([[1], [1], [-1]]))


def test_a_constant_attribute_has_a_zero_vector_and_leaves_the_others_alone():
    latents, attributes, _ = linear_data()
    expected = attribute_vectors([(latents, attributes)])
    constant = torch.full((500, 1), 0.1)
    vectors = attribute_vectors([(latents, torch.cat([constant, attributes], 1))])
    assert torch.equal(vectors[0], torch.zeros(8))
    torch.testing.assert_close(vectors[1:], expected)


def test_attributes_that_say_the_same_share_the_vector():
    latents, attributes, _ = linear_data()
    only = attribute_vectors([(latents, attributes[:, :1])])
    twice = torch.cat([attributes[:, :1], 0.3 * attributes[:, :1] + 7], 1)
    torch.testing.assert_close(attribute_vectors([(latents, twice)]), only.expand(2, 8) / 2)


def test_one_pair_alone_says_nothing():
    assert torch.equal(attribute_vectors([(torch.ones(1, 4), torch.ones(1, 2))]), torch.zeros(2, 4))


def test_latents_are_read_without_autograd():
    latents, attributes, _ = linear_data()
    assert not attribute_vectors([(latents.requires_grad_(), attributes)]).requires_grad


def test_no_pairs_are_refused():
    with pytest.raises(ValueError, match="pairs: found none"):
        attribute_vectors([])
