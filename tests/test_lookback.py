"""Look-back: the decoder's input has the frames of the same step one, two, ... bars earlier."""

import pytest
import torch
from factories import (
    BARS,
    EXPRESSIVE,
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
    seeded,
)

from modeling_musicvae import MusicVAEModel
from modeling_musicvae.generation_musicvae import MusicVAEDecoderOutput


def steps_that_change(model: MusicVAEModel, piano_roll: torch.Tensor, timing: torch.Tensor) -> set:
    """The steps whose teacher-forced logits differ from those for the drums of the tests."""
    before = model(ROLLS, TIMING, latents=LATENTS).logits
    after = model(piano_roll, timing, latents=LATENTS).logits
    return set((before != after).any(-1).any(0).nonzero().flatten().tolist())


def with_other_hits(step: int) -> torch.Tensor:
    piano_roll = ROLLS.clone()
    piano_roll[..., step] = torch.where(piano_roll[..., step] > 0, 0, 100).to(torch.uint8)
    return piano_roll


@all_outputs
@pytest.mark.parametrize("lookback_bars", range(BARS + 1))
def test_a_step_reaches_as_many_of_the_bars_that_follow(lookback_bars, output):
    """The first step of the first bar reaches the first of these, and so all others of them."""
    model = random_model("hierarchical", lookback_bars=lookback_bars, **output)
    end = min(STEPS, (1 + lookback_bars) * STEPS_PER_BAR)
    assert steps_that_change(model, with_other_hits(0), TIMING) == set(range(1, end))


@all_outputs
@both_decoders
def test_the_same_step_is_looked_back_at_and_no_other(output, decoder):
    model = random_model(decoder, lookback_bars=2, **output)
    frames = model.head.to_frames(ROLLS, TIMING)
    features = torch.cat(
        [model.decoder._past_features(5, None, frames.device), model.head.features(frames)], 1
    )
    dense = model.decoder._dense_inputs(features, torch.arange(STEPS), None)
    two_bars, one_bar = dense.chunk(2, -1)
    for bars, looked_back in ((1, one_bar), (2, two_bars)):
        assert not looked_back[:, : bars * STEPS_PER_BAR].any()
        expected = model.head.features(frames)[:, : -bars * STEPS_PER_BAR]
        assert torch.equal(looked_back[:, bars * STEPS_PER_BAR :], expected)


@over(EXPRESSIVE)
@both_decoders
@pytest.mark.parametrize("played", ["velocity", "timing"])
def test_velocity_and_timing_are_looked_back_at(played, decoder, output):
    model, first_step = random_model(decoder, lookback_bars=2, **output), torch.arange(STEPS) == 0
    other = {
        "velocity": (ROLLS.clamp(max=1).where(first_step, ROLLS), TIMING),
        "timing": (ROLLS, TIMING * ~first_step),
    }[played]
    assert {STEPS_PER_BAR, 2 * STEPS_PER_BAR} <= steps_that_change(model, *other)


# Across windows


def earlier(steps: int = STEPS, seed: int = 7) -> MusicVAEDecoderOutput:
    hits = torch.rand(5, NUM_DRUMS, steps, generator=seeded(seed)) < 0.5
    timing = (torch.rand(hits.shape, generator=seeded(seed)) - 0.5) * hits
    return MusicVAEDecoderOutput(piano_roll=hits.to(torch.uint8) * 90, timing=timing)


def equal(drums: MusicVAEDecoderOutput, others: MusicVAEDecoderOutput) -> bool:
    return all(torch.equal(drums[name], others[name]) for name in ("piano_roll", "timing"))


def decode(model: MusicVAEModel, history: MusicVAEDecoderOutput | None) -> MusicVAEDecoderOutput:
    return model.decode(LATENTS, generator=seeded(0), history=history)


@both_decoders
@all_outputs
def test_a_window_depends_on_the_drums_before_it(output, decoder):
    model = random_model(decoder, **output)
    assert not equal(decode(model, earlier()), decode(model, None))
    assert equal(decode(model, earlier()), decode(model, earlier()))


@both_decoders
@all_outputs
def test_the_drums_before_are_what_the_window_would_have_looked_back_at(output, decoder):
    """With a history, the logits at each step are those for the looked-back features of it."""
    model = random_model(decoder, lookback_bars=1, **output)
    past = model.head.to_frames(*earlier(STEPS_PER_BAR).to_tuple())
    seen = model.decoder._past_features(5, past, past.device)
    assert torch.equal(seen, model.head.features(past))


@all_outputs
def test_silence_before_is_none(output):
    model, silence = random_model(**output), earlier()
    silence.piano_roll.zero_(), silence.timing.zero_()
    assert equal(decode(model, silence), decode(model, None))


@pytest.mark.parametrize("bars", [1, 2, 3])
def test_no_more_than_the_nearest_bars_matter(bars):
    model, history = random_model(lookback_bars=2), earlier()
    steps = bars * STEPS_PER_BAR
    nearest = MusicVAEDecoderOutput(
        piano_roll=history.piano_roll[..., -steps:], timing=history.timing[..., -steps:]
    )
    assert equal(decode(model, nearest), decode(model, history)) == (bars >= 2)


def test_a_model_without_look_back_does_not_depend_on_what_was_before():
    model = random_model(lookback_bars=0)
    assert equal(decode(model, earlier()), decode(model, None))


def test_samples_look_back_too():
    model = random_model()
    first, second = (model.sample(5, generator=seeded(0), history=h) for h in (None, earlier()))
    assert not equal(first, second)


def test_drums_before_another_number_of_windows_are_refused():
    history = earlier()
    history.piano_roll, history.timing = history.piano_roll[:2], history.timing[:2]
    with pytest.raises(ValueError, match="history: found a batch of 2, expected 5"):
        decode(random_model(), history)


def test_drums_before_of_another_kit_are_refused():
    history = MusicVAEDecoderOutput(piano_roll=ROLLS[:, 1:], timing=TIMING[:, 1:])
    with pytest.raises(ValueError, match="history: found torch.uint8 .*, expected torch.uint8"):
        decode(random_model(), history)
