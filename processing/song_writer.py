"""Piano rolls as MIDI files: new grooves, and songs in the place of those that were read."""

import warnings

import numpy as np

from .bar_lines import QUARTERS_PER_BAR
from .drum_song import DrumSong, SongLayout
from .errors import PianoRollError, TempoError
from .midi_file import DRUM_CHANNEL, MAX_BPM, MIN_BPM
from .midi_writer import DrumMidi, midi_bytes, note_events, tempo_events
from .piano_roll import onset_ticks

# The least resolution of a written file: a coarser one would round microtiming away.
TICKS_PER_QUARTER = 480


def groove_layout(bpm: float, pitches: tuple[int, ...], num_bars: int) -> SongLayout:
    """The layout of a new groove: a loop at one tempo, to the nearest microsecond a quarter.

    Raises:
        TempoError: `bpm` is not within `MIN_BPM` to `MAX_BPM`.
    """
    if not MIN_BPM <= bpm <= MAX_BPM:
        raise TempoError(f"bpm: found {bpm!r}, expected {MIN_BPM:g} to {MAX_BPM:g}")
    return SongLayout(
        channel=DRUM_CHANNEL,
        pitches=pitches,
        ticks_per_quarter=TICKS_PER_QUARTER,
        tempos=[(0, round(60e6 / float(bpm)))],
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
            f"piano_roll: found {num_bars} bars, expected the {song.num_bars} of {song.name}"
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

    An early hit on the first step is written at the end of a loop, where it leads to the start, and
    at the start of any other file, unless silence comes first.

    Args:
        roll: uint8 (9, steps).
        timing: float32 (9, steps).
        layout: of the file; resolutions below `TICKS_PER_QUARTER` are multiplied.
        steps_per_bar: steps in a bar.
        lead_in_bars: silent bars before the music.
        name: of the song, for a warning about hits before the start of a pickup.
    """
    scale = -(-TICKS_PER_QUARTER // layout.ticks_per_quarter)
    ticks_per_quarter = scale * layout.ticks_per_quarter
    bar_ticks = QUARTERS_PER_BAR * ticks_per_quarter
    lead_in = lead_in_bars * bar_ticks
    end_tick = scale * layout.end_tick + lead_in
    ticks, drums, velocities = onset_ticks(roll, timing, ticks_per_quarter, steps_per_bar)
    ticks += scale * layout.start_tick + lead_in
    if layout.is_loop:
        ticks = np.where(ticks < 0, ticks + end_tick, ticks)
    is_inside = 2 * steps_per_bar * ticks >= -bar_ticks
    if not is_inside.all():
        text = f"{name}: {np.count_nonzero(~is_inside)} hits lie before its pickup: left out"
        warnings.warn(text, stacklevel=4)
    ticks = np.maximum(ticks[is_inside], 0)
    order = np.argsort(ticks, kind="stable")
    notes = note_events(
        ticks[order],
        np.array(layout.pitches)[drums[is_inside][order]],
        velocities[is_inside][order],
        layout.channel,
        bar_ticks // steps_per_bar,
        end_tick,
    )
    tempos, time_signatures = (
        [(scale * tick + lead_in if tick else 0, *values) for tick, *values in events]
        for events in (layout.tempos, layout.time_signatures)
    )
    tracks = {"tempo": tempo_events(tempos, time_signatures), "drums": notes}
    return DrumMidi(midi_bytes(tracks, ticks_per_quarter, end_tick))
