"""Windows of drums for training: those of a file's bars in 4/4 that hold a hit."""

from typing import NamedTuple

import numpy as np

from .bar_lines import QUARTERS_PER_BAR, Stretch, find_stretches, metre_error
from .counted import counted
from .drum_notes import DrumNotes, Remark, bpm_at, merge_remark
from .midi_file import MidiContent
from .piano_roll import adjust_time, piano_roll, quantize, split_sequence


class TrainingWindows(NamedTuple):
    """Windows of one recording that hold only whole bars of 4/4 and at least one hit.

    Attributes:
        piano_roll: uint8 (windows, 9, steps).
        timing: float32 (windows, 9, steps).
        bpm: float32 (windows,), the tempo at the start of each window.
        start_bar: int64 (windows,), the bar in which each window starts.
        num_bars: bars from the first to the last hit of the longest stretch in 4/4.
        remarks: what was read otherwise than it stands, or not at all.
    """

    piano_roll: np.ndarray
    timing: np.ndarray
    bpm: np.ndarray
    start_bar: np.ndarray
    num_bars: int
    remarks: tuple[Remark, ...]


class _StretchWindows(NamedTuple):
    piano_roll: np.ndarray
    timing: np.ndarray
    bpm: np.ndarray
    start_bar: np.ndarray  # counted from the first bar of the file
    first_bar: int
    num_bars: int
    num_hits: int
    num_merged: int


def read_training_windows(
    midi: MidiContent,
    notes: DrumNotes,
    bars: int,
    hop_bars: int,
    steps_per_bar: int,
    adjust_mode: str,
) -> TrainingWindows:
    """The windows of a file, from each of its stretches in 4/4.

    Bars are counted from the first with a hit or, where `adjust_mode` is "none", from the first of
    the file.

    Args:
        midi: the file's content.
        notes: its drum hits.
        bars: bars in a window.
        hop_bars: bars from the start of one window to the start of the next.
        steps_per_bar: steps in a bar.
        adjust_mode: what becomes of silence before the music of a stretch, see `adjust_time`.

    Raises:
        TimeSignatureError: no hit lies in a bar of 4/4.
    """
    grid = (midi.ticks_per_quarter, steps_per_bar)
    stretches = find_stretches(midi.time_signatures, midi.ticks_per_quarter)
    found = []
    for stretch in stretches:
        hits = _hits_of(stretch, notes.ticks, *grid)
        if stretch.metre is None and hits.start < hits.stop:
            part = notes._replace(
                ticks=notes.ticks[hits],
                drums=notes.drums[hits],
                pitches=notes.pitches[hits],
                velocities=notes.velocities[hits],
            )
            found.append(
                _read_stretch(midi, part, stretch, bars, hop_bars, steps_per_bar, adjust_mode)
            )
    if not found:
        raise metre_error(stretches, next(s.first_bar for s in stretches if s.metre))
    first_bar = 0 if adjust_mode == "none" else found[0].first_bar
    num_hits = sum(part.num_hits for part in found)
    remarks = notes.remarks + merge_remark(sum(part.num_merged for part in found), num_hits)
    if others := len(notes.ticks) - num_hits:
        text = f"{others} of {counted(len(notes.ticks), 'note')} left out, in bars of another metre"
        remarks += (Remark("other metres", text),)
    rolls, timings, bpm, start_bar = (
        np.concatenate([part[column] for part in found]) for column in range(4)
    )
    num_bars = max(part.num_bars for part in found)
    return TrainingWindows(rolls, timings, bpm, start_bar - first_bar, num_bars, remarks)


def _read_stretch(
    midi: MidiContent,
    notes: DrumNotes,
    stretch: Stretch,
    bars: int,
    hop_bars: int,
    steps_per_bar: int,
    adjust_mode: str,
) -> _StretchWindows:
    grid = (midi.ticks_per_quarter, steps_per_bar)
    bar_ticks = QUARTERS_PER_BAR * midi.ticks_per_quarter
    ticks = adjust_time(notes.ticks - stretch.start, *grid, adjust_mode)
    dropped = int(notes.ticks[0] - stretch.start - ticks[0])
    steps, offsets = quantize(ticks, *grid)
    num_bars = int(steps.max()) // steps_per_bar + 1
    roll, timing = piano_roll(
        steps, notes.drums, notes.velocities, offsets, num_bars * steps_per_bar
    )
    rolls, timings, starts = split_sequence(roll, timing, bars, steps_per_bar, hop_bars)
    start_ticks = stretch.start + dropped + starts * bar_ticks
    first_bar = stretch.first_bar + dropped // bar_ticks
    return _StretchWindows(
        rolls,
        timings,
        bpm_at(midi.tempos, start_ticks).astype(np.float32),
        first_bar + starts,
        first_bar,
        num_bars,
        len(steps),
        len(steps) - int(np.count_nonzero(roll)),
    )


def _hits_of(
    stretch: Stretch, ticks: np.ndarray, ticks_per_quarter: int, steps_per_bar: int
) -> slice:
    """The hits on the steps of a stretch, among them those up to half a step before its start."""
    bar_ticks = QUARTERS_PER_BAR * ticks_per_quarter
    earliest = [
        -((bar_ticks - 2 * steps_per_bar * line) // (2 * steps_per_bar))
        for line in (stretch.start, stretch.end)
    ]
    return slice(*np.searchsorted(ticks, earliest))
