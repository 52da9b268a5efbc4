import numpy as np
import pytest
import torch

from modeling_musicvae.consensus import NUM_DRAWS, FixedDraws
from musicvae.random_numbers import SeededDraws, normals, uniforms

# The page is held to the same numbers in test_web_page.py.
GOLDEN_UNIFORMS = [
    ((0, 0), [11431808, 14917081, 7284686]),
    ((1, 2), [6855671, 10212608, 2472470]),
    ((2**32 - 1, 5), [1724822, 5377805, 6426600]),
]
GOLDEN_NORMALS = [1.1600749405, -0.9704606814, 0.4018276683, -0.9887202481, 0.9925151339]


@pytest.mark.parametrize(("seed_and_stream", "expected"), GOLDEN_UNIFORMS)
def test_uniforms_are_these_on_every_machine(seed_and_stream, expected):
    draws = uniforms(*seed_and_stream, 3)
    assert draws.dtype == np.float32
    assert (draws * 2**24).tolist() == expected


def test_normals_are_these_on_every_machine():
    assert normals(0, 0, 5) == pytest.approx(GOLDEN_NORMALS, abs=1e-9)


@pytest.mark.parametrize("draw", [uniforms, normals])
def test_fewer_numbers_are_the_beginning_of_more(draw):
    assert draw(5, 1, 7).tolist() == draw(5, 1, 100)[:7].tolist()


def test_uniforms_are_even():
    draws = uniforms(3, 0, 100_000)
    counts, _ = np.histogram(draws, 20, (0, 1))
    assert abs(counts - 5000).max() < 5 * np.sqrt(5000)
    assert draws.min() >= 0 and draws.max() < 1


def test_normals_have_the_moments_of_a_normal():
    draws = normals(3, 0, 100_000)
    assert draws.mean() == pytest.approx(0, abs=0.02)
    assert draws.std() == pytest.approx(1, abs=0.02)
    assert (draws**4).mean() == pytest.approx(3, abs=0.2)


@pytest.mark.parametrize("other", [(4, 2), (5, 3)], ids=["seed", "stream"])
def test_seeds_and_streams_are_independent(other):
    pair = uniforms(4, 3, 10_000), uniforms(*other, 10_000)
    assert abs(np.corrcoef(*pair)[0, 1]) < 0.05
    assert not set(pair[0][:100].tolist()) & set(pair[1][:100].tolist())


def test_the_draws_of_greedy_drums_for_taps_are_those_of_seed_0():
    expected = SeededDraws(0, one_song=True).rand((5, NUM_DRAWS, 19))
    assert torch.equal(FixedDraws().rand((5, 2 * NUM_DRAWS, 19)), torch.cat([expected] * 2, 1))
