"""Augmentation of training windows."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from musicvae.data.augmentation import exchange_cymbals, recombine_drums, scale_velocities

repeatable = settings(derandomize=True, deadline=None, max_examples=100)
KICK, SNARE, CLOSED_HIHAT, RIDE = 0, 1, 2, 8

Drums = tuple[torch.Tensor, torch.Tensor]


@st.composite
def drums(draw) -> Drums:
    """A batch of random drums, from silence to every drum on every step."""
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**32)))
    shape = (draw(st.integers(1, 3)), draw(st.integers(4, 12)), draw(st.integers(1, 32)))
    hits = torch.rand(shape, generator=generator) < draw(st.sampled_from([0, 0.1, 0.6, 1]))
    velocities = torch.randint(1, 128, shape, generator=generator)
    timing = torch.rand(shape, generator=generator) - 0.5
    return (velocities * hits).to(torch.uint8), timing * hits


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def two_steps() -> Drums:
    """A soft kick with a loud, late snare and a hi-hat; then an early ride."""
    piano_roll, timing = torch.zeros(1, 9, 2, dtype=torch.uint8), torch.zeros(1, 9, 2)
    for drum, step, velocity, late in (
        (KICK, 0, 30, -0.25),
        (SNARE, 0, 120, 0.125),
        (CLOSED_HIHAT, 0, 60, 0.5 - 2**-25),
        (RIDE, 1, 1, -0.5),
    ):
        piano_roll[0, drum, step], timing[0, drum, step] = velocity, late
    return piano_roll, timing


@given(drums(), st.floats(0, 3))
@repeatable
def test_scaling_keeps_the_hits_and_the_order_of_their_velocities(drums, max_change):
    piano_roll, _ = drums
    before = piano_roll.clone()
    scaled = scale_velocities(piano_roll, max_change, seeded())
    assert torch.equal(piano_roll, before)
    assert scaled.dtype == torch.uint8
    assert torch.equal(scaled > 0, piano_roll > 0)
    assert scaled.max() <= 127
    for sequence, scaled_sequence in zip(piano_roll, scaled, strict=True):
        in_order = scaled_sequence.flatten()[sequence.flatten().argsort()]
        assert torch.equal(in_order, in_order.sort().values)


def test_velocities_of_a_sequence_are_scaled_by_one_factor_drawn_evenly_in_its_logarithm():
    scaled = scale_velocities(torch.full((4000, 2, 2), 60, dtype=torch.uint8), 1.0, seeded())
    assert torch.equal(scaled, scaled[:, :1, :1].expand_as(scaled))
    octaves = (scaled[:, 0, 0] / 60).log2()
    quantiles = torch.tensor([0, 0.25, 0.5, 0.75, 1])
    torch.testing.assert_close(octaves.quantile(quantiles), 2 * quantiles - 1, atol=0.05, rtol=0)


def test_no_change_scales_nothing():
    assert torch.equal(scale_velocities(two_steps()[0], 0), two_steps()[0])


def numbered_drums(batch: int = 200, bars: int = 4) -> tuple[torch.Tensor, torch.Tensor]:
    """Every hit of a sequence has the number of the sequence as its velocity and timing."""
    numbers = torch.arange(1, batch + 1)[:, None, None].expand(batch, 9, 4 * bars)
    return numbers.to(torch.uint8), numbers / (2 * batch + 2)


def test_recombined_sequences_have_whole_drums_of_one_other():
    before = numbered_drums()
    piano_roll, timing = recombine_drums(*before, 1.0, generator=seeded())
    assert torch.equal(timing, piano_roll / (2 * 200 + 2))  # velocity and timing stay together
    assert (piano_roll == piano_roll[..., :1]).all()
    sources = [set(sequence.unique().tolist()) for sequence in piano_roll]
    assert all(len(found | {number}) <= 2 for number, found in enumerate(sources, 1))
    assert sum(len(found) == 2 for found in sources) > 150


@pytest.mark.parametrize("probability", [0.0001, 0.5])
def test_as_many_sequences_as_asked_for_are_recombined(probability):
    before = numbered_drums()
    piano_roll, _ = recombine_drums(*before, probability, generator=seeded())
    changed = (piano_roll != before[0]).any(2).any(1).float().mean()
    assert changed == pytest.approx(probability * (1 - 1 / 2**9), abs=0.1)


def test_exchanged_cymbals_change_places_with_velocity_and_timing():
    drums = torch.zeros(1, 9, 4, dtype=torch.uint8), torch.zeros(1, 9, 4)
    drums[0][0, CLOSED_HIHAT, 0], drums[1][0, CLOSED_HIHAT, 0] = 90, 0.25
    drums[0][0, RIDE, 1], drums[0][0, KICK, 2] = 70, 100
    piano_roll, timing = exchange_cymbals(*drums, 1.0)
    assert (piano_roll[0, RIDE, 0], timing[0, RIDE, 0]) == (90, 0.25)
    assert (piano_roll[0, CLOSED_HIHAT, 1], piano_roll[0, KICK, 2]) == (70, 100)
    assert piano_roll.count_nonzero() == 3


def test_as_many_sequences_as_asked_for_exchange_cymbals():
    before = numbered_drums()
    before[0][:, RIDE] = 0
    piano_roll, _ = exchange_cymbals(*before, 0.25, seeded())
    changed = (piano_roll != before[0]).any(2).any(1).float().mean()
    assert changed == pytest.approx(0.25, abs=0.1)


@pytest.mark.parametrize(
    "augment",
    [
        lambda drums, generator: recombine_drums(
            drums[0] * torch.arange(4, dtype=torch.uint8)[:, None, None], drums[1], 1, generator
        )[0],
        lambda drums, generator: scale_velocities(drums[0], 0.5, generator),
    ],
    ids=["recombine_drums", "scale_velocities"],
)
def test_the_seed_decides(augment):
    drums = torch.full((4, 9, 16), 60, dtype=torch.uint8), torch.zeros(4, 9, 16)
    first, again, other = (augment(drums, seeded(seed)) for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
