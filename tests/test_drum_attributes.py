"""Measures of a groove: known grooves, and what does not change them."""

from math import floor

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from modeling_musicvae.drum_attributes import (
    ATTRIBUTES,
    density,
    hihat_density,
    mean_velocity,
    measure_attributes,
    swing,
    syncopation,
)
from processing.drum_kit import DRUM_NAMES

repeatable = settings(derandomize=True, deadline=None, max_examples=100)
ABBREVIATIONS = {
    "kick": "kick",
    "snare": "snare",
    "hat": "closed hi-hat",
    "open": "open hi-hat",
    "tom": "low tom",
    "crash": "crash",
    "ride": "ride",
}
ROCK = {"kick": "x.......x.......", "snare": "....x.......x...", "hat": "x.x.x.x.x.x.x.x."}


def groove(velocity=100, **lines: str) -> tuple[torch.Tensor, torch.Tensor]:
    """One window on the grid: a line for a drum, a character for a step, x for a hit."""
    num_steps = max(map(len, lines.values()), default=16)
    piano_roll = torch.zeros(1, 9, num_steps, dtype=torch.uint8)
    for drum, line in lines.items():
        hits = torch.tensor([character == "x" for character in line])
        piano_roll[0, DRUM_NAMES.index(ABBREVIATIONS[drum])] = velocity * hits
    return piano_roll, torch.zeros(piano_roll.shape)


@st.composite
def grooves(draw, steps_per_bar=16):
    """Three windows of random drums."""
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**32)))
    shape = (3, 9, draw(st.integers(1, 4)) * steps_per_bar)
    hits = torch.rand(shape, generator=generator) < draw(st.sampled_from([0.02, 0.2, 0.6]))
    velocities = torch.randint(1, 128, shape, generator=generator)
    timing = torch.rand(shape, generator=generator) - 0.5
    return (velocities * hits).to(torch.uint8), timing * hits


@pytest.mark.parametrize(
    ("lines", "of_all", "of_hihats"),
    [
        pytest.param({}, 0, 0, id="silence"),
        pytest.param({"kick": "x...x...x...x..."}, 4, 0, id="four on the floor"),
        pytest.param(ROCK, 12, 8, id="rock"),
        pytest.param({"hat": "x.x.x.x.x.x.....", "open": "............x.x."}, 8, 8, id="open"),
        pytest.param({"kick": "x" * 16 + "." * 16, "hat": "x" + "." * 31}, 8.5, 0.5, id="2 bars"),
    ],
)
def test_density_is_hits_a_bar(lines, of_all, of_hihats):
    assert density(*groove(**lines), 16).tolist() == [of_all]
    assert hihat_density(*groove(**lines), 16).tolist() == [of_hihats]


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        pytest.param({}, 0, id="silence"),
        pytest.param({"kick": "x...x...x...x..."}, 0, id="four on the floor"),
        pytest.param({"snare": "....x.......x..."}, 0, id="backbeat"),
        pytest.param(ROCK, 0, id="rock"),
        pytest.param({"kick": "x.x.x.x.x.x.x.x."}, 0, id="eighths"),
        pytest.param({"kick": "x" * 16}, 0, id="sixteenths"),
        pytest.param({"kick": "x.....x.x......."}, 0, id="off-beat resolved"),
        pytest.param({"kick": "x..x............", "snare": "....x..........."}, 0, id="by a snare"),
        pytest.param({"kick": "x.....x.........", "tom": "........x......."}, 0, id="by a tom"),
        pytest.param({"kick": "x.............x."}, 0, id="by the loop's first step"),
        pytest.param({"kick": "x.....x.........", "crash": "........x......."}, 1, id="crash"),
        pytest.param({"kick": "x.....x........."}, 1, id="off-beat eighth"),
        pytest.param({"kick": "x..x............"}, 2, id="sixteenth before a silent beat"),
        pytest.param({"kick": "xx..x..........."}, 1, id="sixteenth before a silent eighth"),
        pytest.param({"kick": "x..x..x...x..x.."}, 2 + 1 + 1 + 1, id="bossa clave"),
        pytest.param({"kick": "..x...x...x...x."}, 4, id="all off-beats"),
        pytest.param({"kick": "x.......x.......", "hat": "..x...x...x...x."}, 0, id="ska hi-hat"),
        pytest.param({"kick": "x.....x........." + "x" + "." * 15}, 0.5, id="mean of two bars"),
    ],
)
def test_syncopation_counts_the_levels_from_a_hit_to_a_stronger_rest(lines, expected):
    assert syncopation(*groove(**lines), 16).tolist() == [expected]


@pytest.mark.parametrize(
    ("steps_per_bar", "strokes_per_beat"),
    [(4, 1), (8, 2), (12, 3), (16, 2), (16, 4), (24, 2), (24, 3), (24, 6), (48, 3), (48, 4)],
)
def test_even_strokes_are_not_syncopated(steps_per_bar, strokes_per_beat):
    stroke = "x".ljust(steps_per_bar // (4 * strokes_per_beat), ".")
    roll = stroke * (8 * strokes_per_beat)
    assert syncopation(*groove(kick=roll), steps_per_bar).tolist() == [0]


@pytest.mark.parametrize(
    ("steps_per_bar", "line", "expected"),
    [
        pytest.param(8, "x..x....", 1, id="eighths"),
        pytest.param(12, "x....x......", 1, id="last triplet"),
        pytest.param(24, "x........x..............", 1, id="eighth among triplets"),
        pytest.param(24, "x....x..................", 2, id="last sextuplet"),
        pytest.param(32, "x......x" + "." * 24, 3, id="thirty-second"),
    ],
)
def test_syncopation_follows_the_grid(steps_per_bar, line, expected):
    assert syncopation(*groove(kick=line), steps_per_bar).tolist() == [expected]


@given(grooves())
@repeatable
def test_music_on_the_beats_is_not_syncopated(drums):
    piano_roll, timing = drums
    piano_roll[..., torch.arange(piano_roll.shape[-1]) % 4 > 0] = 0
    assert syncopation(piano_roll, timing, 16).tolist() == [0, 0, 0]


def test_mean_velocity_is_that_of_the_hits():
    piano_roll = torch.zeros(3, 9, 16, dtype=torch.uint8)
    piano_roll[1, 0, 0] = 127
    piano_roll[2, [0, 5], [3, 8]] = torch.tensor([20, 101], dtype=torch.uint8)
    assert mean_velocity(piano_roll, torch.zeros(3, 9, 16), 16).tolist() == [0, 127, 60.5]


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        pytest.param({}, 0, id="silence"),
        pytest.param(ROCK, 0, id="straight eighths"),
        pytest.param({"hat": "x" * 16}, 0, id="straight sixteenths"),
        pytest.param({"hat": "x...x...x...x..."}, 0, id="beats alone"),
        pytest.param({"hat": "..x...x...x...x."}, 0, id="ska hi-hat"),
        pytest.param({"ride": "x...x..xx...x..x"}, 1 / 4, id="dotted jazz ride"),
        pytest.param({"hat": "x.x.x..xx.x.x.x."}, 1 / 16, id="one dotted off-beat of four"),
        pytest.param({"hat": "x..xx.xxx...x..."}, 1 / 4, id="sixteenths do not count"),
        pytest.param({"kick": "x..x......x....."}, 0, id="kick does not count"),
        pytest.param({"hat": "xx..xx..xx..xx.."}, -1 / 4, id="scotch snap"),
    ],
)
def test_swing_of_grooves_on_the_grid(lines, expected):
    assert swing(*groove(**lines), 16).tolist() == [expected]


@given(st.floats(1, 2.9), st.sampled_from([8, 12, 16, 24, 32]))
@repeatable
def test_swing_follows_the_swing_ratio(ratio, steps_per_bar):
    onset = ratio / (ratio + 1) * steps_per_bar / 4
    step = floor(onset + 0.5)
    piano_roll, timing = groove(ride="x".ljust(steps_per_bar // 4, ".") * 8)
    piano_roll[0, 8, step :: steps_per_bar // 4] = 100
    timing[0, 8, step :: steps_per_bar // 4] = onset - step
    expected = (ratio - 1) / (2 * (ratio + 1))
    assert swing(piano_roll, timing, steps_per_bar).item() == pytest.approx(expected, abs=1e-6)


def test_swing_is_relative_to_the_hits_on_the_beats():
    piano_roll, timing = groove(**ROCK)
    timing[..., ::4] = 0.25
    assert swing(piano_roll, timing, 16).item() == pytest.approx(-1 / 16)
    timing[..., 2::4] = 0.25
    assert swing(piano_roll, timing, 16).item() == pytest.approx(0, abs=1e-7)


@given(grooves())
@repeatable
def test_eighths_without_timing_are_straight(drums):
    piano_roll, timing = drums
    piano_roll[..., 1::2] = 0
    assert swing(piano_roll, torch.zeros_like(timing), 16).tolist() == [0, 0, 0]


@pytest.mark.parametrize("measure", [density, syncopation, hihat_density, swing])
@given(drums=grooves())
@repeatable
def test_velocity_matters_to_mean_velocity_alone(measure, drums):
    piano_roll, timing = drums
    louder = torch.where(piano_roll > 0, 127, piano_roll)
    assert torch.equal(measure(louder, timing, 16), measure(piano_roll, timing, 16))


@pytest.mark.parametrize("measure", [density, syncopation, hihat_density, mean_velocity])
@given(drums=grooves())
@repeatable
def test_timing_matters_to_swing_alone(measure, drums):
    piano_roll, timing = drums
    on_grid = torch.zeros_like(timing)
    assert torch.equal(measure(piano_roll, on_grid, 16), measure(piano_roll, timing, 16))


@given(grooves(), st.integers(1, 3))
@repeatable
def test_where_the_loop_starts_and_how_often_it_plays_do_not_matter(drums, bars):
    measured = measure_attributes(*drums, 16)
    rolled = measure_attributes(*(array.roll(16 * bars, -1) for array in drums), 16)
    torch.testing.assert_close(rolled, measured)
    repeated = measure_attributes(*(array.repeat(1, 1, 1 + bars) for array in drums), 16)
    torch.testing.assert_close(repeated, measured)


@given(st.integers(1, 26).flatmap(lambda steps: st.tuples(st.just(steps), grooves(steps))))
@repeatable
def test_every_window_of_a_batch_is_measured_by_itself_on_any_grid(drawn):
    steps_per_bar, (piano_roll, timing) = drawn
    together = measure_attributes(piano_roll, timing, steps_per_bar)
    assert together.dtype == torch.float32
    assert together.shape == (3, len(ATTRIBUTES))
    assert together.isfinite().all()
    for index, (name, measure) in enumerate(ATTRIBUTES.items()):
        alone = [measure(piano_roll[i, None], timing[i, None], steps_per_bar) for i in range(3)]
        torch.testing.assert_close(torch.cat(alone), together[:, index], msg=name)


@pytest.mark.parametrize(
    ("roll_shape", "timing_shape", "message"),
    [
        pytest.param((2, 5, 16), (2, 5, 16), r"piano_roll: found \(2, 5, 16\)", id="drums"),
        pytest.param((2, 9, 24), (2, 9, 24), r"piano_roll: found \(2, 9, 24\)", id="broken bars"),
        pytest.param((9, 16), (9, 16), r"piano_roll: found \(9, 16\)", id="no batch"),
        pytest.param((2, 9, 16), (1, 9, 16), r"timing: found \(1, 9, 16\)", id="timing"),
    ],
)
def test_wrong_shapes_are_refused(roll_shape, timing_shape, message):
    with pytest.raises(ValueError, match=message):
        measure_attributes(torch.zeros(roll_shape), torch.zeros(timing_shape), 16)
