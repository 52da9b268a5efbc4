"""Drum hits as a Standard MIDI File of type 1."""

import os
from typing import IO

import numpy as np

from .midi_file import END_OF_TRACK, META, NOTE_OFF, NOTE_ON, SET_TEMPO, TIME_SIGNATURE
from .regular_files import write_file

TRACK_NAME = 0x03
RELEASE_VELOCITY = 64
CLOCKS_PER_WHOLE_NOTE = 96  # MIDI clocks, of which a metronome counts those of a beat
THIRTY_SECONDS_PER_QUARTER = 8

Event = tuple[int, bytes]  # the tick at which it happens, and the message


class DrumMidi:
    """A finished MIDI file of drums.

    Attributes:
        data: the bytes of the file.
    """

    def __init__(self, data: bytes):
        self.data = data

    def write(self, file: str | os.PathLike | IO[bytes]) -> None:
        """Writes the MIDI file to a path, where it replaces another, or to a binary file."""
        if isinstance(file, str | os.PathLike):
            write_file(file, self.data)
        else:
            file.write(self.data)


def note_events(
    ticks: np.ndarray,
    pitches: np.ndarray,
    velocities: np.ndarray,
    channel: int,
    max_duration: int,
    end_tick: int,
) -> list[Event]:
    """Note-ons and note-offs.

    Args:
        ticks: int64 (hits,), onsets in time order, at most one a tick and pitch.
        pitches: int64 (hits,).
        velocities: (hits,), 1 to 127.
        channel: 1 to 16.
        max_duration: length of a note in ticks; shorter where its pitch is struck again sooner, and
            where the file ends.
        end_tick: end of the file.
    """
    ends = np.minimum(ticks + max_duration, end_tick)
    for pitch in np.unique(pitches):
        (same,) = np.nonzero(pitches == pitch)
        ends[same[:-1]] = np.minimum(ends[same[:-1]], ticks[same[1:]])
    note_on, note_off = NOTE_ON | channel - 1, NOTE_OFF | channel - 1
    columns = (column.tolist() for column in (ticks, ends, pitches, velocities))
    events = []
    for tick, end, pitch, velocity in zip(*columns, strict=True):
        events.append((end, bytes([note_off, pitch, RELEASE_VELOCITY])))
        events.append((tick, bytes([note_on, pitch, velocity])))
    # A note-off comes first: its status is less than a note-on's.
    return sorted(events)


def tempo_events(
    tempos: list[tuple[int, int]], time_signatures: list[tuple[int, int, int]]
) -> list[Event]:
    """The events of a tempo track; for the arguments see `SongLayout`."""
    events = [(tick, _meta(SET_TEMPO, tempo.to_bytes(3, "big"))) for tick, tempo in tempos]
    for tick, numerator, denominator in time_signatures:
        clocks = max(1, CLOCKS_PER_WHOLE_NOTE // denominator)
        power = denominator.bit_length() - 1
        data = bytes([numerator, power, clocks, THIRTY_SECONDS_PER_QUARTER])
        events.append((tick, _meta(TIME_SIGNATURE, data)))
    return sorted(events)


def midi_bytes(tracks: dict[str, list[Event]], ticks_per_quarter: int, end_tick: int) -> bytes:
    """A file of type 1.

    Args:
        tracks: events in time order, by the name of their track; those after the end are left out.
        ticks_per_quarter: resolution.
        end_tick: where all tracks end.
    """
    header = [1, len(tracks), ticks_per_quarter]
    data = b"MThd" + (6).to_bytes(4, "big") + b"".join(n.to_bytes(2, "big") for n in header)
    for name, events in tracks.items():
        track, now = bytearray(), 0
        named = [(0, _meta(TRACK_NAME, name.encode())), *events]
        lasting = (event for event in named if event[0] <= end_tick)
        for tick, message in [*lasting, (end_tick, _meta(END_OF_TRACK, b""))]:
            track += _number(tick - now) + message
            now = tick
        data += b"MTrk" + len(track).to_bytes(4, "big") + track
    return data


def _meta(kind: int, data: bytes) -> bytes:
    return bytes([META, kind]) + _number(len(data)) + data


def _number(number: int) -> bytes:
    """A number as MIDI writes it: seven bits a byte, all but the last with the top bit set."""
    data = [number & 0x7F]
    while number := number >> 7:
        data.append(number & 0x7F | 0x80)
    return bytes(reversed(data))
