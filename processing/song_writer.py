"""Piano rolls as MIDI files: new grooves, and songs in the place of those that were read."""

import warnings

import numpy as np

from .bar_lines import QUARTERS_PER_BAR
from .counted import counted
from .drum_song import DrumSong, SongLayout
from .errors import PianoRollError
from .midi_file import DEFAULT_BPM, DRUM_CHANNEL, MAX_BARS, microseconds_per_quarter
from .midi_writer import DrumMidi, midi_bytes, note_events, tempo_events
from .piano_roll import check_piano_roll, join_windows, onset_ticks

# The least resolution of a written file: a coarser one would round microtiming away.
TICKS_PER_QUARTER = 480


def drums_in_place(
    piano_roll: np.ndarray,
    timing: np.ndarray | None,
    bpm: float | None,
    like: DrumSong | None,
    steps_per_bar: int,
    pitches: tuple[int, ...],
    lead_in_bars: int = 0,
) -> tuple[np.ndarray, np.ndarray, SongLayout]:
    """Checked drums as one piano roll and timing (9, steps), and the layout of what they become.

    Args:
        piano_roll, timing, bpm, like, lead_in_bars: see `MidiProcessor.decode`.
        steps_per_bar: steps in a bar.
        pitches: of a new groove.

    Raises:
        PianoRollError, TempoError, ValueError: see `MidiProcessor.decode`.
    """
    roll = np.asarray(piano_roll)
    timing = np.zeros(roll.shape, np.float32) if timing is None else np.asarray(timing)
    if roll.ndim == 3 and len(roll) and roll.shape == timing.shape:
        num_steps = None
        if like is not None and len(roll) == len(like.piano_roll):  # with its padding
            num_steps = like.num_bars * steps_per_bar
        roll, timing = (join_windows(grid)[:, :num_steps] for grid in (roll, timing))
    check_piano_roll(roll, timing)
    num_bars = -(-roll.shape[1] // steps_per_bar)
    if (found := lead_in_bars + num_bars) > MAX_BARS:
        raise PianoRollError(f"piano_roll: found {found} bars, expected at most {MAX_BARS}")
    if like is None:
        layout = groove_layout(DEFAULT_BPM if bpm is None else bpm, pitches, num_bars)
    elif bpm is None:
        layout = layout_like(like, num_bars, lead_in_bars)
    else:
        raise ValueError(f"bpm: found {bpm!r} for the place of {like.name}, expected none")
    return roll, timing, layout


def groove_layout(bpm: float, pitches: tuple[int, ...], num_bars: int) -> SongLayout:
    """The layout of a new groove: a loop at one tempo, to the nearest microsecond a quarter.

    Raises:
        TempoError: `bpm` is not within `MIN_BPM` to `MAX_BPM`.
    """
    return SongLayout(
        channel=DRUM_CHANNEL,
        pitches=pitches,
        ticks_per_quarter=TICKS_PER_QUARTER,
        tempos=[(0, microseconds_per_quarter(bpm))],
        time_signatures=[(0, 4, 4)],
        start_tick=0,
        end_tick=num_bars * QUARTERS_PER_BAR * TICKS_PER_QUARTER,
        is_loop=True,
    )


def layout_like(song: DrumSong, num_bars: int, lead_in_bars: int) -> SongLayout:
    """The layout of a song, for as many bars as it has, or more.

    Raises:
        PianoRollError: the song has more bars.
        ValueError: a lead-in would come before a pickup.
    """
    layout = song.layout
    if num_bars < song.num_bars:
        raise PianoRollError(
            f"piano_roll: found {counted(num_bars, 'bar')}, expected the {song.num_bars} of "
            f"{song.name}"
        )
    if lead_in_bars and layout.start_tick < 0:
        raise ValueError(
            f"lead_in_bars: found {lead_in_bars} before {song.name}, which starts with a pickup, "
            "expected 0"
        )
    if num_bars == song.num_bars:
        return layout
    bar_ticks = QUARTERS_PER_BAR * layout.ticks_per_quarter
    return layout._replace(end_tick=layout.start_tick + num_bars * bar_ticks)


def write_song(
    roll: np.ndarray,
    timing: np.ndarray,
    layout: SongLayout,
    steps_per_bar: int,
    lead_in_bars: int,
    name: str,
) -> DrumMidi:
    """Hits as a file of whole bars; a note lasts a step, or until its drum is struck again.

    Args:
        roll: uint8 (9, steps).
        timing: float32 (9, steps).
        layout: of the file.
        steps_per_bar: steps in a bar.
        lead_in_bars: silent bars before the music.
        name: of the song, for a warning about hits before the start of a pickup.
    """
    layout = written_layout(layout, lead_in_bars)
    ticks, drums, velocities = placed_hits(roll, timing, layout, steps_per_bar, name)
    notes = note_events(
        ticks,
        np.array(layout.pitches)[drums],
        velocities,
        layout.channel,
        QUARTERS_PER_BAR * layout.ticks_per_quarter // steps_per_bar,
        layout.end_tick,
    )
    tracks = {"tempo": tempo_events(layout.tempos, layout.time_signatures), "drums": notes}
    return DrumMidi(midi_bytes(tracks, layout.ticks_per_quarter, layout.end_tick))


def written_layout(layout: SongLayout, lead_in_bars: int = 0) -> SongLayout:
    """A layout after a lead-in, and in at least `TICKS_PER_QUARTER`."""
    scale = -(-TICKS_PER_QUARTER // layout.ticks_per_quarter)
    ticks_per_quarter = scale * layout.ticks_per_quarter
    lead_in = lead_in_bars * QUARTERS_PER_BAR * ticks_per_quarter
    tempos, time_signatures = (
        [(scale * event[0] + lead_in if event[0] else 0, *event[1:]) for event in events]
        for events in (layout.tempos, layout.time_signatures)
    )
    return layout._replace(
        ticks_per_quarter=ticks_per_quarter,
        tempos=tempos,
        time_signatures=time_signatures,
        start_tick=scale * layout.start_tick + lead_in,
        end_tick=scale * layout.end_tick + lead_in,
    )


def placed_hits(
    roll: np.ndarray, timing: np.ndarray, layout: SongLayout, steps_per_bar: int, name: str
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The hits of a roll at the ticks of a written file.

    An early hit on the first step lies at the end of a loop, where it leads to the start, and at
    the start of any other file, unless silence comes first. Hits before the start of a pickup are
    left out with a warning, which has the song's name.

    Returns:
        ticks int64 (hits,) in time order, drums int64 (hits,) and velocities uint8 (hits,).
    """
    ticks, drums, velocities = onset_ticks(roll, timing, layout.ticks_per_quarter, steps_per_bar)
    ticks += layout.start_tick
    if layout.is_loop:
        ticks = np.where(ticks < 0, ticks + layout.end_tick, ticks)
    is_inside = 2 * steps_per_bar * ticks >= -QUARTERS_PER_BAR * layout.ticks_per_quarter
    if not is_inside.all():
        hits = counted(int(np.count_nonzero(~is_inside)), "hit")
        text = f"{name}: {hits} left out, before its pickup"
        warnings.warn(text, stacklevel=5)
    ticks = np.maximum(ticks, 0)
    order = np.argsort(ticks, kind="stable")
    order = order[is_inside[order]]
    return ticks[order], drums[order], velocities[order]
