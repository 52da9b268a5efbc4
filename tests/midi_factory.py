"""MIDI files for the tests, byte by byte, so that they can be as wrong as a test needs them."""

import struct

# Of info.csv in the Groove MIDI Dataset.
INFO_COLUMNS = [
    "drummer",
    "session",
    "id",
    "style",
    "bpm",
    "beat_type",
    "time_signature",
    "midi_filename",
    "audio_filename",
    "duration",
    "split",
]


KICK, SNARE, CLOSED_HI_HAT = 36, 38, 42
DRUM_CHANNEL = 9

Event = tuple[int, bytes]  # a message and the tick at which it happens


def note_on(
    tick: int, pitch: int = KICK, velocity: int = 100, channel: int = DRUM_CHANNEL
) -> Event:
    return tick, bytes([0x90 | channel, pitch, velocity])


def note_off(tick: int, pitch: int = KICK, channel: int = DRUM_CHANNEL) -> Event:
    return tick, bytes([0x80 | channel, pitch, 64])


def tempo(tick: int, microseconds_per_quarter: int) -> Event:
    return tick, b"\xff\x51\x03" + microseconds_per_quarter.to_bytes(3, "big")


def time_signature(tick: int, numerator: int, denominator: int) -> Event:
    return tick, bytes([0xFF, 0x58, 4, numerator, denominator.bit_length() - 1, 24, 8])


def ending_at(tick: int) -> Event:
    """A text so that the track, one tick longer than its last event, ends at a tick."""
    return tick - 1, b"\xff\x01\x00"


def variable_length(number: int) -> bytes:
    """A number as MIDI writes it: seven bits a byte, all but the last with the top bit set."""
    data = [number & 0x7F]
    while number := number >> 7:
        data.append(number & 0x7F | 0x80)
    return bytes(reversed(data))


def track(*events: Event) -> bytes:
    """A track of events in any order; those of one tick keep theirs."""
    data, now = b"", 0
    for tick, message in sorted(events, key=lambda event: event[0]):
        data += variable_length(tick - now) + message
        now = tick
    return chunk(b"MTrk", data + b"\x01\xff\x2f\x00")


def chunk(name: bytes, data: bytes) -> bytes:
    return name + struct.pack(">L", len(data)) + data


def riff(kind: bytes, *chunks: tuple[bytes, bytes]) -> bytes:
    """A RIFF container of chunks, each a name and its data."""
    data = b"".join(
        name + struct.pack("<L", len(data)) + data + b"\0" * (len(data) % 2)
        for name, data in chunks
    )
    return b"RIFF" + struct.pack("<L", 4 + len(data)) + kind + data


def midi_file(*tracks: bytes, file_type: int = 1, division: int = 480) -> bytes:
    return chunk(b"MThd", struct.pack(">HHH", file_type, len(tracks), division)) + b"".join(tracks)


def drum_file(*events: Event, division: int = 480) -> bytes:
    """A file of type 0 with the given events."""
    return midi_file(track(*events), file_type=0, division=division)
