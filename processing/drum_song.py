"""A user's drums on the grid: every bar in its place, and what it takes to write them back."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from .bar_lines import (
    QUARTERS_PER_BAR,
    Stretch,
    find_stretches,
    metre_error,
    nearest_bar_line,
    song_grid,
)
from .drum_kit import NUM_DRUMS, Pitches
from .drum_notes import DrumNotes, NoteCounts, Remark, bpm_at, merge_remark
from .errors import MidiLengthError
from .midi_file import MAX_BARS, MidiContent
from .piano_roll import adjust_time, cut_windows, piano_roll, quantize


class SongLayout(NamedTuple):
    """All that a file of drums has besides its hits, in ticks of that file.

    Attributes:
        channel: 1 to 16.
        pitches: the pitch to write for each of the nine drums.
        ticks_per_quarter: resolution of the ticks below.
        tempos: (tick, microseconds a quarter), the first at tick 0.
        time_signatures: (tick, numerator, denominator), the first at tick 0.
        start_tick: where the first bar starts; negative where it is a pickup, the end of a bar.
        end_tick: the bar line at which the file ends.
        is_loop: whether the end leads to the start: an early hit on the first step is at the end.
    """

    channel: int
    pitches: tuple[int, ...]
    ticks_per_quarter: int
    tempos: list[tuple[int, int]]
    time_signatures: list[tuple[int, int, int]]
    start_tick: int
    end_tick: int
    is_loop: bool

    def seconds(self, ticks: np.ndarray) -> np.ndarray:
        """float64: the times of ticks; before tick 0, the first tempo's."""
        starts, microseconds = np.array(self.tempos, np.float64).T
        tick_seconds = microseconds / self.ticks_per_quarter / 1e6
        times = np.concatenate([[0], np.cumsum(np.diff(starts) * tick_seconds[:-1])])
        tempo = np.maximum(np.searchsorted(starts, ticks, side="right") - 1, 0)
        return times[tempo] + (ticks - starts[tempo]) * tick_seconds[tempo]


@dataclass(frozen=True, eq=False)
class DrumSong:
    """The drums of a file, and what it takes to write them back.

    Attributes:
        name: of the file, for messages.
        piano_roll: uint8 (windows, 9, steps), windows side by side; silence pads the last one.
        timing: float32 (windows, 9, steps).
        bpm: float32 (windows,), the tempo at the start of each window, in quarters a minute.
        num_bars: bars of the song, without the padding.
        layout: of the file.
        counts: of the notes that were read.
        remarks: what was read otherwise than it stands, or not at all.
    """

    name: str
    piano_roll: np.ndarray
    timing: np.ndarray
    bpm: np.ndarray
    num_bars: int
    layout: SongLayout
    counts: NoteCounts
    remarks: tuple[Remark, ...]


class _Placement(NamedTuple):
    """Hits on the steps of a song, in ticks of its file."""

    steps: np.ndarray
    offsets: np.ndarray
    start_tick: int
    dropped_ticks: int
    num_bars: int
    end_line: int
    is_loop: bool
    remarks: tuple[Remark, ...]


def read_song(
    midi: MidiContent,
    notes: DrumNotes,
    pitches: Pitches,
    bars: int,
    steps_per_bar: int,
    adjust_mode: str,
    name: str,
) -> DrumSong:
    """A file with every bar in its place.

    The song ends at the bar line nearest to the end of the file, or after the bar of the last hit.
    Where a file ends on a bar line and its last hits are early ones on that line, it is a loop, and
    they are the first step's.

    Args:
        midi: the file's content.
        notes: its drum hits.
        pitches: of each drum, the first being the one to write.
        bars: bars in a window.
        steps_per_bar: steps in a bar.
        adjust_mode: what becomes of silence before the music, see `adjust_time`.
        name: of the file.

    Raises:
        TimeSignatureError: a bar up to the last hit is in another metre.
        MidiLengthError: there are more than `MAX_BARS` bars.
    """
    place = _place(midi, notes, steps_per_bar, adjust_mode)
    num_windows = -(-place.num_bars // bars)
    window = bars * steps_per_bar
    grids = piano_roll(
        place.steps, notes.drums, notes.velocities, place.offsets, num_windows * window
    )
    num_merged = len(place.steps) - int(np.count_nonzero(grids[0]))
    roll, timing = (cut_windows(grid, window, window) for grid in grids)
    layout = _layout(midi, notes, pitches, place)
    return DrumSong(
        name=name,
        piano_roll=roll,
        timing=timing,
        bpm=bpm_of_bars(layout, bars * np.arange(num_windows)),
        num_bars=place.num_bars,
        layout=layout,
        counts=notes.counts._replace(merged=num_merged),
        remarks=notes.remarks + place.remarks + merge_remark(num_merged, len(place.steps)),
    )


def bpm_of_bars(layout: SongLayout, bars: np.ndarray) -> np.ndarray:
    """float32 (bars,): the tempo at the start of each bar, counted from 0."""
    ticks = layout.start_tick + bars * QUARTERS_PER_BAR * layout.ticks_per_quarter
    return bpm_at(layout.tempos, np.maximum(ticks, 0)).astype(np.float32)


def _layout(midi: MidiContent, notes: DrumNotes, pitches: Pitches, place: _Placement) -> SongLayout:
    first_tick = place.start_tick if place.dropped_ticks else 0
    bar_ticks = QUARTERS_PER_BAR * midi.ticks_per_quarter
    return SongLayout(
        channel=notes.channel,
        pitches=_written_pitches(notes, pitches),
        ticks_per_quarter=midi.ticks_per_quarter,
        tempos=_from_tick(midi.tempos, first_tick),
        time_signatures=_from_tick(midi.time_signatures, first_tick),
        start_tick=place.start_tick - first_tick,
        end_tick=max(place.end_line, place.start_tick + place.num_bars * bar_ticks) - first_tick,
        is_loop=place.is_loop,
    )


def _place(midi: MidiContent, notes: DrumNotes, steps_per_bar: int, adjust_mode: str) -> _Placement:
    grid = (midi.ticks_per_quarter, steps_per_bar)
    bar_ticks = QUARTERS_PER_BAR * midi.ticks_per_quarter
    stretches = find_stretches(midi.time_signatures, midi.ticks_per_quarter)
    origin, max_bars = song_grid(stretches)
    end_line, remarks = _end_line(midi, notes, stretches)
    ticks = notes.ticks - origin
    is_loop = False
    if origin == 0 and adjust_mode != "first_onset" and midi.end_tick <= end_line:
        early = _on_end_line(ticks, end_line, *grid)
        ticks = np.where(early, ticks - end_line, ticks)
        is_loop = bool(early.any())
    if quantize(ticks, *grid)[0].max() // steps_per_bar >= max_bars:
        raise metre_error(stretches, max_bars)

    moved = adjust_time(ticks, *grid, adjust_mode)
    dropped_ticks = int(ticks[0] - moved[0])
    steps, offsets = quantize(moved, *grid)
    start_tick = origin + dropped_ticks
    num_bars = min((end_line - start_tick) // bar_ticks, max_bars - dropped_ticks // bar_ticks)
    num_bars = max(num_bars, int(steps.max()) // steps_per_bar + 1)
    if num_bars > MAX_BARS:
        raise MidiLengthError(f"found {num_bars} bars, expected at most {MAX_BARS}")
    return _Placement(
        steps, offsets, start_tick, dropped_ticks, num_bars, end_line, is_loop, remarks
    )


def _end_line(
    midi: MidiContent, notes: DrumNotes, stretches: list[Stretch]
) -> tuple[int, tuple[Remark, ...]]:
    """The bar line at which a file ends; of one that goes on for ever, its last hit."""
    end_line = nearest_bar_line(stretches, midi.end_tick)
    if end_line <= MAX_BARS * QUARTERS_PER_BAR * midi.ticks_per_quarter:
        return end_line, ()
    text = f"the silence after the last hit reaches beyond bar {MAX_BARS}: left out"
    return int(notes.ticks[-1]), (Remark("silence", text),)


def _on_end_line(
    ticks: np.ndarray, end_line: int, ticks_per_quarter: int, steps_per_bar: int
) -> np.ndarray:
    """bool (hits,): the hits that are early ones on the line at which a file ends."""
    steps, _ = quantize(ticks, ticks_per_quarter, steps_per_bar)
    bar_ticks = QUARTERS_PER_BAR * ticks_per_quarter
    return (steps * bar_ticks == end_line * steps_per_bar) & (ticks > 0) & (ticks < end_line)


def _written_pitches(notes: DrumNotes, pitches: Pitches) -> tuple[int, ...]:
    """For each drum its first pitch or, where the file has others only, the most frequent."""
    written = [group[0] for group in pitches]
    for drum in range(NUM_DRUMS):
        found = notes.pitches[notes.drums == drum]
        if len(found) and written[drum] not in found:
            written[drum] = int(np.bincount(found).argmax())
    return tuple(written)


def _from_tick(events: list[tuple], first_tick: int) -> list[tuple]:
    """Events as they are for a file that starts at `first_tick`."""
    moved = {max(0, tick - first_tick): values for tick, *values in events}
    return [(tick, *values) for tick, values in moved.items()]
