"""Drums longer than a window: new ones, what follows given bars, and the windows of one song."""

import re

import pytest
import torch
from factories import (
    BARS,
    CONDITIONED,
    LATENT_SIZE,
    LATENTS,
    NUM_DRUMS,
    ROLLS,
    STEPS,
    STEPS_PER_BAR,
    TIMING,
    all_outputs,
    both_decoders,
    over,
    random_model,
    random_rolls,
    random_timing,
    seeded,
)

from modeling_musicvae import MusicVAEModel
from modeling_musicvae.generation_musicvae import MusicVAEDecoderOutput

SHARP = {"temperature": 0}


def equal(drums: MusicVAEDecoderOutput, others: MusicVAEDecoderOutput) -> bool:
    return all(torch.equal(drums[name], others[name]) for name in ("piano_roll", "timing"))


def part(drums: MusicVAEDecoderOutput, *index) -> MusicVAEDecoderOutput:
    return MusicVAEDecoderOutput(piano_roll=drums.piano_roll[index], timing=drums.timing[index])


def bars_of(drums: MusicVAEDecoderOutput, start: int, end: int | None = None):
    steps = slice(start * STEPS_PER_BAR, end and end * STEPS_PER_BAR)
    return part(drums, ..., steps)


# New drums


@both_decoders
@all_outputs
@pytest.mark.parametrize("bars", [1, BARS, BARS + 1, 3 * BARS])
def test_samples_have_the_bars_that_are_asked_for(bars, output, decoder):
    drums = random_model(decoder, **output).sample(2, generator=seeded(0), bars=bars)
    assert drums.piano_roll.shape == drums.timing.shape == (2, NUM_DRUMS, bars * STEPS_PER_BAR)
    assert (drums.piano_roll.dtype, drums.timing.dtype) == (torch.uint8, torch.float32)


def test_samples_have_the_bars_of_a_window_unless_others_are_asked_for():
    model = random_model()
    drums = (model.sample(2, generator=seeded(0), **how) for how in ({}, {"bars": BARS}))
    assert equal(*drums)


@pytest.mark.parametrize("bars", [1, 2, BARS + 1, 4 * BARS])
def test_however_long_drums_are_they_begin_alike(bars):
    model = random_model()
    drums, usual = (model.sample(2, generator=seeded(0), bars=n) for n in (bars, BARS))
    shared = min(bars, BARS)
    assert equal(bars_of(drums, 0, shared), bars_of(usual, 0, shared))


def latents_of_windows(model: MusicVAEModel, bars: int) -> torch.Tensor:
    seen = []
    model.conductor.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    model.sample(4, generator=seeded(0), bars=bars)
    return torch.stack(seen)


def test_the_latents_of_windows_go_from_one_draw_toward_another():
    latents = latents_of_windows(random_model(), 6 * BARS)
    assert latents.shape == (6, 4, LATENT_SIZE)
    steps = latents.diff(dim=0).norm(dim=-1)
    whole = (latents[-1] - latents[0]).norm(dim=-1)
    assert (steps < whole / 2).all()
    # Few windows go a part of the way, for neighbours to have something in common.
    few = latents_of_windows(random_model(), 2 * BARS)
    assert ((few[1] - few[0]).norm(dim=-1) < 0.4 * whole).all()


def test_a_window_looks_back_at_the_one_before():
    model = random_model(lookback_bars=1)
    latents = latents_of_windows(model, 2 * BARS)[1]
    drums = model.sample(4, generator=seeded(0), bars=2 * BARS, **SHARP)
    expected = model.decode(latents, history=bars_of(drums, 0, BARS), **SHARP)
    assert equal(bars_of(drums, BARS), expected)
    assert not equal(bars_of(drums, BARS), model.decode(latents, **SHARP))


def test_a_history_comes_before_the_first_window():
    model = random_model(lookback_bars=2)
    before = MusicVAEDecoderOutput(piano_roll=ROLLS[:2], timing=TIMING[:2])
    first, other = (model.sample(2, 0, seeded(0), history=h, bars=4) for h in (before, None))
    assert not equal(bars_of(first, 0, BARS), bars_of(other, 0, BARS))


def test_attributes_are_added_to_the_latents_of_all_windows():
    model = random_model()
    model.attribute_vectors.copy_(torch.randn(model.attribute_vectors.shape, generator=seeded(0)))
    plain = latents_of_windows(model, 2 * BARS)
    model.sample(4, generator=seeded(0), bars=2 * BARS, attributes={"density": 2, "swing": -1})
    seen = []
    model.conductor.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    model.sample(4, generator=seeded(0), bars=2 * BARS, attributes={"density": 2, "swing": -1})
    added = model.add_attribute(torch.zeros(1, LATENT_SIZE), "density", 2)
    added = model.add_attribute(added, "swing", -1)
    torch.testing.assert_close(torch.stack(seen), plain + added)


@pytest.mark.parametrize("bars", [0, -1])
def test_fewer_bars_than_one_are_refused(bars):
    with pytest.raises(ValueError, match=f"bars: found {bars}, expected at least 1"):
        random_model().sample(1, bars=bars)
    with pytest.raises(ValueError, match=f"bars: found {bars}, expected at least 1"):
        random_model().continue_drums(ROLLS, TIMING, bars=bars)


@over(CONDITIONED)
def test_more_bars_than_those_of_the_conditioning_are_refused(output):
    model = random_model(**output)
    conditioning = model.conditioning(ROLLS, TIMING)
    message = f"bars: found {BARS + 1}, expected at most {BARS}, those of the score or"
    with pytest.raises(ValueError, match=message):
        model.sample(5, 1.0, None, *conditioning, bars=BARS + 1)


# What follows given bars


def given(bars: int) -> tuple[torch.Tensor, torch.Tensor]:
    piano_roll = random_rolls(2, bars * STEPS_PER_BAR)
    return piano_roll, random_timing(piano_roll)


@both_decoders
@all_outputs
@pytest.mark.parametrize(("given_bars", "bars"), [(1, 1), (1, 7), (BARS, 1), (5, 2), (2 * BARS, 4)])
def test_given_bars_come_out_exactly_and_new_ones_follow(given_bars, bars, output, decoder):
    piano_roll, timing = given(given_bars)
    drums = random_model(decoder, **output).continue_drums(
        piano_roll, timing, bars, generator=seeded(0)
    )
    steps = given_bars * STEPS_PER_BAR
    assert drums.piano_roll.shape == drums.timing.shape
    assert drums.piano_roll.shape == (2, NUM_DRUMS, steps + bars * STEPS_PER_BAR)
    assert torch.equal(drums.piano_roll[..., :steps], piano_roll)
    assert torch.equal(drums.timing[..., :steps], timing)
    assert (drums.piano_roll[..., steps:] > 0).any()


def test_as_many_bars_follow_as_a_window_has_unless_others_are_asked_for():
    drums = random_model().continue_drums(*given(2))
    assert drums.piano_roll.shape[-1] == (2 + BARS) * STEPS_PER_BAR


def test_a_longer_continuation_begins_as_a_shorter_one():
    model = random_model()
    short, long = (model.continue_drums(*given(2), bars, generator=seeded(0)) for bars in (1, 9))
    assert equal(short, bars_of(long, 0, 3))


@pytest.mark.parametrize("lookback_bars", [0, 1])
@all_outputs
def test_what_follows_depends_on_the_last_given_bar(lookback_bars, output):
    model, (piano_roll, timing) = random_model(lookback_bars=lookback_bars, **output), given(2)
    last_bar = torch.arange(2 * STEPS_PER_BAR) >= STEPS_PER_BAR
    other = piano_roll.where(~last_bar, 0), timing.where(~last_bar, 0)
    drums = [model.continue_drums(*each, 2, **SHARP) for each in ((piano_roll, timing), other)]
    assert not equal(*(bars_of(each, 2) for each in drums))


def test_the_latents_are_those_of_the_last_given_window():
    """A window that starts after the given bars has them for its look-back alone."""
    model, (piano_roll, timing) = random_model(lookback_bars=0), given(2 * BARS)
    drums = model.continue_drums(piano_roll, timing, BARS, **SHARP)
    mean = model.encode(piano_roll[..., -STEPS:], timing[..., -STEPS:]).mean
    assert equal(bars_of(drums, 2 * BARS), model.decode(mean, **SHARP))


def test_fewer_bars_than_a_window_are_repeated_for_the_encoder():
    """So they end as the window does, and no silence follows them that they do not have."""
    model, (piano_roll, timing) = random_model(lookback_bars=0), given(1)
    seen = []
    model.conductor.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    model.continue_drums(piano_roll, timing, 1)
    repeated = (each.repeat(1, 1, BARS) for each in (piano_roll, timing))
    assert torch.equal(seen[0], model.encode(*repeated).mean)


@pytest.mark.parametrize("steps", [0, 1, STEPS_PER_BAR + 1])
def test_parts_of_bars_are_refused(steps):
    roll = random_rolls(2, steps)
    message = f"piano_roll: found torch.uint8 (2, {NUM_DRUMS}, {steps}), expected torch.uint8 "
    message += f"(batch, {NUM_DRUMS}, whole bars of {STEPS_PER_BAR})"
    with pytest.raises(ValueError, match=re.escape(message)):
        random_model().continue_drums(roll)


def test_a_model_that_is_conditioned_on_hits_continues_nothing():
    with pytest.raises(ValueError, match="continue_drums: found a model trained with hits_as_c"):
        random_model(hits_as_controls=True).continue_drums(ROLLS)


def test_a_model_of_another_task_continues_nothing():
    with pytest.raises(ValueError, match="continue_drums: found a model trained with input_trans"):
        random_model(input_transform="tap").continue_drums(ROLLS)


# The windows of one song


ONE_BY_ONE = {
    "decode": ({}, lambda model, roll, timing, **how: model.decode(LATENTS[: len(roll)], **how)),
    "reconstruct": ({}, MusicVAEModel.reconstruct),
    "humanize": (
        {"input_transform": "humanize"},
        lambda model, roll, timing, **how: model.humanize(roll, **how),
    ),
    "tap_to_drums": ({"input_transform": "tap"}, MusicVAEModel.tap_to_drums),
    "tap_to_drums, conditioned": (
        {"input_transform": "tap", "encoder_conditioning_size": 5, "input_as_controls": True},
        MusicVAEModel.tap_to_drums,
    ),
    "add_drums": ({"input_transform": "remove_drums"}, MusicVAEModel.add_drums),
    "transfer_groove": (
        {},
        lambda model, roll, timing, **how: model.transfer_groove(roll.flip(2), roll, timing, **how),
    ),
}
each_verb = pytest.mark.parametrize(("settings", "verb"), ONE_BY_ONE.values(), ids=ONE_BY_ONE)


@each_verb
def test_consecutive_windows_depend_on_those_before_and_not_after(settings, verb):
    model = random_model(lookback_bars=2, **settings)
    apart, song = (verb(model, ROLLS, TIMING, **SHARP, consecutive=c) for c in (False, True))
    assert equal(part(apart, slice(1)), part(song, slice(1)))
    assert not equal(part(apart, slice(1, None)), part(song, slice(1, None)))
    shorter = verb(model, ROLLS[:3], TIMING[:3], **SHARP, consecutive=True)
    assert equal(shorter, part(song, slice(3)))


def test_consecutive_points_of_an_interpolation_depend_on_those_before():
    model = random_model(lookback_bars=2)
    apart, song = (
        model.interpolate(*ROLLS[:2], num_points=4, **SHARP, consecutive=c) for c in (False, True)
    )
    assert equal(part(apart, slice(1)), part(song, slice(1)))
    assert not equal(apart, song)


def test_each_consecutive_window_has_the_ones_before_as_its_history():
    model = random_model(lookback_bars=BARS + 1)
    song = model.decode(LATENTS[:3], **SHARP, consecutive=True)
    before = MusicVAEDecoderOutput(
        piano_roll=torch.cat(list(song.piano_roll[:2]), -1)[None],
        timing=torch.cat(list(song.timing[:2]), -1)[None],
    )
    last = model.decode(LATENTS[2:3], history=before, **SHARP)
    assert equal(part(song, slice(2, 3)), last)


def test_without_look_back_consecutive_windows_are_any_windows():
    model = random_model(lookback_bars=0)
    apart, song = (model.decode(LATENTS, 1.0, seeded(0), consecutive=c) for c in (False, True))
    assert equal(apart, song)


def test_one_history_is_asked_for_before_consecutive_windows():
    history = MusicVAEDecoderOutput(piano_roll=ROLLS, timing=TIMING)
    with pytest.raises(ValueError, match="history: found a batch of 5, expected 1"):
        random_model().decode(LATENTS, history=history, consecutive=True)
