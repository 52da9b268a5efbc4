"""MusicVAEModel: its loss, its structure, what it makes, what it refuses, and how it is kept."""

import math
import os
import re
import subprocess
import sys

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from factories import (
    BARS,
    CONDITIONED_OR_NOT,
    EXPRESSIVE,
    HITS_ALONE,
    LATENT_SIZE,
    LATENTS,
    NUM_DRUMS,
    NUM_PATTERNS,
    OUTPUTS,
    ROLLS,
    SIZES,
    STEPS,
    STEPS_PER_BAR,
    TIMING,
    TIMING_BINS,
    VELOCITY_BINS,
    all_outputs,
    both_decoders,
    over,
    pattern_logits,
    random_latents,
    random_model,
    random_rolls,
    random_timing,
    seeded,
)
from torch.distributions import Normal, kl_divergence
from transformers import AutoModel

from modeling_musicvae import MusicVAEConfig, MusicVAEModel
from modeling_musicvae.drum_patterns import from_patterns, to_hits, to_patterns
from modeling_musicvae.generation_musicvae import MusicVAEDecoderOutput
from modeling_musicvae.output_heads import FixedDrums
from processing import MusicVAEProcessor

both_dtypes = pytest.mark.parametrize(
    "dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"]
)
EXPRESSION_SIZE = NUM_DRUMS * (VELOCITY_BINS + TIMING_BINS)
LOGITS_SIZE = {
    "categorical": NUM_PATTERNS + NUM_DRUMS + EXPRESSION_SIZE,
    "hits": NUM_PATTERNS + NUM_DRUMS,
    "groove": 3 * NUM_DRUMS,
    "nade": SIZES["nade_hidden_size"] + NUM_DRUMS,
}


def patterns_of(piano_roll: torch.Tensor) -> torch.Tensor:
    return to_patterns(to_hits(piano_roll))


# The loss


@both_decoders
@pytest.mark.parametrize("name", OUTPUTS)
def test_forward_gives_the_loss_its_terms_and_what_led_to_them(name, decoder):
    output = random_model(decoder, **OUTPUTS[name])(ROLLS, TIMING)
    described = {name: (tuple(value.shape), value.dtype) for name, value in output.items()}
    terms = ["hits_loss", "velocity_loss", "timing_loss"][: 3 if name in EXPRESSIVE else 1]
    assert described == {
        "loss": ((), torch.float32),
        "reconstruction_loss": ((5,), torch.float32),
        **dict.fromkeys(terms, ((5,), torch.float32)),
        "kl_divergence": ((5,), torch.float32),
        "logits": ((5, STEPS, LOGITS_SIZE[name]), torch.float32),
        "mean": ((5, LATENT_SIZE), torch.float32),
        "std": ((5, LATENT_SIZE), torch.float32),
        "latents": ((5, LATENT_SIZE), torch.float32),
    }


def test_forward_gives_a_tuple_where_asked():
    outputs = random_model()(ROLLS, TIMING, latents=LATENTS, return_dict=False)
    expected = random_model()(ROLLS, TIMING, latents=LATENTS)
    torch.testing.assert_close(outputs, expected.to_tuple(), rtol=0, atol=0)


NO_VELOCITY, NO_TIMING = {"velocity_bins": 0}, {"timing_bins": 0}
TERMS = {
    "categorical": ({}, ["hits", "velocity", "timing"]),
    "categorical, no velocity": (NO_VELOCITY, ["hits", "timing"]),
    "categorical, no timing": (NO_TIMING, ["hits", "velocity"]),
    "hits": (OUTPUTS["hits"], ["hits"]),
    "groove": (OUTPUTS["groove"], ["hits", "velocity", "timing"]),
    "nade": (OUTPUTS["nade"], ["hits"]),
}


@pytest.mark.parametrize("settings, terms", TERMS.values(), ids=TERMS)
def test_reconstruction_loss_is_the_sum_of_what_the_output_models(settings, terms):
    output = random_model(**settings)(ROLLS, TIMING)
    assert [name for name in output if name.endswith("_loss")][1:] == [f"{t}_loss" for t in terms]
    parts = [output[f"{term}_loss"] for term in terms]
    assert all((part > 0).all() for part in parts)
    torch.testing.assert_close(output.reconstruction_loss, torch.stack(parts).sum(0))


@over({"categorical": OUTPUTS["categorical"], "hits": OUTPUTS["hits"]})
def test_hits_cost_the_negative_log_likelihood_of_their_patterns_summed_over_steps(output):
    output = random_model(**output)(ROLLS, TIMING)
    log_likelihood = pattern_logits(output.logits).log_softmax(-1)
    expected = -log_likelihood.gather(-1, patterns_of(ROLLS)[..., None]).sum((1, 2))
    torch.testing.assert_close(output.hits_loss, expected)


def test_velocity_and_timing_cost_the_negative_log_likelihood_of_the_bins_of_the_hits():
    model = random_model()
    output = model(ROLLS, TIMING)
    logits = expression_logits(model, output.logits, patterns_of(ROLLS))
    bins = {  # as wide as each other
        "velocity": ((ROLLS.double() - 1) / 127 * VELOCITY_BINS).floor(),
        "timing": ((TIMING.double() + 0.5) * TIMING_BINS).floor(),
    }
    for name, classes in bins.items():
        one_hot = F.one_hot(classes.clamp(min=0).long(), logits[name].shape[-1]).transpose(1, 2)
        cost = -(one_hot * logits[name].log_softmax(-1)).sum(-1)
        expected = (cost * to_hits(ROLLS)).sum((1, 2))
        torch.testing.assert_close(output[f"{name}_loss"], expected)


def expression_logits(
    model: MusicVAEModel, logits: torch.Tensor, patterns: torch.Tensor
) -> dict[str, torch.Tensor]:
    """Those of the classes of velocity and timing (batch, steps, drums, bins), given the hits."""
    logits = logits[..., NUM_PATTERNS + NUM_DRUMS :] + model.head.expression_bias(patterns)
    velocity, timing = logits.tensor_split([NUM_DRUMS * VELOCITY_BINS], -1)
    shape = (NUM_DRUMS, -1)
    return {"velocity": velocity.unflatten(-1, shape), "timing": timing.unflatten(-1, shape)}


def test_kl_divergence_is_that_of_the_posterior_from_the_prior_summed_over_dimensions():
    output = random_model()(ROLLS)
    expected = kl_divergence(Normal(output.mean, output.std), Normal(0.0, 1.0)).sum(-1)
    torch.testing.assert_close(output.kl_divergence, expected)


@pytest.mark.parametrize(
    "beta_rate, step, beta",
    [
        pytest.param(0.0, None, 0.2, id="no step: fully annealed"),
        pytest.param(0.9, None, 0.2, id="no step, with a rate: fully annealed"),
        pytest.param(0.0, 0, 0.0, id="step 0, where 0 ** 0 is 1"),
        pytest.param(0.0, 1, 0.2, id="step 1 of no annealing"),
        pytest.param(0.9, 0, 0.0, id="step 0 of annealing"),
        pytest.param(0.9, 10, 0.2 * (1 - 0.9**10), id="step 10 of annealing"),
    ],
)
def test_loss_adds_beta_times_the_divergence_beyond_the_free_bits_of_a_sequence(
    beta_rate, step, beta
):
    divergences = random_model()(ROLLS).kl_divergence.sort().values
    free_bits = (divergences[1] + divergences[2]).item() / 2 / math.log(2)
    model = random_model(free_bits=free_bits, max_beta=0.2, beta_rate=beta_rate)
    output = model(ROLLS, step=step)
    costs = [max(nats - free_bits * math.log(2), 0) for nats in output.kl_divergence.tolist()]
    assert costs.count(0) == 2
    expected = output.reconstruction_loss.mean().item() + beta * sum(costs) / 5
    assert output.loss.item() == pytest.approx(expected, rel=1e-6)


def test_latents_are_drawn_from_the_posterior():
    output = random_model()(random_rolls(1).expand(10_000, -1, -1))
    error_of_mean = (output.latents.mean(0) - output.mean[0]) / output.std[0]
    assert error_of_mean.abs().max() < 5 / math.sqrt(10_000)
    torch.testing.assert_close(output.latents.std(0), output.std[0], rtol=0.04, atol=0)


def test_given_latents_are_decoded_instead_of_a_draw():
    model = random_model()
    output = model(ROLLS, latents=LATENTS)
    assert output.latents is LATENTS
    assert torch.equal(output.logits, model(ROLLS, latents=LATENTS).logits)
    assert not torch.allclose(output.logits, model(ROLLS, latents=-LATENTS).logits)


def outputs_of(model: MusicVAEModel, piano_roll: torch.Tensor, timing: torch.Tensor | None) -> dict:
    return dict(model(piano_roll, timing, latents=LATENTS))


WITH_OTHER_EXPRESSION = {
    "velocity": (ROLLS.clamp(max=1), TIMING),
    "timing": (ROLLS, TIMING / 4),
}


@over(HITS_ALONE)
@pytest.mark.parametrize("drums", WITH_OTHER_EXPRESSION.values(), ids=WITH_OTHER_EXPRESSION)
def test_expression_does_not_matter_to_a_model_of_hits_alone(drums, output):
    model = random_model(**output)
    actual, expected = outputs_of(model, *drums), outputs_of(model, ROLLS, TIMING)
    torch.testing.assert_close(actual, expected, rtol=0, atol=0)


@over(EXPRESSIVE)
@pytest.mark.parametrize("changed", WITH_OTHER_EXPRESSION)
def test_expression_is_encoded_and_scored_by_a_model_of_it(changed, output):
    model = random_model(**output)
    actual, other = (
        outputs_of(model, *WITH_OTHER_EXPRESSION[changed]),
        outputs_of(model, ROLLS, TIMING),
    )
    for name in ("mean", "std", "logits", f"{changed}_loss"):
        assert not torch.allclose(actual[name], other[name]), name


@all_outputs
def test_without_timing_drums_are_on_the_grid(output):
    model = random_model(**output)
    on_grid = torch.zeros_like(TIMING)
    actual, expected = outputs_of(model, ROLLS, None), outputs_of(model, ROLLS, on_grid)
    torch.testing.assert_close(actual, expected, rtol=0, atol=0)


@both_decoders
@over(CONDITIONED_OR_NOT)
def test_every_parameter_has_a_gradient(output, decoder):
    model, piano_roll = random_model(decoder, free_bits=0, **output), random_rolls(50)
    model(piano_roll, random_timing(piano_roll)).loss.backward()
    without = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    # The conductor has no input but its state: it is a zero, as in Magenta's models.
    assert without == (["conductor.lstm.weight_ih_l0"] if decoder == "hierarchical" else [])
    assert all(parameter.grad is not None for parameter in model.parameters())


@both_decoders
@all_outputs
def test_autocast_computes_the_loss_in_float32(output, decoder):
    model = random_model(decoder, **output)
    expected = model(ROLLS, TIMING, latents=LATENTS)
    with torch.autocast("cpu", torch.bfloat16):
        actual = model(ROLLS, TIMING, latents=LATENTS)
    assert actual.logits.dtype == torch.bfloat16
    for name in set(expected) - {"logits"}:
        assert actual[name].dtype == torch.float32
        torch.testing.assert_close(actual[name], expected[name], rtol=0.05, atol=0.05)


# The structure


def changed_steps(model: MusicVAEModel, edited_steps: slice) -> set[int]:
    """The steps whose teacher-forced logits change with the hits of the edited steps."""
    edited = ROLLS.clone()
    edited[..., edited_steps] = torch.where(edited[..., edited_steps] > 0, 0, 100).to(torch.uint8)
    before, after = (model(roll, latents=LATENTS).logits for roll in (ROLLS, edited))
    return set((before != after).any(-1).any(0).nonzero().flatten().tolist())


@all_outputs
def test_of_a_bar_nothing_but_its_last_step_reaches_the_next_in_a_hierarchical_model(output):
    model, last = random_model("hierarchical", lookback_bars=0, **output), STEPS_PER_BAR - 1
    assert changed_steps(model, slice(0, last)) == set(range(1, STEPS_PER_BAR))
    next_bar = set(range(STEPS_PER_BAR, 2 * STEPS_PER_BAR))
    assert changed_steps(model, slice(last, STEPS_PER_BAR)) == next_bar


@all_outputs
def test_every_step_reaches_all_that_follow_in_a_flat_model(output):
    model = random_model("flat", **output)
    assert changed_steps(model, slice(0, STEPS_PER_BAR - 1)) == set(range(1, STEPS))
    assert changed_steps(model, slice(STEPS - 1, STEPS)) == set()


@both_decoders
@over(EXPRESSIVE)
def test_hits_that_are_conditioned_on_reach_their_own_step(output, decoder):
    model = random_model(decoder, hits_as_controls=True, **output)
    assert changed_steps(model, slice(STEPS - 1, STEPS)) == {STEPS - 1}


def test_every_bar_has_its_own_embedding():
    model = random_model()
    embeddings = model.conductor(LATENTS)
    assert embeddings.shape == (5, BARS, SIZES["conductor_hidden_size"])
    assert (embeddings.diff(dim=1).abs() > 1e-3).any(-1).all()


def assert_uniform(weight: torch.Tensor, bound: float):
    assert 0.95 * bound < weight.abs().max().item() <= bound
    assert weight.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.1)


BIG_SIZES = {
    "num_drums": 6,
    "latent_size": 32,
    "encoder_hidden_size": 40,
    "encoder_num_layers": 2,
    "conductor_hidden_size": 24,
    "decoder_hidden_size": 48,
}


def test_weights_start_after_glorot_and_like_an_embedding_for_the_previous_frame():
    torch.manual_seed(0)
    model = MusicVAEModel(MusicVAEConfig(**BIG_SIZES))
    encoder, decoder, features = model.encoder.lstm, model.decoder.lstm, 3 * 6
    binary, dense = 2**6 + features, 3 * features + 24
    for weight in (encoder.weight_ih_l0, encoder.weight_ih_l0_reverse):
        assert weight.std().item() == pytest.approx(1.0, rel=0.1)
    assert decoder.weight_ih_l0[:, :binary].std().item() == pytest.approx(1.0, rel=0.1)
    bound = math.sqrt(6 / (binary + dense + 5 * 48))
    assert_uniform(decoder.weight_ih_l0[:, binary:], bound)
    for module in model.modules():
        if isinstance(module, torch.nn.LSTM):
            size = module.hidden_size
            for weight_ih, weight_hh, bias_ih, bias_hh in module.all_weights:
                assert_uniform(weight_hh, math.sqrt(6 / (weight_ih.shape[1] + 5 * size)))
                forget = torch.zeros(4, size)
                forget[1] = 1
                assert torch.equal(bias_ih + bias_hh, forget.flatten())
            if module is not encoder:
                assert_uniform(module.weight_ih_l1, math.sqrt(6 / (6 * size)))
        elif isinstance(module, torch.nn.Linear):
            assert_uniform(module.weight, math.sqrt(6 / sum(module.weight.shape)))
            assert not module.bias.any()
    assert not model.head.expression_bias.weight.any()


def test_the_weights_of_a_nade_start_after_glorot():
    torch.manual_seed(0)
    head = MusicVAEModel(MusicVAEConfig(output="nade", **BIG_SIZES)).head
    for weight in (head.w_enc, head.w_dec):
        assert_uniform(weight, math.sqrt(6 / (6 + 128)))


# Dropout of the decoder's input


def logits_in_training(input_dropout: float, **settings) -> torch.Tensor:
    model = random_model(input_dropout=input_dropout, **settings).train()
    torch.manual_seed(0)
    return model(ROLLS, TIMING, latents=LATENTS).logits


def test_no_frame_but_those_of_the_conditioning_reaches_the_decoder_where_all_are_dropped():
    model = random_model(input_dropout=1.0).train()
    silence, silent_timing = torch.zeros_like(ROLLS), torch.zeros_like(TIMING)
    logits = model(ROLLS, TIMING, latents=LATENTS).logits
    assert torch.equal(logits, model(silence, silent_timing, latents=LATENTS).logits)


@all_outputs
def test_some_frames_are_dropped_in_training(output):
    dropped, kept, all_dropped = (logits_in_training(p, **output) for p in (0.3, 0.0, 1.0))
    assert torch.equal(dropped[:, 0], kept[:, 0])  # where there is none yet
    assert not torch.isclose(dropped, kept).all()
    assert not torch.isclose(dropped, all_dropped).all()


def test_no_frame_is_dropped_in_evaluation():
    outputs = (random_model(input_dropout=p)(ROLLS, TIMING, latents=LATENTS) for p in (0.9, 0.0))
    assert torch.equal(*(output.logits for output in outputs))


# What it makes


@both_decoders
@over({"categorical": OUTPUTS["categorical"], "hits": OUTPUTS["hits"]})
def test_greedy_drums_have_the_most_likely_hits_and_the_median_velocity_and_timing(output, decoder):
    model, latents = random_model(decoder, **output), random_latents(50)
    drums = model.decode(latents, temperature=0)
    logits = model(**drums, latents=latents).logits
    patterns = pattern_logits(logits).argmax(-1)
    assert torch.equal(patterns, patterns_of(drums.piano_roll))
    assert patterns.unique(dim=0).shape[0] > 10
    if model.config.models_expression:
        velocity, timing = (
            (each.softmax(-1).cumsum(-1) <= 0.5).sum(-1)
            for each in expression_logits(model, logits, patterns).values()
        )
        hits = from_patterns(patterns, NUM_DRUMS)
        _, velocity_bins, timing_bins = model.head.to_frames(**drums).split(
            [1, *2 * [NUM_DRUMS]], -1
        )
        assert torch.equal((velocity + 1) * hits, velocity_bins)
        assert torch.equal((timing + 1) * hits, timing_bins)


@torch.no_grad()
@both_decoders
@over(CONDITIONED_OR_NOT)
@pytest.mark.parametrize("temperature", [0, 0.5, 1.0])
def test_drums_are_drawn_from_what_a_teacher_forced_pass_over_them_gives(
    temperature, output, decoder
):
    model = random_model(decoder, **output)
    head, contexts = model.head, model._contexts(LATENTS)
    uniform = torch.rand(STEPS, 5, head.num_draws, generator=seeded(0))
    (score, conditioning), known, known_step = model.conditioning(ROLLS, TIMING), None, None
    if score is not None:
        every_drum = torch.ones(NUM_DRUMS, dtype=torch.bool)
        known = FixedDrums(head.to_frames(ROLLS, TIMING), every_drum, expression=False)
        known_step = known._replace(frames=known.frames.flatten(0, 1))
    frames = model.decoder.sample(contexts, temperature, uniform, conditioning, known)
    logits = model.decoder(contexts, frames, conditioning).flatten(0, 1)
    uniform_step = uniform.transpose(0, 1).flatten(0, 1)
    redrawn = head.sample(logits, temperature, uniform_step, known_step).view_as(frames)
    torch.testing.assert_close(redrawn, frames)
    assert frames.unique(dim=0).shape[0] == 5


@both_decoders
@over({"categorical": OUTPUTS["categorical"], "hits": OUTPUTS["hits"]})
@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_drums_are_drawn_from_the_likelihood_at_that_temperature(temperature, output, decoder):
    model, draws = random_model(decoder, **output), 4000
    latents = random_latents(1).expand(draws, -1)
    drums = model.decode(latents, temperature, generator=seeded(0))
    with torch.no_grad():
        logits = pattern_logits(model(**drums, latents=latents).logits)
    probabilities = torch.softmax(logits / temperature, -1)
    drawn = F.one_hot(patterns_of(drums.piano_roll), NUM_PATTERNS)
    # Whatever came before, a pattern is drawn as often as it is likely: the differences average 0.
    deviation = probabilities * (1 - probabilities)
    z_scores = (drawn - probabilities).sum(0) / deviation.sum(0).sqrt().clamp(min=1)
    assert z_scores.abs().max() < 5


def assert_same_drums(
    actual: MusicVAEDecoderOutput, expected: MusicVAEDecoderOutput, tolerance: int = 1
):
    """The same hits; velocities, which are rounded, may differ by a tolerance."""
    velocities, expected_velocities = actual.piano_roll.int(), expected.piano_roll.int()
    assert torch.equal(velocities > 0, expected_velocities > 0)
    assert (velocities - expected_velocities).abs().max() <= tolerance
    torch.testing.assert_close(actual.timing, expected.timing, rtol=0, atol=tolerance * 1e-4)


@both_decoders
@all_outputs
def test_greedy_drums_do_not_depend_on_the_rest_of_the_batch(output, decoder):
    model, latents = random_model(decoder, **output), random_latents(20)
    together = model.decode(latents, temperature=0)
    for index, latent in enumerate(latents):
        alone = model.decode(latent[None], temperature=0)
        assert_same_drums(
            alone,
            MusicVAEDecoderOutput(
                piano_roll=together.piano_roll[[index]], timing=together.timing[[index]]
            ),
        )


def interpolate(model: MusicVAEModel, num_points: int = 4, **how) -> MusicVAEDecoderOutput:
    (start, end), (start_timing, end_timing) = ROLLS[:2], TIMING[:2]
    timings = {"start_timing": start_timing, "end_timing": end_timing}
    return model.interpolate(start, end, num_points, **timings, **how)


MAKERS = {
    "decode": lambda model, **how: model.decode(random_latents(4).requires_grad_(), **how),
    "sample": lambda model, **how: model.sample(4, **how),
    "reconstruct": lambda model, **how: model.reconstruct(ROLLS[:4], TIMING[:4], **how),
    "interpolate": interpolate,
}
all_makers = pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)


@all_makers
@both_decoders
@pytest.mark.parametrize("name", OUTPUTS)
def test_drums_are_as_a_processor_makes_them(name, decoder, make):
    output = make(random_model(decoder, **OUTPUTS[name]), generator=seeded(0))
    assert list(output) == ["piano_roll", "timing"]
    piano_roll, timing = output.piano_roll, output.timing
    assert (piano_roll.dtype, timing.dtype) == (torch.uint8, torch.float32)
    assert piano_roll.shape == timing.shape == (4, NUM_DRUMS, STEPS)
    assert piano_roll.max() <= 127 and timing.min() >= -0.5 and timing.max() < 0.5
    assert not timing[piano_roll == 0].any()
    without_expression = name in HITS_ALONE
    assert (piano_roll.unique().tolist() == [0, 100]) == without_expression
    assert (not timing.any()) == without_expression


@all_makers
@all_outputs
def test_the_same_seed_makes_the_same_drums_and_another_seed_others(output, make):
    model = random_model(**output)
    first, again, other = (make(model, generator=seeded(n)) for n in (0, 0, 1))
    assert torch.equal(first.piano_roll, again.piano_roll)
    assert torch.equal(first.timing, again.timing)
    assert not torch.equal(first.piano_roll, other.piano_roll)


@all_makers
def test_without_a_generator_the_global_seed_decides(make):
    model = random_model()
    made = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        made.append(make(model).piano_roll)
    assert torch.equal(made[0], made[1])
    assert not torch.equal(made[0], made[2])


@all_makers
def test_making_drums_keeps_nothing_for_a_backward_pass(make):
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(kept.append, lambda kept: kept):
        make(random_model())
        assert kept == []
        random_model()(ROLLS)
        assert kept != []


def test_sampled_latents_come_from_the_prior():
    model, seen = random_model(), []
    model.conductor.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    model.sample(10_000, generator=seeded(0))
    assert seen[0].mean(0).abs().max() < 5 / math.sqrt(10_000)
    torch.testing.assert_close(seen[0].std(0), torch.ones(LATENT_SIZE), rtol=0.04, atol=0)


@all_outputs
def test_reconstruct_decodes_the_posterior_mean(output):
    model = random_model(**output)
    mean = model.encode(ROLLS, TIMING).mean
    expected = model.decode(mean, generator=seeded(0))
    assert_same_drums(model.reconstruct(ROLLS, TIMING, generator=seeded(0)), expected, tolerance=0)


@all_outputs
@pytest.mark.parametrize("num_points", [2, 5])
def test_interpolation_starts_and_ends_with_the_reconstructions(num_points, output):
    model = random_model(**output)
    made = interpolate(model, num_points, temperature=0)
    assert made.piano_roll.shape == made.timing.shape == (num_points, NUM_DRUMS, STEPS)
    ends = MusicVAEDecoderOutput(piano_roll=made.piano_roll[[0, -1]], timing=made.timing[[0, -1]])
    assert_same_drums(ends, model.reconstruct(ROLLS[:2], TIMING[:2], temperature=0))


@both_decoders
@all_outputs
def test_a_bfloat16_model_scores_and_makes_drums(output, decoder):
    model = random_model(decoder, **output).to(torch.bfloat16)
    actual = model(ROLLS, TIMING)
    assert actual.logits.dtype == torch.bfloat16
    assert {value.dtype for name, value in actual.items() if name != "logits"} == {torch.float32}
    actual.loss.backward()
    expected = model.float()(ROLLS, TIMING, latents=actual.latents)
    torch.testing.assert_close(actual.loss, expected.loss, rtol=0.02, atol=0)
    assert model.to(torch.bfloat16).sample(3).piano_roll.shape == (3, NUM_DRUMS, STEPS)


@both_decoders
@over(CONDITIONED_OR_NOT)
def test_autocast_makes_nearly_the_same_drums(output, decoder):
    model, latents = random_model(decoder, **output), random_latents(100)
    conditioning = model.conditioning(random_rolls(100))
    expected = model.decode(latents, 0, None, *conditioning)
    with torch.autocast("cpu", torch.bfloat16):
        made = model.decode(latents, 0, None, *conditioning)
    assert (made.piano_roll.dtype, made.timing.dtype) == (torch.uint8, torch.float32)
    same_hits = ((made.piano_roll > 0) == (expected.piano_roll > 0)).float().mean()
    assert same_hits > 0.9


@pytest.mark.parametrize(
    "output, decoder",
    [*((output, "hierarchical") for output in OUTPUTS), ("categorical", "flat")],
)
def test_a_batch_is_learnt_by_heart(output, decoder):
    torch.manual_seed(0)
    sizes = SIZES | {"encoder_hidden_size": 32, "conductor_hidden_size": 32, "latent_size": 16}
    sizes |= {"decoder_hidden_size": 64}
    model = MusicVAEModel(MusicVAEConfig(decoder=decoder, **sizes, **OUTPUTS[output], max_beta=0))
    piano_roll = random_rolls(8)
    timing = random_timing(piano_roll)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(120):
        optimizer.zero_grad()
        losses = model(piano_roll, timing)
        losses.loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    assert losses.hits_loss.max() < 0.5  # of 15 steps; guessing costs 15 ln 16 = 42
    made = model.reconstruct(piano_roll, timing, temperature=0)
    assert torch.equal(made.piano_roll > 0, piano_roll > 0)
    if model.config.models_expression:
        assert (made.piano_roll.float() - piano_roll.float()).abs().mean() < 3
        assert (made.timing - timing).abs().mean() < 0.02


# What it refuses


WRONG_ROLLS = {
    "float": ROLLS.float(),
    "bool": ROLLS > 0,
    "no batch": ROLLS[0],
    "drums": random_rolls(num_drums=NUM_DRUMS + 1),
    "steps": random_rolls(steps=STEPS + 1),
    "transposed": ROLLS.transpose(1, 2),
}


@pytest.mark.parametrize("method", ["forward", "encode", "reconstruct"])
@pytest.mark.parametrize("piano_roll", WRONG_ROLLS.values(), ids=WRONG_ROLLS)
def test_a_wrong_piano_roll_is_refused(method, piano_roll):
    found = re.escape(f"piano_roll: found {piano_roll.dtype} {tuple(piano_roll.shape)}, expected")
    with pytest.raises(ValueError, match=found):
        getattr(random_model(), method)(piano_roll)


WRONG_TIMINGS = {
    "float64": TIMING.double(),
    "int": TIMING.int(),
    "no batch": TIMING[0],
    "other batch": TIMING[:4],
    "transposed": TIMING.transpose(1, 2),
}


@pytest.mark.parametrize("method", ["forward", "encode", "reconstruct"])
@pytest.mark.parametrize("timing", WRONG_TIMINGS.values(), ids=WRONG_TIMINGS)
def test_a_wrong_timing_is_refused(method, timing):
    found = re.escape(f"timing: found {timing.dtype} {tuple(timing.shape)}, expected")
    with pytest.raises(ValueError, match=found):
        getattr(random_model(), method)(ROLLS, timing)


@pytest.mark.parametrize("method", ["forward", "encode", "conditioning", "reconstruct"])
@pytest.mark.parametrize("invalid", [math.nan, math.inf, -0.51, 0.5])
def test_a_timing_that_is_out_of_range_is_refused(invalid, method):
    timing = TIMING.clone()
    timing[3, 2, 1] = invalid
    found = re.escape(f"piano_roll's timing: found {torch.tensor(invalid)}, expected -0.5 to 0.5")
    with pytest.raises(ValueError, match=found):
        getattr(random_model(), method)(ROLLS, timing)


def test_the_earliest_timing_is_allowed():
    assert random_model()(ROLLS, torch.full(TIMING.shape, -0.5)).loss.isfinite()


WRONG_ENDS = {
    "float": ROLLS[0].float(),
    "batch": ROLLS,
    "drums": random_rolls(num_drums=NUM_DRUMS + 1)[0],
    "steps": random_rolls(steps=STEPS + 1)[0],
}


@pytest.mark.parametrize("wrong", WRONG_ENDS.values(), ids=WRONG_ENDS)
@pytest.mark.parametrize("name", ["start", "end"])
def test_a_wrong_end_of_an_interpolation_is_refused(name, wrong):
    ends = dict(zip(("start", "end"), random_rolls(2), strict=True)) | {name: wrong}
    found = re.escape(f"{name}: found {wrong.dtype} {tuple(wrong.shape)}, expected")
    with pytest.raises(ValueError, match=found):
        random_model().interpolate(**ends, num_points=3)


@pytest.mark.parametrize("name", ["start", "end"])
def test_a_wrong_timing_of_an_end_is_refused(name):
    wrong = TIMING[0, :, :-1]
    found = re.escape(f"{name}'s timing: found {wrong.dtype} ({NUM_DRUMS}, {STEPS - 1}), expected")
    with pytest.raises(ValueError, match=found):
        random_model().interpolate(*ROLLS[:2], num_points=3, **{f"{name}_timing": wrong})


WRONG_LATENTS = {
    "width": torch.zeros(5, LATENT_SIZE + 1),
    "no batch": torch.zeros(LATENT_SIZE),
    "three axes": torch.zeros(5, 1, LATENT_SIZE),
}


@both_decoders
@pytest.mark.parametrize("latents", WRONG_LATENTS.values(), ids=WRONG_LATENTS)
def test_latents_of_a_wrong_shape_are_refused(latents, decoder):
    model = random_model(decoder)
    found = re.escape(f"latents: found shape {tuple(latents.shape)}, expected")
    with pytest.raises(ValueError, match=found):
        model.decode(latents)
    with pytest.raises(ValueError, match=found):
        model(ROLLS, latents=latents)


@both_decoders
def test_a_latent_for_each_piano_roll_is_asked_for(decoder):
    with pytest.raises(ValueError, match=rf"latents: found shape \(1, {LATENT_SIZE}\), expected"):
        random_model(decoder)(random_rolls(5), latents=random_latents(1))


@all_makers
@pytest.mark.parametrize("temperature", [-1.0, -1e-9, math.nan, math.inf])
def test_invalid_temperature_raises(make, temperature):
    with pytest.raises(ValueError, match=f"temperature: found {temperature}"):
        make(random_model(), temperature=temperature)


@pytest.mark.parametrize("num_samples", [0, -1])
def test_a_number_of_samples_below_one_is_refused(num_samples):
    with pytest.raises(ValueError, match=f"num_samples: found {num_samples}"):
        random_model().sample(num_samples)


@pytest.mark.parametrize("num_points", [1, 0])
def test_an_interpolation_without_two_ends_is_refused(num_points):
    with pytest.raises(ValueError, match=f"num_points: found {num_points}"):
        random_model().interpolate(*random_rolls(2), num_points=num_points)


# How it is kept


@both_dtypes
@both_decoders
@all_outputs
def test_a_saved_model_loads_bit_for_bit(output, decoder, dtype, tmp_path):
    model = random_model(decoder, **output).to(dtype)
    model.save_pretrained(tmp_path)
    for loader in (MusicVAEModel, AutoModel):
        loaded = loader.from_pretrained(tmp_path)
        assert type(loaded) is MusicVAEModel
        assert loaded.dtype == dtype
        torch.testing.assert_close(loaded.state_dict(), model.state_dict(), rtol=0, atol=0)
        made, expected = (m.sample(4, generator=seeded(0)) for m in (loaded, model))
        assert_same_drums(made, expected, tolerance=0)


@all_outputs
def test_whatever_a_model_holds_is_saved(output):
    model = random_model(**output)
    held = dict(model.named_parameters()) | dict(model.named_buffers())
    assert set(held) == set(model.state_dict())


STRANGER = """
import sys

import numpy as np
import torch


class NotInstalled:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("modeling_musicvae", "processing"):
            raise ModuleNotFoundError(name)


sys.meta_path.insert(0, NotInstalled())

from transformers import AutoConfig, AutoModel, AutoProcessor

folder = sys.argv[1]
config = AutoConfig.from_pretrained(folder, trust_remote_code=True)
model = AutoModel.from_pretrained(folder, trust_remote_code=True)
processor = AutoProcessor.from_pretrained(folder, trust_remote_code=True)
for loaded in (config, model, processor):
    assert type(loaded).__module__.startswith("transformers_modules."), type(loaded)
assert type(config) is type(model.config)
drums = model.sample(4, generator=torch.Generator().manual_seed(0))
assert processor.bars == config.bars
np.savez(sys.argv[2], **{name: value.numpy() for name, value in drums.items()})
"""


def test_an_exported_folder_loads_and_samples_where_nothing_of_ours_is_installed(tmp_path):
    folder = tmp_path / "exported-model"
    model = random_model()
    model.save_pretrained(folder)
    MusicVAEProcessor(bars=BARS, steps_per_bar=STEPS_PER_BAR).save_pretrained(folder)
    script, made = tmp_path / "stranger.py", tmp_path / "made.npz"
    script.write_text(STRANGER)
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "huggingface")}
    command = [sys.executable, "-I", script, folder, made]
    run = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    expected = model.sample(4, generator=seeded(0))
    with np.load(made) as drums:
        assert list(drums) == list(expected)
        assert all(np.array_equal(drums[name], expected[name].numpy()) for name in expected)
