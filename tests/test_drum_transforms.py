"""Input transforms: what is removed from the encoder's input."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from modeling_musicvae import MusicVAEConfig
from modeling_musicvae.drum_transforms import (
    TAP_DRUM,
    apply_input_transform,
    drop_hits,
    remove_drums,
    remove_velocity,
    tap,
)

repeatable = settings(derandomize=True, deadline=None, max_examples=100)
TRANSFORMS = ["none", "humanize", "tap", "tap_fixed_velocity", "remove_drums"]
all_transforms = pytest.mark.parametrize("name", TRANSFORMS)
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


def transformed(name: str, piano_roll: torch.Tensor, timing: torch.Tensor) -> Drums:
    num_drums = piano_roll.shape[1]
    removed = [CLOSED_HIHAT, num_drums - 1]
    config = MusicVAEConfig(num_drums=num_drums, input_transform=name, removed_drums=removed)
    return apply_input_transform(config, piano_roll, timing)


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


def test_without_velocity_every_hit_is_equally_loud():
    piano_roll, _ = two_steps()
    flat = remove_velocity(piano_roll)
    assert flat.dtype == torch.uint8
    assert torch.equal(flat, 100 * (piano_roll > 0))


def test_a_tap_is_the_loudest_hit_of_its_step_with_its_timing():
    taps, timing = tap(*two_steps())
    assert taps[0, TAP_DRUM].tolist() == [120, 1]
    assert timing[0, TAP_DRUM].tolist() == [0.125, -0.5]
    assert taps.count_nonzero() == timing.count_nonzero() == 2


def test_removed_drums_are_silent_and_the_others_as_they_were():
    piano_roll, timing = two_steps()
    expected = piano_roll.clone(), timing.clone()
    for array in expected:
        array[:, [SNARE, RIDE]] = 0
    removed = remove_drums(piano_roll, timing, [SNARE, RIDE])
    torch.testing.assert_close(removed, expected, atol=0, rtol=0)


def test_none_changes_nothing():
    torch.testing.assert_close(transformed("none", *two_steps()), two_steps(), atol=0, rtol=0)


def test_to_be_humanized_are_the_hits_alone():
    piano_roll, timing = transformed("humanize", *two_steps())
    assert torch.equal(piano_roll, remove_velocity(two_steps()[0]))
    assert timing.count_nonzero() == 0


def test_taps_of_a_fixed_velocity_keep_their_timing():
    taps, timing = tap(*two_steps())
    fixed, fixed_timing = transformed("tap_fixed_velocity", *two_steps())
    assert torch.equal(fixed, remove_velocity(taps))
    assert torch.equal(fixed_timing, timing)
    torch.testing.assert_close(transformed("tap", *two_steps()), (taps, timing), atol=0, rtol=0)


def test_the_config_says_which_drums_are_removed():
    expected = remove_drums(*two_steps(), [CLOSED_HIHAT, RIDE])
    actual = transformed("remove_drums", *two_steps())
    torch.testing.assert_close(actual, expected, atol=0, rtol=0)


@all_transforms
@given(drums=drums())
@repeatable
def test_a_transform_gives_drums_and_leaves_its_arguments_alone(name, drums):
    before = [array.clone() for array in drums]
    piano_roll, timing = transformed(name, *drums)
    torch.testing.assert_close(list(drums), before, atol=0, rtol=0)
    assert (piano_roll.dtype, timing.dtype) == (torch.uint8, torch.float32)
    assert piano_roll.shape == timing.shape == drums[0].shape
    assert timing[piano_roll == 0].count_nonzero() == 0


@all_transforms
@given(drums=drums())
@repeatable
def test_a_transform_twice_is_the_same_as_once(name, drums):
    once = transformed(name, *drums)
    torch.testing.assert_close(transformed(name, *once), once, atol=0, rtol=0)


@all_transforms
@given(drums=drums())
@repeatable
def test_every_sequence_of_a_batch_is_transformed_by_itself(name, drums):
    alone = [transformed(name, *(array[i, None] for array in drums)) for i in range(len(drums[0]))]
    one_by_one = tuple(torch.cat(parts) for parts in zip(*alone, strict=True))
    torch.testing.assert_close(transformed(name, *drums), one_by_one, atol=0, rtol=0)


@given(drums(), st.floats(0, 1))
@repeatable
def test_dropping_only_takes_away(drums, probability):
    before = [array.clone() for array in drums]
    piano_roll, timing = drop_hits(*drums, probability, seeded())
    torch.testing.assert_close(list(drums), before, atol=0, rtol=0)
    assert (piano_roll.dtype, timing.dtype) == (torch.uint8, torch.float32)
    kept = piano_roll > 0
    assert torch.equal(piano_roll[kept], drums[0][kept])
    assert torch.equal(timing[kept], drums[1][kept])
    assert timing[~kept].count_nonzero() == 0


@pytest.mark.parametrize(
    ("velocity", "weight"),
    [(1, 126 / 127), (64, 63 / 127), (102, 0.2), (127, 0.2)],
    ids=["softest", "middling", "accent", "loudest"],
)
def test_the_softer_a_hit_the_more_often_it_is_dropped(velocity, weight):
    piano_roll = torch.full((2000, 9, 200), velocity, dtype=torch.uint8)
    kept, _ = drop_hits(piano_roll, torch.zeros(piano_roll.shape), 0.8, seeded())
    dropped = (kept == 0).float().mean((1, 2))
    # Each sequence has drawn its own probability, evenly from 0 to 0.8.
    quantiles = torch.tensor([0.1, 0.5, 0.9])
    expected = 0.8 * weight * quantiles
    torch.testing.assert_close(dropped.quantile(quantiles), expected, atol=0.02, rtol=0)


def test_probability_zero_drops_nothing():
    assert torch.equal(drop_hits(*two_steps(), 0, seeded())[0], two_steps()[0])


def test_the_seed_decides_which_notes_are_dropped():
    drums = torch.full((4, 9, 16), 60, dtype=torch.uint8), torch.zeros(4, 9, 16)
    first, again, other = (drop_hits(*drums, 0.5, seeded(seed))[0] for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
