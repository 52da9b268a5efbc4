"""The verbs of a model: what each keeps, what matters to it, and which model it asks for."""

import re
from collections.abc import Callable

import pytest
import torch
from factories import (
    CONDITIONED,
    EXPRESSIVE,
    HITS_ALONE,
    LATENTS,
    NUM_DRUMS,
    NUM_PATTERNS,
    ON_ENCODER,
    ON_HITS,
    OUTPUTS,
    ROLLS,
    STEPS,
    TIMING,
    all_outputs,
    both_decoders,
    over,
    pattern_logits,
    random_model,
    seeded,
)

from modeling_musicvae import generation_musicvae
from modeling_musicvae.consensus import LEAST_DRAWS, NUM_DRAWS, TEMPERATURE, FixedDraws
from modeling_musicvae.drum_patterns import to_hits, to_patterns
from modeling_musicvae.drum_transforms import apply_input_transform
from modeling_musicvae.generation_musicvae import MusicVAEDecoderOutput

SCORE = ROLLS.flip(0, 2)  # other hits
KEPT, REMOVED = [0, 3], [1, 2]
TRANSFORMS = {
    "humanize": {"input_transform": "humanize"},
    "tap": {"input_transform": "tap"},
    "tap_fixed_velocity": {"input_transform": "tap_fixed_velocity"},
    "remove_drums": {"input_transform": "remove_drums", "removed_drums": REMOVED},
}
# Models that make the hits of a score, whether they are conditioned on them or not.
WITH_SCORES = OUTPUTS | ON_HITS
# Each verb: the settings of the models that it asks for, and a use of it.
Verb = Callable[..., MusicVAEDecoderOutput]
VERBS: dict[str, tuple[dict, Verb]] = {
    "reconstruct": ({}, lambda model, **how: model.reconstruct(ROLLS, TIMING, **how)),
    "humanize": (
        TRANSFORMS["humanize"],
        lambda model, **how: model.humanize(ROLLS, **how),
    ),
    "tap_to_drums": (
        TRANSFORMS["tap"],
        lambda model, **how: model.tap_to_drums(ROLLS, TIMING, **how),
    ),
    "tap_to_drums, conditioned on taps": (
        TRANSFORMS["tap"] | {"input_as_controls": True},
        lambda model, **how: model.tap_to_drums(ROLLS, TIMING, **how),
    ),
    "add_drums": (
        TRANSFORMS["remove_drums"],
        lambda model, **how: model.add_drums(ROLLS, TIMING, **how),
    ),
    "add_drums, conditioned on the others": (
        TRANSFORMS["remove_drums"] | {"input_as_controls": True},
        lambda model, **how: model.add_drums(ROLLS, TIMING, **how),
    ),
    "humanize, conditioned on what is read": (
        TRANSFORMS["humanize"] | {"input_as_controls": True, "encoder_conditioning_size": 5},
        lambda model, **how: model.humanize(ROLLS, **how),
    ),
    "add_drums, conditioned on the encoder": (
        TRANSFORMS["remove_drums"] | {"encoder_conditioning_size": 5},
        lambda model, **how: model.add_drums(ROLLS, TIMING, **how),
    ),
    "transfer_groove": (
        {},
        lambda model, **how: model.transfer_groove(SCORE, ROLLS, TIMING, **how),
    ),
}
all_verbs = pytest.mark.parametrize("settings, verb", VERBS.values(), ids=VERBS)


def hits_of(drums: MusicVAEDecoderOutput) -> torch.Tensor:
    return drums.piano_roll > 0


def method_of(name: str) -> str:
    """The verb itself, without what is said of the model."""
    return name.split(",")[0]


def equal(drums: MusicVAEDecoderOutput, others: MusicVAEDecoderOutput) -> bool:
    return all(torch.equal(drums[name], others[name]) for name in ("piano_roll", "timing"))


# All verbs


@all_verbs
@both_decoders
@all_outputs
def test_a_verb_makes_drums_as_a_processor_makes_them(output, decoder, settings, verb):
    drums = verb(random_model(decoder, **settings, **output), generator=seeded(0))
    assert (drums.piano_roll.dtype, drums.timing.dtype) == (torch.uint8, torch.float32)
    assert drums.piano_roll.shape == drums.timing.shape == (5, NUM_DRUMS, STEPS)
    assert drums.piano_roll.max() <= 127
    assert drums.timing.min() >= -0.5 and drums.timing.max() < 0.5
    assert not drums.timing[drums.piano_roll == 0].any()


@all_verbs
def test_a_seed_decides_what_a_verb_makes(settings, verb):
    model = random_model(**settings)
    first, again, other = (verb(model, generator=seeded(seed)) for seed in (0, 0, 1))
    assert equal(first, again)
    assert not equal(first, other)


@all_verbs
@all_outputs
def test_nothing_is_left_to_chance_at_temperature_0(output, settings, verb):
    model = random_model(**settings, **output)
    drums = [verb(model, temperature=0, generator=seeded(seed)) for seed in (0, 1)]
    assert equal(*drums)


TAP_TO_DRUMS = VERBS["tap_to_drums"][1]


def test_both_kinds_of_taps_become_drums():
    assert hits_of(TAP_TO_DRUMS(random_model(input_transform="tap_fixed_velocity"))).any()


WRONG_MODELS = [
    (name, transform)
    for name, (settings, _) in VERBS.items()
    for transform in ["none", *TRANSFORMS]
    if transform != settings.get("input_transform", "none")
    and (method_of(name), transform) != ("tap_to_drums", "tap_fixed_velocity")
]


@pytest.mark.parametrize("name, transform", WRONG_MODELS)
def test_a_verb_refuses_a_model_that_was_trained_for_another(name, transform):
    settings, verb = VERBS[name]
    message = (
        f"{method_of(name)}: found a model trained with input_transform '{transform}', expected "
        f"'{settings.get('input_transform', 'none')}'"
    )
    with pytest.raises(ValueError, match=message):
        verb(random_model(input_transform=transform))


def test_arrays_are_taken_as_tensors_are():
    model = random_model()
    drums, of_arrays = (
        model.reconstruct(*given, generator=seeded(0))
        for given in ((ROLLS, TIMING), (ROLLS.numpy(), TIMING.numpy()))
    )
    assert torch.equal(drums.piano_roll, of_arrays.piano_roll)
    assert torch.equal(drums.timing, of_arrays.timing)


@pytest.mark.parametrize("name", VERBS)
def test_a_verb_names_the_drums_that_have_a_wrong_shape(name):
    model, wrong = random_model(**VERBS[name][0]), ROLLS[:, :, :-1]
    arguments = [SCORE, wrong] if name == "transfer_groove" else [wrong]
    found = re.escape(f"piano_roll: found torch.uint8 {tuple(wrong.shape)}, expected")
    with pytest.raises(ValueError, match=found):
        getattr(model, method_of(name))(*arguments)


@pytest.mark.parametrize("name", [name for name in VERBS if method_of(name) != "humanize"])
def test_a_verb_names_a_timing_that_has_a_wrong_shape(name):
    model, wrong = random_model(**VERBS[name][0]), TIMING[:, :, :-1]
    arguments = [SCORE, ROLLS] if name == "transfer_groove" else [ROLLS]
    found = re.escape(f"timing: found torch.float32 {tuple(wrong.shape)}, expected")
    with pytest.raises(ValueError, match=found):
        getattr(model, method_of(name))(*arguments, timing=wrong)


# A score


USES_OF_A_SCORE: dict[str, tuple[dict, Callable]] = {
    "decode": ({}, lambda model, score: model.decode(LATENTS, score=score)),
    "sample": ({}, lambda model, score: model.sample(5, score=score)),
    "transfer_groove": ({}, lambda model, score: model.transfer_groove(score, ROLLS, TIMING)),
    "humanize": (TRANSFORMS["humanize"], lambda model, score: model.humanize(score)),
}
with_a_score = pytest.mark.parametrize(
    "settings, play", USES_OF_A_SCORE.values(), ids=USES_OF_A_SCORE
)


@with_a_score
@both_decoders
@over(WITH_SCORES)
def test_hits_of_a_score_come_out_exactly(output, decoder, settings, play):
    drums = play(random_model(decoder, **settings, **output), SCORE)
    assert torch.equal(hits_of(drums), SCORE > 0)


@with_a_score
@over(WITH_SCORES)
def test_velocities_of_a_score_are_not_read(output, settings, play):
    model, made = random_model(**settings, **output), []
    for score in (SCORE, SCORE.clamp(max=1)):
        torch.manual_seed(0)
        made.append(play(model, score))
    assert equal(*made)


@over(EXPRESSIVE)
def test_the_expression_of_a_score_is_that_of_its_hits(output):
    model = random_model(**output)
    drums, fewer = (
        model.decode(LATENTS, temperature=0, score=score)
        for score in (SCORE, SCORE * torch.tensor([1, 0, 1, 1], dtype=torch.uint8)[:, None])
    )
    both = hits_of(fewer)
    assert (drums.piano_roll[both] != fewer.piano_roll[both]).any()


def test_a_wrong_score_is_refused():
    wrong, model = SCORE[:, :-1], random_model()
    found = re.escape(f"score: found torch.uint8 {tuple(wrong.shape)}, expected")
    for play in (
        lambda: model.decode(LATENTS, score=wrong),
        lambda: model.sample(5, score=wrong),
        lambda: model.transfer_groove(wrong, ROLLS),
    ):
        with pytest.raises(ValueError, match=found):
            play()


@pytest.mark.parametrize(
    "play",
    [
        lambda model: model.decode(LATENTS, score=SCORE[:3]),
        lambda model: model.sample(5, score=SCORE[:3]),
        lambda model: model.transfer_groove(SCORE[:3], ROLLS, TIMING),
    ],
    ids=["decode", "sample", "transfer_groove"],
)
def test_a_score_for_all_that_is_made_is_asked_for(play):
    with pytest.raises(ValueError, match="score: found a batch of 3, expected 5"):
        play(random_model())


# Conditioning


@both_decoders
@over(ON_HITS)
def test_hits_that_are_given_cost_nothing(output, decoder):
    losses = random_model(decoder, **output)(ROLLS, TIMING)
    assert losses.hits_loss is None
    torch.testing.assert_close(
        losses.reconstruction_loss, losses.velocity_loss + losses.timing_loss
    )


@pytest.mark.parametrize(
    "play",
    [lambda model: model.decode(LATENTS), lambda model: model.sample(5)],
    ids=["decode", "sample"],
)
@over(CONDITIONED)
def test_a_model_asks_for_what_it_is_conditioned_on(play, output):
    message = "conditioning: found none, expected what the model's method conditioning returns"
    if "hits_as_controls" in output:
        message = "score: found none, expected the hits that this model, trained with hits_as_con"
    with pytest.raises(ValueError, match=message):
        play(random_model(**output))


@over(CONDITIONED)
def test_the_conditioning_decides_what_the_same_latents_become(output):
    model = random_model(**output)
    drums = [
        model.decode(LATENTS, 0, None, *model.conditioning(*others))
        for others in ((ROLLS, TIMING), (ROLLS.flip(2), TIMING.flip(2)))
    ]
    assert not equal(*drums)


@over(CONDITIONED)
def test_forward_and_decode_have_the_same_conditioning(output):
    """Greedy hits are those that are most likely where they are the previous frames."""
    model = random_model(**output)
    score, conditioning = model.conditioning(ROLLS, TIMING)
    frames = model.head.to_frames(ROLLS, TIMING)
    logits = model.decoder(model._contexts(LATENTS), frames, conditioning)
    assert torch.equal(model(ROLLS, TIMING, latents=LATENTS).logits, logits)
    assert (score is ROLLS) == model.config.hits_as_controls


@over(ON_HITS)
def test_the_score_is_condition_enough_where_its_hits_are_all(output):
    model = random_model(**output)
    expected = model.decode(LATENTS, 0, None, *model.conditioning(SCORE))
    assert equal(model.decode(LATENTS, 0, score=SCORE), expected)


@all_outputs
def test_a_model_that_is_conditioned_on_nothing_takes_nothing_from_drums(output):
    assert random_model(**output).conditioning(ROLLS, TIMING) == (None, None)


@over(ON_ENCODER)
def test_a_conditioned_step_sees_what_follows_it(output):
    """The encoder is bidirectional: its output at a step knows all steps."""
    model, last_step = random_model(**output), torch.tensor([STEPS - 1])
    others = (ROLLS.index_fill(2, last_step, velocity) for velocity in (0, 100))
    first, second = (model.conditioning(each)[1][:, 0] for each in others)
    assert not torch.isclose(first, second).all(-1).any()


def test_conditioning_for_another_number_of_latents_is_refused():
    model = random_model(**TRANSFORMS["tap"], input_as_controls=True)
    conditioning = model.conditioning(ROLLS[:3], TIMING[:3])
    with pytest.raises(ValueError, match="conditioning: found a batch of 3, expected 5"):
        model.decode(LATENTS, 1.0, None, *conditioning)


# The encoder's input


TAPS = ROLLS * (torch.arange(NUM_DRUMS)[:, None] == torch.arange(STEPS) % NUM_DRUMS)
TAPS_TIMING = TIMING * (TAPS > 0)
SAME_INPUT = {
    "humanize": (TAPS.clamp(max=1), -TAPS_TIMING / 2),
    "tap": (TAPS.flip(1), TAPS_TIMING.flip(1)),
    "tap_fixed_velocity": (TAPS.flip(1).clamp(max=1), TAPS_TIMING.flip(1)),
    "remove_drums": (
        TAPS.index_fill(1, torch.tensor(REMOVED), 90),
        TAPS_TIMING.index_fill(1, torch.tensor(REMOVED), 0.25),
    ),
}


@all_outputs
@pytest.mark.parametrize("transform", TRANSFORMS)
def test_what_an_input_transform_takes_away_is_not_encoded(transform, output):
    model = random_model(**TRANSFORMS[transform], **output)
    posteriors = [model.encode(*drums) for drums in ((TAPS, TAPS_TIMING), SAME_INPUT[transform])]
    torch.testing.assert_close(*posteriors, rtol=0, atol=0)


@over(EXPRESSIVE)
@pytest.mark.parametrize("transform", TRANSFORMS)
def test_a_model_without_input_transform_encodes_all(transform, output):
    model = random_model(**output)
    mean, other = (
        model.encode(*drums).mean for drums in ((TAPS, TAPS_TIMING), SAME_INPUT[transform])
    )
    assert not torch.isclose(mean, other).all(1).any()


STILL_ENCODED = {
    "humanize": ("humanize", (TAPS.flip(1), TAPS_TIMING)),
    "tap: velocity": ("tap", (TAPS.clamp(max=1), TAPS_TIMING)),
    "tap: timing": ("tap", (TAPS, -TAPS_TIMING)),
    "tap_fixed_velocity: timing": ("tap_fixed_velocity", (TAPS, -TAPS_TIMING)),
    "remove_drums: velocity": ("remove_drums", (TAPS.clamp(max=1), TAPS_TIMING)),
    "remove_drums: timing": ("remove_drums", (TAPS, -TAPS_TIMING)),
}


@over(EXPRESSIVE)
@pytest.mark.parametrize("transform, drums", STILL_ENCODED.values(), ids=STILL_ENCODED)
def test_what_an_input_transform_leaves_is_encoded(transform, drums, output):
    model = random_model(**TRANSFORMS[transform], **output)
    mean, other = (model.encode(*each).mean for each in ((TAPS, TAPS_TIMING), drums))
    assert not torch.isclose(mean, other).all(1).any()


@both_decoders
@all_outputs
@pytest.mark.parametrize("transform", TRANSFORMS)
def test_transformed_drums_are_encoded_and_the_given_ones_scored(transform, output, decoder):
    model = random_model(decoder, **TRANSFORMS[transform], **output)
    actual = model(ROLLS, TIMING, latents=LATENTS)
    encoded = model.encode(*apply_input_transform(model.config, ROLLS, TIMING))
    torch.testing.assert_close((actual.mean, actual.std), encoded.to_tuple(), rtol=0, atol=0)
    scored = random_model(decoder, **output)(ROLLS, TIMING, latents=LATENTS)
    for name in ("logits", "reconstruction_loss"):
        assert torch.equal(actual[name], scored[name])


def test_hits_are_dropped_in_training_only():
    model, whole = random_model(encoder_hit_dropout=1.0), random_model()
    expected, scored = whole.encode(ROLLS, TIMING).mean, whole(ROLLS, TIMING, latents=LATENTS)
    assert torch.equal(model.encode(ROLLS, TIMING).mean, expected)
    model.train()
    torch.manual_seed(2)  # with which every sequence loses some
    means = [model.encode(ROLLS, TIMING).mean for _ in range(2)]
    assert not torch.isclose(means[0], expected).all(1).any()
    assert not torch.isclose(*means).all(1).any()
    actual = model(ROLLS, TIMING, latents=LATENTS)
    assert torch.equal(actual.reconstruction_loss, scored.reconstruction_loss)


# Humanize


@over(WITH_SCORES)
def test_humanize_decodes_the_posterior_mean_of_the_score(output):
    model = random_model(**TRANSFORMS["humanize"], **output)
    expected = model.decode(model.encode(SCORE).mean, generator=seeded(0), score=SCORE)
    assert equal(model.humanize(SCORE, generator=seeded(0)), expected)


@over(EXPRESSIVE)
def test_humanize_gives_the_hits_velocity_and_timing(output):
    drums = random_model(**TRANSFORMS["humanize"], **output).humanize(SCORE)
    assert len(drums.piano_roll[SCORE > 0].unique()) > 5
    assert len(drums.timing[SCORE > 0].unique()) > 5


# Tap to drums


@all_outputs
def test_tap_to_drums_makes_the_hits_of_the_posterior_mean(output):
    model = random_model(**TRANSFORMS["tap"], **output)
    drums = model.tap_to_drums(ROLLS, TIMING, generator=seeded(0))
    decoded = model.decode(model.encode(ROLLS, TIMING).mean, generator=seeded(0))
    assert torch.equal(drums.piano_roll > 0, decoded.piano_roll > 0)


@pytest.mark.parametrize("transform", ["tap", "tap_fixed_velocity"])
@over(EXPRESSIVE)
def test_tapped_drums_have_the_velocity_and_the_timing_of_their_taps(output, transform):
    """Tapped again they are the taps."""
    model = random_model(**TRANSFORMS[transform], **output)
    drums = model.tap_to_drums(ROLLS, TIMING, generator=seeded(0))
    made, taps = (
        apply_input_transform(model.config, *each)
        for each in ((drums.piano_roll, drums.timing), (ROLLS, TIMING))
    )
    both = (made[0] > 0) & (taps[0] > 0)
    assert both.any()
    for mine, given in zip(made, taps, strict=True):
        assert torch.equal(mine[both], given[both])


@over(HITS_ALONE)
def test_drums_without_velocity_stay_without_it(output):
    drums = random_model(**TRANSFORMS["tap"], **output).tap_to_drums(ROLLS, TIMING)
    assert len(drums.piano_roll.unique()) == 2
    assert not drums.timing.any()


@all_outputs
def test_tap_to_drums_does_not_depend_on_what_is_tapped_on(output):
    model = random_model(**TRANSFORMS["tap"], **output)
    drums, others = (
        model.tap_to_drums(*taps, generator=seeded(0))
        for taps in ((TAPS, TAPS_TIMING), (TAPS.flip(1), TAPS_TIMING.flip(1)))
    )
    assert equal(drums, others)


@pytest.mark.parametrize("conditioned", [False, True], ids=["unconditioned", "conditioned"])
@all_outputs
def test_greedy_drums_for_taps_have_the_hits_that_draws_agree_on(output, conditioned, monkeypatch):
    monkeypatch.setattr(generation_musicvae, "MAX_WINDOWS", 2)
    model = random_model(**TRANSFORMS["tap"], input_as_controls=conditioned, **output)
    latents, (_, conditioning) = model.encode(ROLLS).mean, model.conditioning(ROLLS)
    if conditioned:
        conditioning = conditioning.repeat_interleave(NUM_DRAWS, 0)
    draws = model.decode(
        latents.repeat_interleave(NUM_DRAWS, 0),
        TEMPERATURE,
        FixedDraws(),
        conditioning=conditioning,
    )
    windows = draws.piano_roll.split(NUM_DRAWS)
    expected = torch.stack([(window > 0).sum(0) >= LEAST_DRAWS for window in windows])
    assert expected.any() and not expected.all()
    assert torch.equal(model.tap_to_drums(ROLLS, temperature=0).piano_roll > 0, expected)


def test_greedy_drums_for_taps_do_not_depend_on_their_place():
    model = random_model(**TRANSFORMS["tap"])
    rolls, timing = ROLLS[[3, 0, 1, 3]], TIMING[[3, 0, 1, 3]]
    drums = model.tap_to_drums(rolls, timing, temperature=0)
    alone = model.tap_to_drums(rolls[:1], timing[:1], temperature=0)
    for made, expected in zip(drums.to_tuple(), alone.to_tuple(), strict=True):
        assert torch.equal(made[0], expected[0])
        assert torch.equal(made[3], expected[0])


# Add drums


adder = TRANSFORMS["remove_drums"]


@both_decoders
@all_outputs
def test_add_drums_keeps_all_other_drums_as_they_are_given(output, decoder):
    added = random_model(decoder, **adder, **output).add_drums(ROLLS, TIMING)
    assert torch.equal(added.piano_roll[:, KEPT], ROLLS[:, KEPT])
    assert torch.equal(added.timing[:, KEPT], TIMING[:, KEPT])
    assert not torch.equal(added.piano_roll[:, REMOVED] > 0, ROLLS[:, REMOVED] > 0)
    assert hits_of(added)[:, REMOVED].any((0, 2)).all()


@both_decoders
@all_outputs
def test_add_drums_does_not_read_what_it_adds(output, decoder):
    model, removed = random_model(decoder, **adder, **output), torch.tensor(REMOVED)
    filled = ROLLS.index_fill(1, removed, 90), TIMING.index_fill(1, removed, 0.25)
    empty = ROLLS.index_fill(1, removed, 0), TIMING.index_fill(1, removed, 0)
    made = [
        model.add_drums(*drums, generator=seeded(0)) for drums in ((ROLLS, TIMING), filled, empty)
    ]
    assert equal(made[0], made[1]) and equal(made[0], made[2])


@both_decoders
@over({"categorical": OUTPUTS["categorical"], "hits": OUTPUTS["hits"]})
def test_added_drums_are_the_most_likely_next_to_the_others_at_each_step(output, decoder):
    model = random_model(decoder, **adder, **output)
    added = model.add_drums(ROLLS, TIMING, temperature=0)
    latents = model.encode(ROLLS, TIMING).mean
    logits = pattern_logits(model(**added, latents=latents).logits)
    kept_bits = sum(2**drum for drum in KEPT)
    given = to_patterns(to_hits(ROLLS))[..., None] & kept_bits
    possible = (torch.arange(NUM_PATTERNS) & kept_bits) == given
    expected = logits.where(possible, -torch.inf).argmax(-1)
    assert torch.equal(to_patterns(to_hits(added.piano_roll)), expected)


# Transfer groove


@over(EXPRESSIVE)
def test_transfer_groove_takes_velocity_and_timing_from_the_groove(output):
    model, softer = random_model(**output), ROLLS.clamp(max=20)
    drums, others = (
        model.transfer_groove(SCORE, *groove, temperature=0)
        for groove in ((ROLLS, TIMING), (softer, TIMING))
    )
    assert not torch.equal(drums.piano_roll, others.piano_roll)
    later = model.transfer_groove(SCORE, ROLLS, TIMING / 4, temperature=0)
    assert not torch.equal(drums.timing, later.timing)


@over(WITH_SCORES)
def test_one_groove_is_transferred_to_many_scores(output):
    model = random_model(**output)
    drums = model.transfer_groove(SCORE, ROLLS[:1], TIMING[:1], generator=seeded(0))
    repeated = ROLLS[:1].expand(5, -1, -1), TIMING[:1].expand(5, -1, -1)
    expected = model.transfer_groove(SCORE, *repeated, generator=seeded(0))
    assert torch.equal(hits_of(drums), hits_of(expected))
    torch.testing.assert_close(drums.timing, expected.timing, rtol=0, atol=1e-4)


# Interpolate


@over(EXPRESSIVE)
@pytest.mark.parametrize("name", ["start_timing", "end_timing"])
def test_interpolate_reads_the_timing_of_its_ends(name, output):
    model = random_model(**output)
    on_grid = model.interpolate(*ROLLS[:2], num_points=3, temperature=0)
    played = model.interpolate(*ROLLS[:2], num_points=3, temperature=0, **{name: TIMING[0]})
    changed = ((on_grid.timing - played.timing).abs() > 1e-4).flatten(1).any(1).tolist()
    assert changed == ([True, True, False] if name == "start_timing" else [False, True, True])
