"""Standard MIDI Files, read: their notes, tempos and time signatures in ticks.

The reader is strict about what decides where drums are, and lenient about everything else: unknown
chunks, odd controllers, text in any encoding and metadata of odd lengths are passed over. One pass
over at most `MAX_BYTES` bytes bounds time and memory, whatever a file claims to hold.
"""

import struct
from typing import NamedTuple

import numpy as np

from .errors import MidiFormatError, MidiLengthError, TempoError, TimeSignatureError

DRUM_CHANNEL = 10
DEFAULT_TEMPO = 500_000  # microseconds a quarter, where a file names none
DEFAULT_BPM = 60e6 / DEFAULT_TEMPO
MIN_BPM, MAX_BPM = 20.0, 500.0
MAX_BARS = 4096  # more than two hours at 120 bpm
MAX_BYTES = 1 << 20  # six times the longest file of the Groove MIDI Dataset
MAX_TICK = 1 << 43  # so that a note fits into an integer of 64 bits

NOTE_OFF, NOTE_ON, PROGRAM_CHANGE, CHANNEL_PRESSURE = 0x80, 0x90, 0xC0, 0xD0
SYSTEM, SYSTEM_EXCLUSIVE, ESCAPE, META = 0xF0, 0xF0, 0xF7, 0xFF
END_OF_TRACK, SET_TEMPO, TIME_SIGNATURE = 0x2F, 0x51, 0x58
# Data bytes of the other system messages; those that the standard leaves undefined are not here.
SYSTEM_DATA_BYTES = {
    0xF1: 1,
    0xF2: 2,
    0xF3: 1,
    0xF6: 0,
    0xF8: 0,
    0xFA: 0,
    0xFB: 0,
    0xFC: 0,
    0xFE: 0,
}


class Notes(NamedTuple):
    """Notes in time order, those of one tick from low to high and from soft to loud.

    Attributes:
        ticks: int64 (notes,), onsets.
        pitches: int64 (notes,), 0 to 127, or up to 255 where a file is damaged.
        velocities: int64 (notes,), 1 to 127, or up to 255 where a file is damaged.
        channels: int64 (notes,), 1 to 16.
    """

    ticks: np.ndarray
    pitches: np.ndarray
    velocities: np.ndarray
    channels: np.ndarray


class MidiContent(NamedTuple):
    """The content of a file that concerns drums.

    How long a note is held means nothing on a drum, so a note that never ends is a hit like any
    other, and so is one that ends at once. Only a note that starts and ends together with the last
    track is none, for the recording stopped before it sounded.

    Attributes:
        ticks_per_quarter: resolution of all ticks.
        notes: of all channels and tracks.
        cut_off: the notes that start and end together with the last track, not in `notes`.
        tempos: (tick, microseconds a quarter), in time order, the first at tick 0, one a tick.
        time_signatures: (tick, numerator, denominator), in the same way.
        end_tick: where the last track ends.
    """

    ticks_per_quarter: int
    notes: Notes
    cut_off: Notes
    tempos: list[tuple[int, int]]
    time_signatures: list[tuple[int, int, int]]
    end_tick: int


class _Events:
    """The events of the tracks that were read so far."""

    def __init__(self):
        self.notes: list[int] = []  # see `_unpacked`
        self.last_notes: list[int] = []  # those that start and end together with their track
        self.tempos: list[tuple[int, int]] = []
        self.time_signatures: list[tuple[int, int, int]] = []
        self.end_tick = 0


def microseconds_per_quarter(bpm: float) -> int:
    """The tempo as a MIDI file has it.

    Raises:
        TempoError: `bpm` is not within `MIN_BPM` to `MAX_BPM`.
    """
    if not MIN_BPM <= bpm <= MAX_BPM:
        raise TempoError(f"bpm: found {bpm!r}, expected {MIN_BPM:g} to {MAX_BPM:g}")
    return round(60e6 / float(bpm))


def read_midi(data: bytes, default_tempo: int = DEFAULT_TEMPO) -> MidiContent:
    """Reads a Standard MIDI File of type 0 or 1, also one in a RIFF container.

    Args:
        data: the content of the file.
        default_tempo: microseconds a quarter before the first tempo event.

    Raises:
        MidiFormatError: `data` is not such a file, or is damaged where it concerns drums.
        MidiLengthError: the file exceeds `MAX_BYTES`, or its last event `MAX_TICK`.
        TempoError, TimeSignatureError: a tempo or time signature that cannot be.
    """
    if len(data) > MAX_BYTES:
        raise MidiLengthError(f"found more than {MAX_BYTES} bytes, expected no more")
    data = _without_riff(data)
    if not data.startswith(b"MThd"):
        found = f"it starts with {data[:4]!r}" if data else "it is empty"
        raise MidiFormatError(f"not a MIDI file: {found}, expected b'MThd'")
    if len(data) < 14:
        raise MidiFormatError("damaged MIDI file: it ends in its header")
    header_size, file_type, num_tracks, division = struct.unpack(">LHHH", data[4:14])
    if file_type not in (0, 1):
        raise MidiFormatError(f"found a MIDI file of type {file_type}, expected type 0 or 1")
    if not 0 < division < 0x8000:
        found = "in SMPTE frames" if division else "of 0"
        raise MidiFormatError(f"found a time division {found}, expected ticks per quarter note")
    events = _read_tracks(data, 8 + max(6, header_size), num_tracks)
    cut_off = [note for note in events.last_notes if note >> 20 == events.end_tick]
    notes = events.notes + [note for note in events.last_notes if note >> 20 < events.end_tick]
    return MidiContent(
        ticks_per_quarter=division,
        notes=_unpacked(notes),
        cut_off=_unpacked(cut_off),
        tempos=_in_time_order((0, default_tempo), events.tempos),
        time_signatures=_in_time_order((0, 4, 4), events.time_signatures),
        end_tick=events.end_tick,
    )


def _without_riff(data: bytes) -> bytes:
    """The Standard MIDI File in a RIFF container of type RMID; other data as it is."""
    if data[:4] != b"RIFF" or data[8:12] != b"RMID":
        return data
    position = 12
    while position + 8 <= len(data):
        name, size = struct.unpack_from("<4sL", data, position)
        position += 8
        if name == b"data":
            return data[position : position + size]
        position += size + size % 2
    raise MidiFormatError("damaged MIDI file: found a RIFF container without data")


def _read_tracks(data: bytes, position: int, num_tracks: int) -> _Events:
    """All tracks, also more than the header counts; other chunks are passed over."""
    events, num_found, is_complete = _Events(), 0, True
    while position + 8 <= len(data):
        name, size = struct.unpack_from(">4sL", data, position)
        if not is_complete and not name.isalnum():
            break
        position += 8
        if name == b"MTrk":
            if position + size > len(data):
                raise MidiFormatError("damaged MIDI file: it ends too early")
            is_complete = _read_track(data[position : position + size], events)
            num_found += 1
        position += size
    if not is_complete and position < len(data):
        raise MidiFormatError("damaged MIDI file: a track goes on after its length")
    if num_found < num_tracks:
        raise MidiFormatError(
            f"damaged MIDI file: found {num_found} tracks, expected {num_tracks} as its header says"
        )
    return events


def _read_track(data: bytes, events: _Events) -> bool:
    """Adds the events of one track; returns whether it says where it ends."""
    try:
        end, tick, is_complete = _read_events(data, events)
    except IndexError:
        end = len(data) + 1
    if end > len(data):
        raise MidiFormatError("damaged MIDI file: a track ends within an event")
    if data[end:].strip(b"\0"):
        raise MidiFormatError("damaged MIDI file: found data after the end of a track")
    if tick >= MAX_TICK:
        raise MidiLengthError(f"found a track of {tick} ticks, expected less than {MAX_TICK}")
    events.end_tick = max(events.end_tick, tick)
    return is_complete


def _read_events(data: bytes, events: _Events) -> tuple[int, int, bool]:
    """Reads until the end of a track: where that is in bytes and in ticks, and whether it is said.

    Raises:
        IndexError: the data end within an event.
    """
    notes, released = [], {}  # notes as in `_Events`, and when each pitch was last released
    position = tick = running_status = 0
    is_complete = False
    while position < len(data) and not is_complete:
        delta, position = _number(data, position)
        tick += delta
        status = data[position]
        if status < 0x80:
            status = running_status
            if not status:
                raise MidiFormatError("damaged MIDI file: found data without a status before it")
        else:
            position += 1
        if status < SYSTEM:
            # Of system messages none ends a running status: some writers go on with it.
            running_status, kind = status, status & 0xF0
            if kind in (NOTE_ON, NOTE_OFF):
                pitch, velocity = data[position], data[position + 1]
                if kind == NOTE_ON and velocity:
                    notes.append(tick << 20 | pitch << 12 | velocity << 4 | status & 0x0F)
                else:
                    released[pitch << 12 | status & 0x0F] = tick
            position += 1 if kind in (PROGRAM_CHANGE, CHANNEL_PRESSURE) else 2
        elif status == META:
            size, start = _number(data, position + 1)
            is_complete = data[position] == END_OF_TRACK
            _read_meta(data[position], data[start : start + size], tick, events)
            position = start + size
        elif status in (SYSTEM_EXCLUSIVE, ESCAPE):
            size, position = _number(data, position)
            position += size
        elif status in SYSTEM_DATA_BYTES:
            position += SYSTEM_DATA_BYTES[status]
        else:
            raise MidiFormatError(f"damaged MIDI file: found an unknown status {status:#x}")
    while notes and notes[-1] >> 20 == tick:
        note = notes.pop()
        is_last = released.get(note & 0xFF00F) == tick
        (events.last_notes if is_last else events.notes).append(note)
    events.notes += notes
    return position, tick, is_complete


def _number(data: bytes, position: int) -> tuple[int, int]:
    """A number of one to four bytes, and where it ends."""
    number = data[position]
    if number < 0x80:
        return number, position + 1
    number &= 0x7F
    for end in range(position + 2, position + 5):
        byte = data[end - 1]
        number = number << 7 | byte & 0x7F
        if byte < 0x80:
            return number, end
    raise MidiFormatError("damaged MIDI file: found a number of more than four bytes")


def _read_meta(kind: int, data: bytes, tick: int, events: _Events) -> None:
    if kind == SET_TEMPO:
        if len(data) < 3 or not any(data[:3]):
            raise TempoError(f"found a tempo event of {data[:3].hex() or 'no data'} at tick {tick}")
        events.tempos.append((tick, int.from_bytes(data[:3], "big")))
    elif kind == TIME_SIGNATURE:
        if len(data) < 2 or not data[0]:
            raise TimeSignatureError(
                f"found a time signature event of {data[:4].hex() or 'no data'} at tick {tick}"
            )
        events.time_signatures.append((tick, data[0], 2 ** data[1]))


def _unpacked(notes: list[int]) -> Notes:
    """Notes, each one integer of its tick, pitch, velocity and channel, by which they sort."""
    packed = np.sort(np.array(notes, np.int64))
    return Notes(packed >> 20, packed >> 12 & 0xFF, packed >> 4 & 0xFF, (packed & 0xF) + 1)


def _in_time_order(default: tuple, events: list[tuple]) -> list[tuple]:
    """Events by tick, of those at one tick the last; the default where none is at tick 0."""
    last = {event[0]: event for event in [default, *sorted(events, key=lambda event: event[0])]}
    return list(last.values())
