"""Arithmetic on latents."""

import math

import pytest
import torch

from modeling_musicvae.latent_space import spherical_interpolation

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


@pytest.mark.parametrize("num_steps", [1, 0, -1])
def test_fewer_than_two_points_are_refused(num_steps):
    with pytest.raises(ValueError, match=f"num_steps: found {num_steps}"):
        spherical_interpolation(torch.ones(2), torch.ones(2), num_steps)
