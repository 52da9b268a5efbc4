"""Standard MIDI Files in and out: drum hits in ticks, and nothing of the grid."""

import io
import re
from typing import NamedTuple

import mido
import numpy as np
import pretty_midi

from .errors import (
    MidiFormatError,
    MidiLengthError,
    NoDrumHitsError,
    TempoError,
    TimeSignatureError,
)

DRUM_CHANNEL = 9  # channel 10, counted from 1
DEFAULT_BPM = 120.0  # what the standard assumes where a file names no tempo
MIN_BPM, MAX_BPM = 20.0, 500.0
MAX_BARS = 4096  # more than two hours at 120 bpm
MAX_BYTES = 1 << 20  # six times the longest file of the Groove MIDI Dataset
WRITTEN_TICKS_PER_QUARTER = 480

# A number in a MIDI file has at most four bytes, all but its last above 0x7f. mido reads on as
# long as they are, in time quadratic in their count; text of that kind is never so long.
_ENDLESS_NUMBER = re.compile(rb"[\x80-\xff]{1024}")


class DrumHits(NamedTuple):
    """The drum hits of one recording, in time order.

    Attributes:
        ticks: int64 (hits,), onsets in MIDI ticks.
        pitches: int64 (hits,), MIDI pitches.
        velocities: int64 (hits,), 1 to 127.
        ticks_per_quarter: the resolution of `ticks`.
        bpm: the one tempo of the recording, in quarters a minute.
    """

    ticks: np.ndarray
    pitches: np.ndarray
    velocities: np.ndarray
    ticks_per_quarter: int
    bpm: float


def read_drum_hits(data: bytes) -> DrumHits:
    """Reads the notes on the drum channel of a MIDI file in 4/4 with one tempo.

    Onsets stay in ticks. How long a note is held means nothing on a drum, so a note that never
    ends is a hit like any other, and so is one that ends at once; only a note that starts and ends
    together with its track is none, for the recording stopped before it sounded.

    Raises:
        MidiFormatError: `data` is not a MIDI file of type 0 or 1, or is damaged.
        TimeSignatureError: the metre is not 4/4 throughout.
        TempoError: the tempo changes, or is not within `MIN_BPM` to `MAX_BPM`.
        NoDrumHitsError: there is no note on the drum channel.
        MidiLengthError: the last hit lies beyond `MAX_BARS` bars, or the file exceeds `MAX_BYTES`.
    """
    midi = _parse(data)
    hits: list[tuple[int, int, int]] = []
    tempos: set[int] = set()
    for track in midi.tracks:
        hits += _track_hits(track)
        for message in track:
            if message.type == "set_tempo":
                tempos.add(message.tempo)
            elif message.type == "time_signature":
                _check_time_signature(message.numerator, message.denominator)
    bpm = _only_tempo(tempos)
    if not hits:
        raise NoDrumHitsError("found no note on channel 10, expected drum hits")
    hits.sort()  # by time, so that it does not matter how a kit is spread over tracks
    if hits[-1][0] >= MAX_BARS * 4 * midi.ticks_per_beat:
        raise MidiLengthError(f"found a hit after bar {MAX_BARS}, expected at most {MAX_BARS} bars")
    ticks, pitches, velocities = np.array(hits, dtype=np.int64).T
    return DrumHits(ticks, pitches, velocities, midi.ticks_per_beat, bpm)


def _parse(data: bytes) -> mido.MidiFile:
    if not data.startswith(b"MThd"):
        found = f"it starts with {data[:4]!r}" if data else "it is empty"
        raise MidiFormatError(f"not a MIDI file: {found}, expected b'MThd'")
    if len(data) > MAX_BYTES:
        raise MidiLengthError(f"found more than {MAX_BYTES} bytes, expected no more")
    if _ENDLESS_NUMBER.search(data):
        raise MidiFormatError("damaged MIDI file: found a number without end")
    try:
        midi = mido.MidiFile(file=io.BytesIO(data))
    except EOFError as error:
        raise MidiFormatError("damaged MIDI file: it ends too early") from error
    except LookupError as error:
        raise MidiFormatError("damaged MIDI file: it holds a malformed event") from error
    except Exception as error:  # mido names no error of its own: damage surfaces as almost any
        raise MidiFormatError(f"damaged MIDI file: {error or type(error).__name__}") from error
    if midi.type not in (0, 1):
        raise MidiFormatError(f"found a MIDI file of type {midi.type}, expected type 0 or 1")
    if midi.ticks_per_beat <= 0:
        found = "in SMPTE frames" if midi.ticks_per_beat else "of 0"
        raise MidiFormatError(f"found a time division {found}, expected ticks per quarter note")
    return midi


def _track_hits(track: mido.MidiTrack) -> list[tuple[int, int, int]]:
    hits, released, tick = [], {}, 0
    for message in track:
        tick += message.time
        if message.type not in ("note_on", "note_off") or message.channel != DRUM_CHANNEL:
            continue
        if message.type == "note_on" and message.velocity > 0:
            hits.append((tick, message.note, message.velocity))
        else:
            released[message.note] = tick
    return [hit for hit in hits if not hit[0] == tick == released.get(hit[1])]


def _check_time_signature(numerator: int, denominator: int) -> None:
    if (numerator, denominator) != (4, 4):
        raise TimeSignatureError(f"found time signature {numerator}/{denominator}, expected 4/4")


def _only_tempo(tempos: set[int]) -> float:
    bpms = sorted(60e6 / tempo if tempo else np.inf for tempo in tempos) or [DEFAULT_BPM]
    if len(bpms) > 1:
        raise TempoError(f"found tempos from {bpms[0]:.9g} to {bpms[-1]:.9g} bpm, expected one")
    if not MIN_BPM <= bpms[0] <= MAX_BPM:
        raise TempoError(f"found tempo {bpms[0]:g} bpm, expected {MIN_BPM:g} to {MAX_BPM:g}")
    return bpms[0]


def pretty_midi_bytes(midi: pretty_midi.PrettyMIDI) -> bytes:
    """The MIDI file that a `PrettyMIDI` would write.

    Raises:
        MidiFormatError: it holds what no MIDI file can, such as a velocity above 127.
    """
    buffer = io.BytesIO()
    try:
        midi.write(buffer)
    except Exception as error:  # neither pretty_midi nor mido names its errors
        raise MidiFormatError(f"found a PrettyMIDI that cannot be written: {error}") from error
    return buffer.getvalue()


def write_drum_hits(
    ticks: np.ndarray,
    pitches: np.ndarray,
    velocities: np.ndarray,
    max_duration: int,
    bpm: float,
) -> pretty_midi.PrettyMIDI:
    """Drum hits as a `PrettyMIDI` in 4/4, on the drum channel.

    Args:
        ticks: int64 (hits,), not negative, at `WRITTEN_TICKS_PER_QUARTER`.
        pitches: int64 (hits,).
        velocities: (hits,), 1 to 127.
        max_duration: length of a note in ticks; shorter where its pitch is struck again sooner.
        bpm: tempo in quarters a minute, written to the nearest microsecond a quarter.
    """
    # PrettyMIDI cuts the microseconds of a quarter to a whole number: start just above one.
    bpm = 60e6 / (round(60e6 / float(bpm)) + 1e-6)
    midi = pretty_midi.PrettyMIDI(resolution=WRITTEN_TICKS_PER_QUARTER, initial_tempo=bpm)
    midi.time_signature_changes.append(pretty_midi.TimeSignature(4, 4, 0))
    drums = pretty_midi.Instrument(program=0, is_drum=True, name="drums")
    midi.instruments.append(drums)
    ends = ticks + max_duration
    for pitch in np.unique(pitches):
        (same,) = np.nonzero(pitches == pitch)
        ends[same[:-1]] = np.minimum(ends[same[:-1]], ticks[same[1:]])
    seconds_per_tick = 60.0 / (bpm * WRITTEN_TICKS_PER_QUARTER)
    for tick, end, pitch, velocity in zip(ticks, ends, pitches, velocities, strict=True):
        drums.notes.append(
            pretty_midi.Note(
                int(velocity), int(pitch), tick * seconds_per_tick, end * seconds_per_tick
            )
        )
    return midi
