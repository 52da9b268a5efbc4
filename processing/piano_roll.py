"""Drum hits on a grid of steps: pure NumPy, both ways.

A piano roll is uint8 (9, steps): the MIDI velocity 1 to 127 of each drum at each step, 0 where
silent. Its timing is float32 (9, steps): (onset - grid) in steps, in [-0.5, 0.5), positive is
late, 0 where silent. The metre is 4/4.
"""

import numpy as np

from .bar_lines import QUARTERS_PER_BAR
from .drum_kit import NUM_DRUMS
from .errors import PianoRollError

ADJUST_MODES = ("bars", "first_onset", "none")


def quantize(
    ticks: np.ndarray, ticks_per_quarter: int, steps_per_bar: int
) -> tuple[np.ndarray, np.ndarray]:
    """The nearest step of each onset, and how far from it the onset lies.

    Integer arithmetic throughout, so that no rounding decides a tie: an onset halfway between
    two steps belongs to the later one.

    Args:
        ticks: int64 (hits,), onsets in MIDI ticks; may be negative.
        ticks_per_quarter: the file's resolution.
        steps_per_bar: steps in a bar of four quarters.

    Returns:
        steps int64 (hits,) and timing float32 (hits,) in [-0.5, 0.5) steps.
    """
    ticks_per_bar = QUARTERS_PER_BAR * ticks_per_quarter
    position = ticks * steps_per_bar  # in units of 1 / ticks_per_bar step
    steps = (2 * position + ticks_per_bar) // (2 * ticks_per_bar)
    timing = (position - steps * ticks_per_bar) / ticks_per_bar
    return steps, timing.astype(np.float32)


def adjust_time(
    ticks: np.ndarray, ticks_per_quarter: int, steps_per_bar: int, mode: str = "bars"
) -> np.ndarray:
    """Drops the silence before the music.

    Args:
        ticks: int64 (hits,), at least one onset in MIDI ticks.
        ticks_per_quarter: the file's resolution.
        steps_per_bar: steps in a bar, which decides in which bar the first hit is.
        mode: "bars" drops the whole bars before the first quantized hit, so that every hit keeps
            its place in the metre; "first_onset" moves the first onset to tick 0, for recordings
            without bar lines; "none" leaves the onsets as they are.

    Returns:
        int64 (hits,), the moved onsets. In mode "bars" an early first hit may lie before tick 0.
    """
    if mode == "none":
        return ticks
    if mode == "first_onset":
        return ticks - ticks.min()
    steps, _ = quantize(ticks, ticks_per_quarter, steps_per_bar)
    silent_bars = steps.min() // steps_per_bar
    return ticks - silent_bars * QUARTERS_PER_BAR * ticks_per_quarter


def piano_roll(
    steps: np.ndarray, drums: np.ndarray, velocities: np.ndarray, timing: np.ndarray, num_steps: int
) -> tuple[np.ndarray, np.ndarray]:
    """Writes hits into a grid; of two hits of one drum on one step the louder stays.

    Args:
        steps: int64 (hits,), in [0, num_steps).
        drums: int64 (hits,), indices into `DRUM_NAMES`.
        velocities: (hits,), 1 to 127.
        timing: float32 (hits,), in [-0.5, 0.5) steps.
        num_steps: length of the roll.

    Returns:
        piano_roll uint8 (9, num_steps) and timing float32 (9, num_steps).
    """
    # NumPy keeps the last of repeated writes, so write from soft to loud; the sort is stable, and
    # of equally loud hits the first in the file stays.
    order = np.argsort(velocities[::-1], kind="stable")
    steps, drums = steps[::-1][order], drums[::-1][order]
    roll = np.zeros((NUM_DRUMS, num_steps), np.uint8)
    offsets = np.zeros((NUM_DRUMS, num_steps), np.float32)
    roll[drums, steps] = velocities[::-1][order]
    offsets[drums, steps] = timing[::-1][order]
    return roll, offsets


def cut_windows(grid: np.ndarray, window: int, hop: int) -> np.ndarray:
    """Windows (windows, 9, window) of a grid (9, steps), in steps, that lie wholly in it."""
    starts = np.arange(0, grid.shape[1] - window + 1, hop)
    return np.moveaxis(grid[:, starts[:, None] + np.arange(window)], 1, 0)


def split_sequence(
    roll: np.ndarray, timing: np.ndarray, bars: int, steps_per_bar: int, hop_bars: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Cuts a performance of whole bars into windows; a window without any hit is dropped.

    Args:
        roll: uint8 (9, steps), steps a multiple of `steps_per_bar`.
        timing: float32 (9, steps).
        bars: bars in a window.
        steps_per_bar: steps in a bar.
        hop_bars: bars from the start of one window to the start of the next.

    Returns:
        rolls uint8 (windows, 9, bars * steps_per_bar), timings float32 of the same shape and the
        bar in which each window starts, int64 (windows,). A performance shorter than `bars` has
        no window.
    """
    sizes = bars * steps_per_bar, hop_bars * steps_per_bar
    rolls, timings = cut_windows(roll, *sizes), cut_windows(timing, *sizes)
    (sounding,) = np.nonzero(rolls.any(axis=(1, 2)))
    return rolls[sounding], timings[sounding], sounding * hop_bars


def join_windows(windows: np.ndarray) -> np.ndarray:
    """Windows (windows, 9, steps) one after another, as one grid (9, windows * steps)."""
    return np.moveaxis(windows, 0, 1).reshape(windows.shape[1], -1)


def check_piano_roll(roll: np.ndarray, timing: np.ndarray) -> None:
    """Raises `PianoRollError` unless roll and timing are what this module defines."""
    if roll.dtype != np.uint8 or roll.ndim != 2 or roll.shape[0] != NUM_DRUMS:
        raise PianoRollError(
            f"piano_roll: found {roll.dtype} {roll.shape}, expected uint8 ({NUM_DRUMS}, steps)"
        )
    if timing.dtype != np.float32 or timing.shape != roll.shape:
        raise PianoRollError(
            f"timing: found {timing.dtype} {timing.shape}, expected float32 {roll.shape}"
        )
    if roll.size and roll.max() > 127:
        raise PianoRollError(f"piano_roll: found velocity {roll.max()}, expected 0 to 127")
    if not ((timing >= -0.5) & (timing < 0.5)).all():
        raise PianoRollError("timing: found a value outside [-0.5, 0.5) steps")


def onset_ticks(
    roll: np.ndarray, timing: np.ndarray, ticks_per_quarter: int, steps_per_bar: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The hits of a roll as onsets in MIDI ticks: the inverse of `quantize` and `piano_roll`.

    Each onset is the tick nearest to step + timing among those that `quantize` takes back to the
    step, so that no rounding moves a hit to its neighbour.

    Args:
        roll: uint8 (9, steps).
        timing: float32 (9, steps).
        ticks_per_quarter: the resolution to write in.
        steps_per_bar: steps in a bar.

    Returns:
        ticks int64 (hits,) in time order, drums int64 (hits,) and velocities uint8 (hits,). A hit
        that is early on the first step has a negative tick.
    """
    steps, drums = np.nonzero(roll.T)
    offsets = timing[drums, steps].astype(np.float64)
    ticks_per_bar = QUARTERS_PER_BAR * ticks_per_quarter
    nearest = np.floor((steps + offsets) * ticks_per_bar / steps_per_bar + 0.5).astype(np.int64)
    earliest = -((1 - 2 * steps) * ticks_per_bar // (2 * steps_per_bar))
    latest = -((-1 - 2 * steps) * ticks_per_bar // (2 * steps_per_bar)) - 1
    ticks = np.clip(nearest, earliest, latest)
    order = np.argsort(ticks, kind="stable")
    return ticks[order], drums[order], roll[drums, steps][order]
