"""Output heads: likelihoods that sum to one, draws that follow them, and the decoder's input."""

from copy import deepcopy
from itertools import product
from math import exp, log, log1p, tanh

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from modeling_musicvae import MusicVAEConfig
from modeling_musicvae.output_heads import (
    OUTPUT_HEADS,
    CategoricalHead,
    FixedDrums,
    GrooveHead,
    NADEHead,
    OutputHead,
    sample_classes,
    sample_hits,
)

repeatable = settings(derandomize=True, deadline=None, max_examples=50)
seeds = st.integers(0, 2**32)
IN_BFLOAT16 = {"rtol": 2**-5, "atol": 2**-5}
ALMOST_ONE = 1 - 2**-24  # the largest float32 below 1

PLAIN = {
    "velocity and timing": {"velocity_bins": 2, "timing_bins": 3, "hit_features": False},
    "velocity": {"velocity_bins": 2, "timing_bins": 0, "hit_features": False},
    "timing": {"velocity_bins": 0, "timing_bins": 3, "hit_features": False},
    "hits": {"velocity_bins": 0, "timing_bins": 0, "hit_features": False},
}
CATEGORICAL = PLAIN | {
    f"{name}, with hit features": PLAIN[name] | {"hit_features": True}
    for name in ("velocity and timing", "hits")
}
EXPRESSIVE = {name: fields for name, fields in CATEGORICAL.items() if not name.startswith("hits")}
OTHERS = {"groove": {"output": "groove"}, "nade": {"output": "nade"}}


def each(heads: dict[str, dict]):
    return pytest.mark.parametrize("fields", heads.values(), ids=heads)


categorical_heads, all_heads = each(CATEGORICAL), each(CATEGORICAL | OTHERS)

Drums = tuple[torch.Tensor, torch.Tensor]


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def random_head(fields: dict, num_drums: int = 3) -> OutputHead:
    """A head with random parameters, of a small NADE unless the fields say otherwise."""
    config = MusicVAEConfig(**{"num_drums": num_drums, "nade_hidden_size": 5} | fields)
    head = OUTPUT_HEADS[config.output](config)
    generator = seeded(1)
    for parameter in head.parameters():
        torch.nn.init.normal_(parameter, generator=generator)
    return head.requires_grad_(False)


def random_logits(head: OutputHead, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, head.logits_size, generator=seeded(2))


def random_drums(num_drums: int = 3, shape: tuple[int, int] = (4, 50), seed: int = 3) -> Drums:
    generator, shape = seeded(seed), (shape[0], num_drums, shape[1])
    hits = torch.rand(shape, generator=generator) < 0.4
    velocities = torch.randint(1, 128, shape, generator=generator)
    timing = torch.rand(shape, generator=generator) - 0.5
    return (velocities * hits).to(torch.uint8), timing * hits


def every_frame(head: OutputHead) -> torch.Tensor:
    """(1, frames, frame_size): each drum silent, or hit in each way that the head tells apart."""
    ways = [(0, 0.0)]
    bins = getattr(head, "bins", {})
    velocities = (32, 96) if "velocity" in bins else (100,)
    timings = (-0.3, 0.0, 0.3) if "timing" in bins else (0.0,)
    ways += product(velocities, timings)
    steps = torch.tensor(list(product(ways, repeat=head.num_drums)))  # (steps, drums, 2)
    piano_roll, timing = steps.permute(2, 1, 0)[:, None]
    frames = head.to_frames(piano_roll.to(torch.uint8), timing)
    assert len(frames[0].unique(dim=0)) == len(ways) ** head.num_drums
    return frames


def probabilities(head: OutputHead, logits: torch.Tensor, frames: torch.Tensor) -> torch.Tensor:
    """float64 (frames,) of frames (1, frames, frame_size) given the same logits (logits_size).

    Groove's velocities and offsets are numbers, which have none: its hits alone are counted.
    """
    terms = head.log_likelihood(logits.expand(*frames.shape[:2], -1), frames)[0].double()
    return (terms[:, 0] if isinstance(head, GrooveHead) else terms.sum(-1)).exp()


def draws(head: OutputHead, logits: torch.Tensor, temperature=1.0, known=None) -> torch.Tensor:
    count = 40_000
    uniform = torch.rand(count, head.num_draws, generator=seeded(4))
    if known is not None:
        known = known._replace(frames=known.frames.expand(count, -1))
    return head.sample(logits.expand(count, -1), temperature, uniform, known)


def assert_as_often_as(frames: torch.Tensor, drawn: torch.Tensor, expected: torch.Tensor):
    """Frames (frames, size) are drawn as often as expected, by a chi-squared test."""
    matches = (drawn[:, None] == frames).all(-1)
    assert (matches.sum(-1) == 1).all()  # nothing else is drawn
    counts, expected = matches.sum(0), len(drawn) * expected
    assert counts[expected == 0].sum() == 0
    counts, expected = counts[expected > 0], expected[expected > 0]
    degrees = len(expected) - 1
    chi_squared = ((counts - expected) ** 2 / expected).sum()
    assert chi_squared < degrees + 4 * (2 * degrees) ** 0.5


def drawn_part(head: OutputHead, frames: torch.Tensor) -> torch.Tensor:
    return frames[..., : head.num_drums] if isinstance(head, GrooveHead) else frames


def tempered(
    head: OutputHead, logits: torch.Tensor, temperature: float
) -> tuple[OutputHead, torch.Tensor]:
    """The head and logits whose likelihood is that of draws at a temperature.

    It divides the logits of each draw; those of a NADE are linear in w_dec and the visible biases.
    """
    head, logits = deepcopy(head), logits.clone()
    if isinstance(head, NADEHead):
        head.w_dec /= temperature
        logits[..., -head.num_drums :] /= temperature
    else:
        logits /= temperature
        for parameter in head.parameters():
            parameter /= temperature
    return head, logits


@all_heads
def test_the_likelihood_of_all_frames_is_one(fields):
    head = random_head(fields)
    frames = every_frame(head)
    for logits in random_logits(head, 5):
        total = probabilities(head, logits, frames).sum().item()
        assert total == pytest.approx(1, abs=2e-6)


@all_heads
def test_the_likelihood_is_a_float32_for_each_term_of_each_step(fields):
    head = random_head(fields)
    frames = head.to_frames(*random_drums())
    terms = head.log_likelihood(random_logits(head, 4, 50), frames)
    assert (terms.dtype, terms.shape) == (torch.float32, (4, 50, len(head.terms)))
    assert terms.max() <= 1e-6


@pytest.mark.parametrize("temperature", [1.0, 0.5, 2.0])
@all_heads
def test_frames_are_drawn_as_often_as_they_are_likely(fields, temperature):
    head = random_head(fields)
    logits, frames = random_logits(head), every_frame(head)
    drawn = draws(head, logits, temperature)
    expected = probabilities(*tempered(head, logits, temperature), frames)
    assert_as_often_as(drawn_part(head, frames[0]), drawn_part(head, drawn), expected)


@categorical_heads
def test_temperature_zero_takes_the_likeliest_pattern_and_the_median_expression(fields):
    head = random_head(fields)
    for logits in random_logits(head, 20):
        uniform = torch.rand(1, head.num_draws, generator=seeded())
        greedy = head.sample(logits[None], 0, uniform)
        patterns = torch.arange(head.num_patterns)[:, None]
        silent = F.pad(patterns, (0, head.num_draws - 1))[None]
        best = head.log_likelihood(logits.expand(1, len(patterns), -1), silent)[0, :, 0].argmax()
        assert greedy[0, 0] == best
        # With half a chance for each draw, the median is drawn of a distribution.
        known = FixedDrums(greedy[:, :1], torch.ones(head.num_drums, dtype=torch.bool), False)
        median = head.sample(logits[None], 1.0, torch.full_like(uniform, 0.5), known)
        assert torch.equal(greedy, median)


def test_the_median_velocity_is_the_middle_class_of_a_distribution_and_not_its_most_likely():
    head = random_head({"velocity_bins": 4, "timing_bins": 0, "hit_features": False}, num_drums=1)
    with torch.no_grad():
        head.expression_bias.weight.zero_()
    probabilities = torch.tensor([0.4, 0.15, 0.25, 0.2])
    logits = torch.cat([torch.tensor([-9.0, 9.0]), probabilities.log()])
    assert head.sample(logits[None], 0, torch.zeros(1, 2)).tolist() == [[1, 2]]


def test_groove_draws_hits_and_takes_velocities_and_offsets_as_they_are():
    head = random_head(OTHERS["groove"], num_drums=9)
    logits = random_logits(head, 200)
    hit_logits, velocity_logits, offset_logits = logits.chunk(3, -1)
    for temperature in (0, 1.0):
        uniform = torch.rand(200, 9, generator=seeded())
        hits, *expression = head.sample(logits, temperature, uniform).chunk(3, -1)
        likely = hit_logits > 0 if temperature == 0 else uniform < hit_logits.sigmoid()
        assert torch.equal(hits, likely.float())
        torch.testing.assert_close(expression, [velocity_logits.sigmoid(), offset_logits.tanh()])


def sigmoid(x: float) -> float:
    return 1 / (1 + exp(-x))


def log_likelihoods_of_drums(
    head: NADEHead, logits: torch.Tensor, hits: torch.Tensor
) -> list[float]:
    """Of each drum given those before it, one number after another."""
    w_enc, w_dec, (*logits,) = head.w_enc.tolist(), head.w_dec.tolist(), logits.tolist()
    hidden, visible_bias = logits[: -head.num_drums], logits[-head.num_drums :]
    log_likelihoods = []
    for drum, hit in enumerate(hits.tolist()):
        logit = visible_bias[drum]
        for unit, weight in zip(hidden, w_dec[drum], strict=True):
            logit += sigmoid(unit) * weight
        log_likelihoods.append(log(sigmoid(logit if hit else -logit)))
        hidden = [unit + hit * weight for unit, weight in zip(hidden, w_enc[drum], strict=True)]
    return log_likelihoods


@pytest.mark.parametrize("num_drums", [9, 61])
def test_nade_equals_a_loop_over_drums(num_drums):
    head = random_head({"output": "nade", "nade_hidden_size": 12}, num_drums)
    frames = head.to_frames(*random_drums(num_drums, (2, 5)))
    logits = random_logits(head, 2, 5)
    expected = [
        sum(log_likelihoods_of_drums(head, *step))
        for step in zip(logits.flatten(0, 1), frames.flatten(0, 1), strict=True)
    ]
    actual = head.log_likelihood(logits, frames).flatten().tolist()
    assert actual == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("num_drums", [9, 61])
def test_nade_at_temperature_zero_hits_each_drum_that_is_likely_given_those_before(num_drums):
    head = random_head({"output": "nade", "nade_hidden_size": 12}, num_drums)
    logits = random_logits(head, 20)
    greedy = head.sample(logits, 0, torch.rand(20, num_drums, generator=seeded()))
    assert greedy.unique().tolist() == [0, 1]
    for step in zip(logits, greedy, strict=True):
        assert min(log_likelihoods_of_drums(head, *step)) >= log(0.5)


def test_groove_loss_is_log_loss_and_squared_errors_over_all_cells():
    head = random_head(OTHERS["groove"], num_drums=9)
    logits = random_logits(head, 2, 16)
    logits[0, 0, :9] = torch.tensor([-200.0, 200] * 4 + [0])  # where only the epsilon is finite
    frames = head.to_frames(*random_drums(9, (2, 16)))
    expected = torch.zeros(2, 16, 3, dtype=torch.float64)
    for sequence, step, drum in product(range(2), range(16), range(9)):
        hit, velocity, offset = frames[sequence, step, drum::9].tolist()
        hit_logit, velocity_logit, offset_logit = logits[sequence, step, drum::9].tolist()
        probability = sigmoid(hit_logit)
        expected[sequence, step] += torch.tensor(
            [
                hit * log(probability + 1e-7) + (1 - hit) * log1p(1e-7 - probability),
                -((velocity - sigmoid(velocity_logit)) ** 2),
                -((offset - tanh(offset_logit)) ** 2),
            ]
        )
    actual = head.log_likelihood(logits, frames).double()
    torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-5)


def test_velocity_and_timing_are_softmaxes_that_the_pattern_shifts():
    head = random_head(CATEGORICAL["velocity and timing"], num_drums=2)
    logits = random_logits(head)
    frame = torch.tensor([2, 0, 1, 0, 3])  # the second drum, in its first and its third bin
    velocity = (logits + F.pad(head.expression_bias.weight[2], (4, 0)))[6:8]
    timing = (logits + F.pad(head.expression_bias.weight[2], (4, 0)))[11:14]
    picked = (logits[:4], 2), (velocity, 0), (timing, 2)
    expected = torch.stack([part.log_softmax(-1)[index] for part, index in picked])
    torch.testing.assert_close(head.log_likelihood(logits[None], frame[None])[0], expected)


def test_patterns_share_the_scores_of_their_hits():
    fields = CATEGORICAL["hits, with hit features"]
    head = random_head(fields, num_drums=2)
    plain = random_head(PLAIN["hits"], num_drums=2)
    scores, kick, snare = torch.tensor([0.1, 0.2, 0.3, 0.4]), 1.0, 2.0
    logits = torch.cat([scores, torch.tensor([kick, snare])])
    expected = scores + torch.tensor([0, kick, snare, kick + snare])
    frames = every_frame(head)
    assert frames.shape == (1, 4, 1)
    torch.testing.assert_close(
        head.log_likelihood(logits.expand(1, 4, -1), frames),
        plain.log_likelihood(expected.expand(1, 4, -1), frames),
    )


@each({name: fields for name, fields in CATEGORICAL.items() if fields["hit_features"]})
def test_hits_are_decoder_inputs_next_to_their_pattern(fields):
    head, plain = random_head(fields), random_head(fields | {"hit_features": False})
    piano_roll, timing = random_drums()
    frames = head.to_frames(piano_roll, timing)
    pattern, hits, expression = head.decoder_inputs(frames).split([8, 3, head.input_size - 11], -1)
    assert torch.equal(hits.bool(), piano_roll.transpose(1, 2) > 0)
    assert torch.equal(torch.cat([pattern, expression], -1), plain.decoder_inputs(frames))
    first = head.initial_frame(2, frames.device)
    assert not head.decoder_inputs(first).any()


@each(EXPRESSIVE)
def test_the_expression_of_exactly_the_drums_that_are_hit_is_scored(fields):
    head = random_head(fields)
    piano_roll, timing = random_drums()
    logits = random_logits(head, 4, 50).requires_grad_()
    terms = head.log_likelihood(logits, head.to_frames(piano_roll, timing))
    (gradient,) = torch.autograd.grad(terms.sum(), logits)
    hits = piano_roll.transpose(1, 2) > 0
    sizes = [3 * bins for bins in (fields["velocity_bins"], fields["timing_bins"]) if bins]
    for part in gradient[..., -sum(sizes) :].split(sizes, -1):
        assert torch.equal((part.unflatten(-1, (3, -1)) != 0).any(-1), hits)
    assert (gradient[..., : head.num_patterns] != 0).all()


@all_heads
def test_known_hits_come_out_exactly(fields):
    head = random_head(fields)
    piano_roll, timing = random_drums(shape=(1, 200))
    frames = head.to_frames(piano_roll, timing)
    uniform = torch.rand(200, head.num_draws, generator=seeded())
    known = FixedDrums.hits(frames[0], num_drums=3)
    drawn = head.sample(random_logits(head, 200), 1.0, uniform, known)
    assert torch.equal(head.to_drums(drawn[None])[0] > 0, piano_roll > 0)
    assert torch.equal(drawn, frames[0]) == (head.terms == ("hits",))


@pytest.mark.parametrize("expression", [True, False], ids=["hits and expression", "hits"])
@categorical_heads
def test_drums_that_are_not_known_follow_the_patterns_that_agree_with_the_known(fields, expression):
    head = random_head(fields)
    logits, frames = random_logits(head), every_frame(head)
    known_drums = torch.tensor([True, False, True])
    piano_roll, timing = torch.tensor([[[90], [0], [0]]]), torch.tensor([[[0.3], [0], [0]]])
    given = head.to_frames(piano_roll.to(torch.uint8), timing)[0]
    known = FixedDrums(given, known_drums, expression)
    drawn = draws(head, logits, known=known)

    hits = head.to_drums(frames)[0][0].T > 0
    agreeing = hits[:, 0] & ~hits[:, 2]
    expected = probabilities(head, logits, frames) * agreeing
    if expression:  # it is kept, whatever would have been drawn for it
        columns = torch.cat([torch.tensor([False]), known_drums.repeat(len(head.bins))])
        kept = given.where(columns, frames[0])
        becomes = (kept[:, None] == frames[0]).all(-1)
        expected = (expected[:, None] * becomes).sum(0)
    assert_as_often_as(frames[0], drawn, expected / expected.sum())


@pytest.mark.parametrize("expression", [True, False], ids=["hits and expression", "hits"])
def test_groove_keeps_known_drums_and_draws_the_others_as_without(expression):
    head = random_head(OTHERS["groove"], num_drums=9)
    given = head.to_frames(*random_drums(9, (1, 200)))[0]
    drums = torch.arange(9) < 4
    logits, uniform = random_logits(head, 200), torch.rand(200, 9, generator=seeded())
    without = head.sample(logits, 1.0, uniform)
    drawn = head.sample(logits, 1.0, uniform, FixedDrums(given, drums, expression))
    for number, name in enumerate(("hits", "velocities", "offsets")):
        part = slice(9 * number, 9 * (number + 1))
        kept = drums & (expression or name == "hits")
        assert torch.equal(drawn[:, part], given[:, part].where(kept, without[:, part])), name


@pytest.mark.parametrize("known_drum", [0, 1, 2])
def test_nade_keeps_known_drums_which_only_later_ones_see(known_drum):
    head = random_head(OTHERS["nade"])
    logits, (frames,) = random_logits(head), every_frame(head)
    drums = torch.arange(3) == known_drum
    drawn = draws(head, logits, known=FixedDrums(torch.ones(1, 3), drums, expression=True))
    expected = torch.zeros(len(frames), dtype=torch.float64)
    for index, hits in enumerate(frames):
        log_likelihoods = log_likelihoods_of_drums(head, logits, hits)
        if hits[known_drum] == 1:
            expected[index] = exp(sum(log_likelihoods) - log_likelihoods[known_drum])
    assert_as_often_as(frames, drawn, expected)


@all_heads
def test_decoder_inputs_multiply_the_input_weight(fields):
    head = random_head(fields)
    kernel = torch.randn(head.input_size + 4, 8, generator=seeded())
    kernel[-1] = 0  # after rows that are not the head's own
    drums = random_drums()
    first = head.initial_frame(4, torch.device("cpu"))
    frames = torch.cat([first[:, None], head.to_frames(*drums)], 1)
    inputs = head.decoder_inputs(frames)
    assert (inputs.dtype, inputs.shape) == (torch.float32, (4, 51, head.input_size))
    torch.testing.assert_close(head.input_gates(frames, kernel), inputs @ kernel[: head.input_size])


@all_heads
def test_decoder_inputs_before_the_first_step_are_zeros(fields):
    head = random_head(fields)
    first = head.initial_frame(4, torch.device("cpu"))
    frames = head.to_frames(*random_drums())
    assert (first.dtype, first.shape) == (frames.dtype, frames[:, 0].shape)
    assert head.decoder_inputs(first).count_nonzero() == 0


@all_heads
def test_features_are_hits_then_velocities_and_timings_of_the_order_of_one(fields):
    head, (piano_roll, timing) = random_head(fields), random_drums()
    features = head.features(head.to_frames(piano_roll, timing))
    assert (features.dtype, features.shape) == (torch.float32, (4, 50, head.num_features))
    hits, *expression = features.split(head.num_drums, -1)
    assert torch.equal(hits, (piano_roll.transpose(1, 2) > 0).float())
    assert len(expression) == len(head.terms) - 1
    for each in expression:
        assert 0.1 < each.abs().max() <= 1
        assert not each[hits == 0].any()


@all_heads
def test_features_before_the_first_step_are_zeros(fields):
    head = random_head(fields)
    assert head.features(head.initial_frame(2, torch.device("cpu"))).count_nonzero() == 0


@all_heads
def test_decoder_inputs_tell_all_frames_apart(fields):
    head = random_head(fields)
    (frames,) = every_frame(head)
    assert len(head.decoder_inputs(frames).unique(dim=0)) == len(frames)


@all_heads
@given(seeds, st.tuples(st.integers(1, 3), st.integers(1, 9)))
@repeatable
def test_drums_from_frames_have_the_same_frames(fields, seed, shape):
    head = random_head(fields)
    drums = random_drums(shape=shape, seed=seed)
    frames = head.to_frames(*drums)
    piano_roll, timing = head.to_drums(frames)
    assert (piano_roll.dtype, timing.dtype) == (torch.uint8, torch.float32)
    assert timing.shape == drums[0].shape
    assert torch.equal(piano_roll > 0, drums[0] > 0)
    assert timing[piano_roll == 0].count_nonzero() == 0
    assert torch.equal(head.to_frames(piano_roll, timing), frames)


@given(seeds, st.integers(1, 127), st.integers(0, 20).map(lambda n: 2 * n + 1))
@repeatable
def test_categorical_drums_come_back_within_half_a_bin(seed, velocity_bins, timing_bins):
    head = random_head({"velocity_bins": velocity_bins, "timing_bins": timing_bins})
    piano_roll, timing = random_drums(seed=seed)
    roll_again, timing_again = head.to_drums(head.to_frames(piano_roll, timing))
    error = (roll_again.long() - piano_roll.long()).abs().max()
    assert error <= round(127 / velocity_bins / 2)  # a whole velocity
    assert (timing_again - timing).abs().max() <= 0.5 / timing_bins + 1e-6


@given(seeds)
@repeatable
def test_groove_drums_come_back_exactly(seed):
    drums = random_drums(seed=seed)
    head = random_head(OTHERS["groove"])
    torch.testing.assert_close(head.to_drums(head.to_frames(*drums)), drums, atol=2**-23, rtol=0)


@each({"hits": CATEGORICAL["hits"], "nade": OTHERS["nade"]})
def test_hits_alone_come_back_equally_loud_and_on_the_grid(fields):
    head = random_head(fields)
    piano_roll, timing = head.to_drums(head.to_frames(*random_drums()))
    assert torch.equal(piano_roll, 100 * (random_drums()[0] > 0))
    assert timing.count_nonzero() == 0


def test_groove_numbers_at_their_ends_are_drums_in_range():
    head = random_head(OTHERS["groove"], num_drums=2)
    frames = torch.tensor([[[1.0, 1, 0, 1, -1, 1], [1, 0, 0.001, 1, 0, 1]]])
    piano_roll, timing = head.to_drums(frames)
    assert piano_roll.tolist() == [[[1, 1], [127, 0]]]
    assert timing.tolist() == [[[0.5 - 2**-23, 0], [-0.5, 0]]]


# A soft, late kick with a loud, early snare; then silence.
PIANO_ROLL = torch.tensor([[[32, 0], [127, 0]]], dtype=torch.uint8)
TIMING = torch.tensor([[[0.25, 0.0], [-0.25, 0.0]]])
V = 32 / 127


@pytest.mark.parametrize(
    ("fields", "frames", "encoder_inputs"),
    [
        pytest.param(
            CATEGORICAL["velocity and timing"],
            [[3, 1, 2, 3, 1], [0, 0, 0, 0, 0]],
            [[1, 1, 1, 0, 0, 1, 0.5, -0.5, 0], [0, 0, 0, 0, 0, 0, 0, 0, 1]],
            id="velocity and timing",
        ),
        pytest.param(
            CATEGORICAL["velocity"],
            [[3, 1, 2], [0, 0, 0]],
            [[1, 1, 1, 0, 0, 1, 0], [0, 0, 0, 0, 0, 0, 1]],
            id="velocity",
        ),
        pytest.param(
            CATEGORICAL["timing"],
            [[3, 3, 1], [0, 0, 0]],
            [[1, 1, 0.5, -0.5, 0], [0, 0, 0, 0, 1]],
            id="timing",
        ),
        pytest.param(CATEGORICAL["hits"], [[3], [0]], [[1, 1, 0], [0, 0, 1]], id="hits"),
        pytest.param(
            OTHERS["groove"],
            [[1, 1, V, 1, -0.5, 0.5], [0, 0, 0, 0, 0, 0]],
            [[1, 1, V, 1, -0.5, 0.5], [0, 0, 0, 0, 0, 0]],
            id="groove",
        ),
        pytest.param(OTHERS["nade"], [[1, 1], [0, 0]], [[1, 1, 0], [0, 0, 1]], id="nade"),
    ],
)
def test_frames_and_encoder_inputs_of_two_steps(fields, frames, encoder_inputs):
    head = random_head(fields, num_drums=2)
    found = head.to_frames(PIANO_ROLL, TIMING)
    assert found.dtype == (torch.int64 if isinstance(head, CategoricalHead) else torch.float32)
    torch.testing.assert_close(found, torch.tensor([frames], dtype=found.dtype))
    found = head.encoder_inputs(PIANO_ROLL, TIMING)
    torch.testing.assert_close(found, torch.tensor([encoder_inputs], dtype=torch.float32))


@pytest.mark.parametrize("transform", ["humanize", "tap_fixed_velocity"])
@all_heads
def test_velocities_that_mean_nothing_are_not_read(fields, transform):
    num_drums = 4  # taps need as many
    head = random_head(fields | {"input_transform": transform}, num_drums)
    piano_roll, timing = random_drums(num_drums)
    inputs = head.encoder_inputs(piano_roll, timing)
    assert torch.equal(inputs, head.encoder_inputs(100 * (piano_roll > 0).byte(), timing))
    read = random_head(fields, num_drums).encoder_inputs(piano_roll, timing)
    assert torch.equal(inputs, read) == ("velocity" not in head.terms)


@pytest.mark.parametrize(
    ("fields", "sizes"),
    [
        pytest.param({}, (512 + 9 + 9 * 17, 512 + 9 + 18, 9 * 10 + 1, 19), id="categorical"),
        pytest.param(CATEGORICAL["hits"], (512, 512, 10, 1), id="cat-drums"),
        pytest.param(OTHERS["groove"], (27, 27, 27, 9), id="groove"),
        pytest.param(OTHERS["nade"] | {"nade_hidden_size": 128}, (137, 9, 10, 9), id="nade-drums"),
    ],
)
def test_sizes_for_nine_drums(fields, sizes):
    head = random_head(fields, num_drums=9)
    found = (head.logits_size, head.input_size, head.encoder_input_size, head.num_draws)
    assert found == sizes
    assert head.encoder_inputs(*random_drums(9)).shape[-1] == head.encoder_input_size


@all_heads
def test_the_likelihood_of_bfloat16_logits_is_computed_in_float32(fields):
    head = random_head(fields)
    logits, frames = random_logits(head, 4, 50).bfloat16(), head.to_frames(*random_drums())
    terms = head.log_likelihood(logits, frames)
    assert torch.equal(terms, head.log_likelihood(logits.float(), frames))


@all_heads
def test_bfloat16_weights_give_nearly_the_numbers_of_float32(fields):
    head, rounded = random_head(fields), random_head(fields).bfloat16()
    logits, frames = random_logits(head, 4, 50).bfloat16(), head.to_frames(*random_drums())
    terms = rounded.log_likelihood(logits, frames)
    assert terms.dtype == torch.float32
    torch.testing.assert_close(terms, head.log_likelihood(logits.float(), frames), **IN_BFLOAT16)

    kernel = torch.randn(head.input_size + 1, 8, generator=seeded())
    kernel[-1] = 0
    gates = rounded.input_gates(frames, kernel.bfloat16())
    assert gates.dtype == torch.bfloat16
    torch.testing.assert_close(gates.float(), head.input_gates(frames, kernel), **IN_BFLOAT16)

    uniform = torch.rand(200, head.num_draws, generator=seeded())
    logits = logits.flatten(0, 1).float()
    drawn, expected = (either.sample(logits, 1.0, uniform) for either in (rounded, head))
    assert drawn.dtype == frames.dtype
    assert (drawn == expected).float().mean() > 0.98  # the others lie between two of its numbers


def test_temperature_zero_takes_the_most_likely_class():
    logits = torch.randn(20, 16, generator=seeded())
    drawn = sample_classes(logits, 0, torch.full((20,), ALMOST_ONE))
    assert torch.equal(drawn, logits.argmax(-1))


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_classes_are_drawn_as_often_as_the_softmax_says(temperature):
    logits = torch.randn(16, generator=seeded())
    count = 10_000
    evenly_spaced = (torch.arange(count) + 0.5) / count
    drawn = sample_classes(logits.expand(count, -1), temperature, evenly_spaced)
    expected = count * torch.softmax(logits.double() / temperature, -1)
    # Evenly spaced numbers leave no chance: a class is off by less than one at either end.
    assert (drawn.bincount(minlength=16) - expected).abs().max() < 2


def test_a_draw_depends_on_its_own_row_alone():
    logits = torch.randn(5, 10, 16, generator=seeded())
    uniform = torch.rand(5, 10, generator=seeded(1))
    together = sample_classes(logits, 1.0, uniform)
    assert (together.dtype, together.shape) == (torch.int64, (5, 10))
    rows = zip(logits.flatten(0, 1), uniform.flatten(), strict=True)
    alone = [sample_classes(row[None], 1.0, number[None]) for row, number in rows]
    assert torch.equal(together.flatten(), torch.cat(alone))
    assert together.unique().numel() > 5


@pytest.mark.parametrize("uniform", [0.0, 0.5, ALMOST_ONE])
@pytest.mark.parametrize("scale", [1.0, 30.0])
def test_a_class_without_probability_is_never_drawn(uniform, scale):
    logits = scale * torch.randn(2000, 512, generator=seeded())
    logits[:, [0, 1, 255, 256, 510, 511]] = -torch.inf
    drawn = sample_classes(logits, 1.0, torch.full((2000,), uniform))
    assert torch.softmax(logits, -1).gather(1, drawn[:, None]).min() > 0


@pytest.mark.parametrize("temperature", [0, 0.5, 1.0, 2.0])
def test_hits_are_drawn_as_often_as_the_sigmoid_says(temperature):
    logits = torch.tensor([-torch.inf, -200.0, -1.0, 0.5, 200.0, torch.inf])
    count = 10_000
    evenly_spaced = torch.linspace(0, ALMOST_ONE, count)[:, None].expand(-1, len(logits))
    hits = sample_hits(logits.expand(count, -1), temperature, evenly_spaced)
    expected = (logits / temperature).sigmoid()  # at 0, of infinity
    torch.testing.assert_close(hits.mean(0), expected, atol=2 / count, rtol=0)
