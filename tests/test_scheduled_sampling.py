"""Scheduled sampling: when frames are the decoder's own draws, and that it is the plain loop."""

from collections.abc import Callable

import pytest
import torch
from factories import (
    CONDITIONED_OR_NOT,
    LATENTS,
    ROLLS,
    STEPS,
    STEPS_PER_BAR,
    TIMING,
    all_outputs,
    both_decoders,
    over,
    random_model,
)

from modeling_musicvae import MusicVAEModel
from modeling_musicvae.output_heads import FixedDrums

BATCH = len(ROLLS)


# When


def probabilities_of_draws(model: MusicVAEModel, step: int | None, monkeypatch) -> list[float]:
    """The probability with which `forward` mixes draws into the targets, if it does."""
    seen, scheduled_sampling = [], model.decoder.scheduled_sampling

    def seeing(contexts, frames, probability, *others):
        seen.append(probability)
        return scheduled_sampling(contexts, frames, probability, *others)

    monkeypatch.setattr(model.decoder, "scheduled_sampling", seeing)
    model(ROLLS, TIMING, step=step)
    return seen


# As Magenta's get_sampling_probability has them, whose exp overflows to infinity.
ORIGINAL_SCHEDULES = {
    "constant": lambda rate, step: rate,
    "exponential": lambda rate, step: 1 - rate**step,
    "inverse_sigmoid": lambda rate, step: 1 - rate / (rate + torch.exp(step / rate).item()),
}


@pytest.mark.parametrize("step", [1, 10, 1000, 10**9])
@pytest.mark.parametrize(
    "schedule, rate",
    [
        ("constant", 0.3),
        ("constant", 1),
        ("exponential", 0.999),
        ("exponential", 0),
        ("inverse_sigmoid", 2000),
        ("inverse_sigmoid", 2.5),
        ("inverse_sigmoid", 1),
    ],
)
def test_probability_of_a_draw_is_that_of_magenta(schedule, rate, step, monkeypatch):
    model = random_model(scheduled_sampling_schedule=schedule, scheduled_sampling_rate=rate).train()
    expected = ORIGINAL_SCHEDULES[schedule](rate, torch.tensor(step, dtype=torch.float64))
    seen = probabilities_of_draws(model, step, monkeypatch)
    assert seen == [pytest.approx(float(expected), rel=1e-9)]


SCHEDULED = {"scheduled_sampling_schedule": "exponential", "scheduled_sampling_rate": 0.5}
TEACHER_FORCED = {
    "constant 0": ({}, True, 100),
    "the first step of a schedule": (SCHEDULED, True, 0),
    "training without a step": (SCHEDULED, True, None),
    "evaluation": (SCHEDULED, False, 100),
}


@pytest.mark.parametrize(
    "settings, training, step", TEACHER_FORCED.values(), ids=TEACHER_FORCED.keys()
)
def test_nothing_is_drawn(settings, training, step, monkeypatch):
    model = random_model(**settings).train(training)
    assert probabilities_of_draws(model, step, monkeypatch) == []


# What


def conditioning_of(model: MusicVAEModel) -> torch.Tensor | None:
    return model.conditioning(ROLLS, TIMING)[1]


def known_hits(model: MusicVAEModel) -> FixedDrums | None:
    """The hits that are not drawn because the model is conditioned on them."""
    if not model.config.hits_as_controls:
        return None
    return FixedDrums.hits(model.head.to_frames(ROLLS, TIMING), model.config.num_drums)


def run_plainly(
    model: MusicVAEModel,
    contexts: torch.Tensor,
    next_frame: Callable[[int, torch.Tensor], torch.Tensor],
) -> torch.Tensor:
    """Logits (batch, steps, size) of a loop over the steps, each with the frame before it, and the
    same step of the bars before, as input."""
    decoder, conditioning = model.decoder, conditioning_of(model)
    frames, logits = [decoder.head.initial_frame(len(contexts), contexts.device)], []
    for step in range(STEPS):
        context = contexts[:, step // decoder.segment_steps]
        if step % decoder.segment_steps == 0:
            states = list(zip(*decoder.initial_state(context), strict=True))
        inputs = [decoder.head.decoder_inputs(frames[-1])]
        if conditioning is not None:
            inputs.append(conditioning[:, step])
        for bars in reversed(range(1, 1 + model.config.lookback_bars)):
            earlier = max(0, 1 + step - bars * STEPS_PER_BAR)  # 0: before the start
            inputs.append(decoder.head.features(frames[earlier]))
        output = torch.cat([*inputs, context], -1)
        for layer, weights in enumerate(decoder.lstm.all_weights):
            states[layer] = torch.lstm_cell(output, states[layer], *weights)
            output = states[layer][0]
        logits.append(decoder.output(output))
        frames.append(next_frame(step, logits[-1]))
    return torch.stack(logits, 1)


def loss_and_gradients(
    model: MusicVAEModel, losses: torch.Tensor, latents: torch.Tensor
) -> dict[str, torch.Tensor]:
    wanted = {name: p for name, p in model.named_parameters() if not name.startswith("encoder")}
    gradients = torch.autograd.grad(losses.sum(), [latents, *wanted.values()])
    return dict(zip(["losses", "latents", *wanted], [losses, *gradients], strict=True))


@both_decoders
@over(CONDITIONED_OR_NOT)
def test_loss_and_gradients_are_those_of_a_plain_loop(output, decoder):
    settings = {"scheduled_sampling_rate": 0.5}
    model, latents = random_model(decoder, **settings, **output).train(), LATENTS.clone()
    latents.requires_grad_()
    torch.manual_seed(1)
    losses = model(ROLLS, TIMING, latents=latents, step=1).reconstruction_loss
    actual = loss_and_gradients(model, losses, latents)

    torch.manual_seed(1)
    uniform = torch.rand(BATCH, STEPS, model.head.num_draws)
    drawn = torch.rand(BATCH, STEPS, 1) < 0.5
    targets, contexts = model.head.to_frames(ROLLS, TIMING), model._contexts(latents)
    known = known_hits(model)

    def next_frame(step: int, logits: torch.Tensor) -> torch.Tensor:
        known_step = None if known is None else known.at(step)
        draws = model.head.sample(logits.detach(), 1.0, uniform[:, step], known_step)
        return torch.where(drawn[:, step], draws, targets[:, step])

    logits = run_plainly(model, contexts, next_frame)
    terms = model.head.log_likelihood(logits, targets)
    scored = terms[..., 1:] if model.config.hits_as_controls else terms
    expected = loss_and_gradients(model, -scored.sum((1, 2)), latents)
    torch.testing.assert_close(actual, expected, rtol=1e-3, atol=1e-3)

    teacher_forced = model(ROLLS, TIMING, latents=latents).reconstruction_loss
    assert not torch.allclose(losses, teacher_forced, rtol=1e-2)


def mix(model: MusicVAEModel, probability: float) -> torch.Tensor:
    """Targets and draws; the same seed draws the same numbers."""
    torch.manual_seed(1)
    contexts, frames = model._contexts(LATENTS), model.head.to_frames(ROLLS, TIMING)
    return model.decoder.scheduled_sampling(contexts, frames, probability, conditioning_of(model))


@both_decoders
@over(CONDITIONED_OR_NOT)
def test_with_probability_0_nothing_is_drawn(output, decoder):
    model = random_model(decoder, **output)
    assert torch.equal(mix(model, 0.0), model.head.to_frames(ROLLS, TIMING))


@both_decoders
@all_outputs
def test_targets_are_kept_where_the_coin_says_so(output, decoder):
    model = random_model(decoder, **output)
    targets, mixture = model.head.to_frames(ROLLS, TIMING), mix(model, 0.5)
    torch.manual_seed(1)
    torch.rand(BATCH, STEPS, model.head.num_draws)
    kept = torch.rand(BATCH, STEPS) >= 0.5
    assert torch.equal(mixture[kept], targets[kept])
    assert (mixture[~kept] != targets[~kept]).any(-1).float().mean() > 0.5


@both_decoders
@over(CONDITIONED_OR_NOT)
def test_with_probability_1_it_is_sampling(output, decoder):
    model = random_model(decoder, **output)
    torch.manual_seed(1)
    uniform = torch.rand(BATCH, STEPS, model.head.num_draws).transpose(0, 1)
    contexts = model._contexts(LATENTS)
    sampled = model.decoder.sample(
        contexts, 1.0, uniform, conditioning_of(model), known_hits(model)
    )
    assert torch.equal(mix(model, 1.0), sampled)


@over(CONDITIONED_OR_NOT)
def test_hits_that_are_conditioned_on_are_not_drawn(output):
    model = random_model(**output)
    piano_roll, _ = model.head.to_drums(mix(model, 1.0))
    assert torch.equal(piano_roll > 0, ROLLS > 0) == model.config.hits_as_controls


REDUCED = {
    "bfloat16 model": (torch.bfloat16, False),
    "bfloat16 autocast": (torch.float32, True),
    "autocast of a bfloat16 model": (torch.bfloat16, True),
}


@pytest.mark.parametrize("dtype, autocast", REDUCED.values(), ids=REDUCED.keys())
@both_decoders
@over(CONDITIONED_OR_NOT)
def test_it_trains_in_bfloat16(output, decoder, dtype, autocast):
    settings = {"scheduled_sampling_rate": 0.5}
    model = random_model(decoder, **settings, **output).to(dtype).train()
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        result = model(ROLLS, TIMING, step=1)
    assert result.loss.dtype == torch.float32
    result.loss.backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad.dtype == dtype, name
        assert parameter.grad.isfinite().all(), name
