"""Drum hits on a grid of steps, and back."""

from fractions import Fraction
from math import floor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from processing.errors import PianoRollError
from processing.piano_roll import (
    adjust_time,
    check_piano_roll,
    join_windows,
    onset_ticks,
    piano_roll,
    quantize,
    split_sequence,
)

repeatable = settings(derandomize=True, deadline=None, max_examples=200)
resolutions = st.integers(1, 0x7FFF)
JUST_BELOW_HALF = np.nextafter(np.float32(0.5), np.float32(0))


def array(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


@pytest.mark.parametrize(
    ("ticks", "ticks_per_quarter", "steps_per_bar", "steps", "timing"),
    [
        pytest.param([0, 120, 1920], 480, 16, [0, 1, 16], [0, 0, 0], id="on the grid"),
        pytest.param([30, 150], 480, 16, [0, 1], [0.25, 0.25], id="late is positive"),
        pytest.param([90, 210], 480, 16, [1, 2], [-0.25, -0.25], id="early is negative"),
        pytest.param([59, 60, 61], 480, 16, [0, 1, 1], [59 / 120, -0.5, -59 / 120], id="tie"),
        pytest.param([-60, -61], 480, 16, [0, -1], [-0.5, 59 / 120], id="negative tie"),
        pytest.param([79, 80, 160], 480, 24, [1, 1, 2], [-1 / 80, 0, 0], id="24 steps a bar"),
        pytest.param([5, 15], 5, 6, [2, 5], [-0.5, -0.5], id="tie between broken ticks"),
        pytest.param([1, 2], 1, 16, [4, 8], [0, 0], id="fewer ticks than steps"),
    ],
)
def test_quantize_finds_the_nearest_step(ticks, ticks_per_quarter, steps_per_bar, steps, timing):
    found_steps, found_timing = quantize(array(*ticks), ticks_per_quarter, steps_per_bar)
    assert found_steps.tolist() == steps
    assert found_timing.tolist() == np.float32(timing).tolist()


@given(st.integers(-(2**31), 2**31), resolutions, st.integers(1, 1920))
@repeatable
def test_quantize_equals_exact_fractions(tick, ticks_per_quarter, steps_per_bar):
    position = Fraction(tick * steps_per_bar, 4 * ticks_per_quarter)
    steps, timing = quantize(array(tick), ticks_per_quarter, steps_per_bar)
    assert steps[0] == floor(position + Fraction(1, 2))
    assert timing[0] == np.float32(float(position - int(steps[0])))
    assert -0.5 <= timing[0] < 0.5


@pytest.mark.parametrize(
    ("mode", "ticks", "moved"),
    [
        pytest.param("bars", [0, 480], [0, 480], id="bars: starts at once"),
        pytest.param("bars", [1440, 1920], [1440, 1920], id="bars: a pickup keeps its place"),
        pytest.param("bars", [4320, 5760], [480, 1920], id="bars: two silent bars are dropped"),
        pytest.param("bars", [3810], [-30], id="bars: an early first hit is on its bar's line"),
        pytest.param("bars", [3780], [-60], id="bars: half a step early still is"),
        pytest.param("bars", [3779], [1859], id="bars: earlier belongs to the bar before"),
        pytest.param("bars", [5760, 1920], [3840, 0], id="bars: in any order"),
        pytest.param("first_onset", [5000, 4330], [670, 0], id="first onset"),
        pytest.param("none", [4330, 5000], [4330, 5000], id="none"),
    ],
)
def test_adjust_time(mode, ticks, moved):
    assert adjust_time(array(*ticks), 480, 16, mode).tolist() == moved


def test_the_louder_of_two_hits_on_a_step_stays_with_its_timing():
    hits = array(3, 3, 3), array(1, 1, 1), array(50, 90, 70), np.float32([0.1, 0.2, 0.3])
    roll, timing = piano_roll(*hits, num_steps=16)
    assert (roll[1, 3], timing[1, 3]) == (90, np.float32(0.2))


def test_of_equally_loud_hits_on_a_step_the_first_stays():
    hits = array(3, 3, 3), array(1, 1, 1), array(70, 70, 70), np.float32([0.2, 0.1, 0.3])
    _, timing = piano_roll(*hits, num_steps=16)
    assert timing[1, 3] == np.float32(0.2)


def test_a_roll_is_silent_but_for_its_hits():
    roll, timing = piano_roll(
        array(0, 15), array(8, 0), array(1, 127), np.float32([-0.5, 0.25]), 16
    )
    expected_roll, expected_timing = np.zeros((9, 16), np.uint8), np.zeros((9, 16), np.float32)
    expected_roll[[8, 0], [0, 15]] = 1, 127
    expected_timing[[8, 0], [0, 15]] = -0.5, 0.25
    np.testing.assert_array_equal(roll, expected_roll, strict=True)
    np.testing.assert_array_equal(timing, expected_timing, strict=True)


def bars_of_kick(*sounding: bool) -> tuple[np.ndarray, np.ndarray]:
    """Bars of two steps; a sounding one has a kick as loud as its number, counted from 1."""
    roll = np.zeros((9, 2 * len(sounding)), np.uint8)
    roll[0, ::2] = np.arange(1, len(sounding) + 1) * np.array(sounding)
    return roll, roll.astype(np.float32) / 256


@pytest.mark.parametrize(
    ("num_bars", "hop_bars", "starts"),
    [
        pytest.param(7, 1, [0, 1, 2, 3], id="every bar"),
        pytest.param(7, 3, [0, 3], id="every third bar"),
        pytest.param(7, 4, [0], id="a rest shorter than a window has none"),
        pytest.param(8, 4, [0, 4], id="side by side"),
        pytest.param(4, 1, [0], id="exactly one"),
        pytest.param(3, 1, [], id="shorter than a window"),
    ],
)
def test_split_sequence_cuts_a_window_at_every_hop(num_bars, hop_bars, starts):
    roll, timing = bars_of_kick(*[True] * num_bars)
    rolls, timings, start_bars = split_sequence(roll, timing, 4, 2, hop_bars)
    assert start_bars.tolist() == starts
    assert (rolls.dtype, rolls.shape) == (np.uint8, (len(starts), 9, 8))
    assert (timings.dtype, timings.shape) == (np.float32, (len(starts), 9, 8))
    for start, window, window_timing in zip(starts, rolls, timings, strict=True):
        assert np.array_equal(window, roll[:, 2 * start : 2 * start + 8])
        assert np.array_equal(window_timing, timing[:, 2 * start : 2 * start + 8])


def test_split_sequence_drops_silent_windows():
    roll, timing = bars_of_kick(True, False, False, True, False)
    rolls, timings, start_bars = split_sequence(roll, timing, 2, 2, 1)
    assert start_bars.tolist() == [0, 2, 3]
    assert len(rolls) == len(timings) == 3


def test_onsets_come_back_in_time_order():
    roll, timing = np.zeros((9, 16), np.uint8), np.zeros((9, 16), np.float32)
    roll[[0, 1, 2], [0, 4, 4]] = 100, 90, 80
    timing[[0, 1, 2], [0, 4, 4]] = -0.25, 0.25, -0.5
    ticks, drums, velocities = onset_ticks(roll, timing, 480, 16)
    assert ticks.tolist() == [-30, 420, 510]
    assert drums.tolist() == [0, 2, 1]
    assert velocities.tolist() == [100, 80, 90]


@given(
    st.integers(0, 4096 * 16),
    st.floats(-0.5, float(JUST_BELOW_HALF), width=32),
    resolutions,
    st.data(),
)
@repeatable
def test_an_onset_falls_on_its_own_step_within_a_tick(step, offset, ticks_per_quarter, data):
    steps_per_bar = data.draw(st.integers(1, min(4 * ticks_per_quarter, 1920)))
    roll, timing = np.zeros((9, step + 1), np.uint8), np.zeros((9, step + 1), np.float32)
    roll[4, step], timing[4, step] = 64, offset
    ticks, _, _ = onset_ticks(roll, timing, ticks_per_quarter, steps_per_bar)
    found_step, found_offset = quantize(ticks, ticks_per_quarter, steps_per_bar)
    tick = steps_per_bar / (4 * ticks_per_quarter)
    assert found_step[0] == step
    # Within half a tick, but where the nearest tick belongs to the neighbouring step.
    nearest_is_ours = -0.5 + tick / 2 <= offset < 0.5 - tick / 2
    assert abs(found_offset[0] - offset) <= (0.5 if nearest_is_ours else 1) * tick + 1e-6


@given(st.integers(0, 2**31), resolutions, st.data())
@repeatable
def test_onset_ticks_inverts_quantize(tick, ticks_per_quarter, data):
    steps_per_bar = data.draw(st.integers(1, min(4 * ticks_per_quarter, 1920)))
    tick %= 64 * 4 * ticks_per_quarter
    steps, offsets = quantize(array(tick), ticks_per_quarter, steps_per_bar)
    grid = piano_roll(steps, array(0), array(100), offsets, int(steps[0]) + 1)
    assert onset_ticks(*grid, ticks_per_quarter, steps_per_bar)[0].tolist() == [tick]


@given(st.integers(1, 5), st.integers(0, 2**31))
@repeatable
def test_joined_windows_are_the_windows_one_after_another(num_windows, seed):
    rng = np.random.default_rng(seed)
    rolls = rng.integers(0, 128, (num_windows, 9, 64)).astype(np.uint8)
    timings = np.where(rolls > 0, rng.uniform(-0.5, 0.49, rolls.shape), 0).astype(np.float32)
    roll, timing = join_windows(rolls), join_windows(timings)
    assert np.array_equal(split_sequence(roll, timing, 4, 16, 4)[0], rolls)
    assert np.array_equal(split_sequence(roll, timing, 4, 16, 4)[1], timings)


def silence() -> tuple[np.ndarray, np.ndarray]:
    return np.zeros((9, 64), np.uint8), np.zeros((9, 64), np.float32)


def with_value(grid: np.ndarray, value: float) -> np.ndarray:
    grid[2, 7] = value
    return grid


ROLL, TIMING = silence()
WRONG_GRIDS = {
    "eight drums": (ROLL[:8], TIMING[:8], r"piano_roll: found uint8 \(8, 64\), .*\(9, steps\)"),
    "a batch": (ROLL[None], TIMING[None], r"piano_roll: found uint8 \(1, 9, 64\), .*\(9, steps\)"),
    "float roll": (ROLL.astype(float), TIMING, r"piano_roll: found float64 .* expected uint8"),
    "bool roll": (ROLL.astype(bool), TIMING, r"piano_roll: found bool .* expected uint8"),
    "velocity 128": (
        with_value(silence()[0], 128),
        TIMING,
        "found velocity 128, expected 0 to 127",
    ),
    "float64 timing": (ROLL, TIMING.astype(float), "timing: found float64 .* expected float32"),
    "short timing": (ROLL, TIMING[:, :63], r"timing: found float32 \(9, 63\), .*\(9, 64\)"),
    "timing of half a step": (ROLL, with_value(silence()[1], 0.5), r"outside \[-0.5, 0.5\)"),
    "timing too early": (ROLL, with_value(silence()[1], -0.51), r"outside \[-0.5, 0.5\)"),
    "timing not a number": (ROLL, with_value(silence()[1], np.nan), r"outside \[-0.5, 0.5\)"),
}


@pytest.mark.parametrize(("roll", "timing", "message"), WRONG_GRIDS.values(), ids=WRONG_GRIDS)
def test_a_wrong_grid_is_refused(roll, timing, message):
    with pytest.raises(PianoRollError, match=message):
        check_piano_roll(roll, timing)


def test_the_limits_of_a_grid_are_allowed():
    roll, timing = silence()
    roll[0, :2] = 1, 127
    timing[0, :2] = -0.5, JUST_BELOW_HALF
    check_piano_roll(roll, timing)
    check_piano_roll(roll[:, :0], timing[:, :0])
