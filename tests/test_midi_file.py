"""Standard MIDI Files, good and bad, as they are read."""

import struct

import numpy as np
import pytest
from factories import (
    CLOSED_HI_HAT,
    KICK,
    SNARE,
    chunk,
    drum_file,
    midi_file,
    note_off,
    note_on,
    riff,
    tempo,
    time_signature,
    track,
    variable_length,
)

from processing.errors import (
    MidiError,
    MidiFormatError,
    MidiLengthError,
    TempoError,
    TimeSignatureError,
)
from processing.midi_file import MAX_BYTES, MidiContent, Notes, read_midi

NOTES = (
    note_on(0, KICK, 100),
    note_off(60, KICK),
    note_on(240, CLOSED_HI_HAT, 40),
    note_off(300, CLOSED_HI_HAT),
    note_on(480, SNARE, 90),
    note_off(540, SNARE),
)
GROOVE = (tempo(0, 500_000), time_signature(0, 4, 4), *NOTES)
HITS = [(0, KICK, 100, 10), (240, CLOSED_HI_HAT, 40, 10), (480, SNARE, 90, 10)]
END = b"\x01\xff\x2f\x00"
RUNNING_NOTES = b"\x81\x70\x2a\x28\x81\x70\x26\x5a"


def listed(notes: Notes) -> list[tuple[int, int, int, int]]:
    """Tick, pitch, velocity and channel of each note."""
    return list(zip(*(column.tolist() for column in notes), strict=True))


def running(between: bytes) -> bytes:
    """The groove in running status, with other bytes after its first note."""
    return midi_file(chunk(b"MTrk", b"\x00\x99\x24\x64" + between + RUNNING_NOTES + END))


def test_a_file_gives_its_notes_tempos_and_time_signatures_in_ticks():
    events = tempo(96, 400_000), time_signature(192, 3, 4), *GROOVE
    content = read_midi(drum_file(*events, division=96))
    for column in content.notes:
        assert (column.dtype, column.shape) == (np.int64, (3,))
    assert listed(content.notes) == HITS
    assert content.ticks_per_quarter == 96
    assert content.tempos == [(0, 500_000), (96, 400_000)]
    assert content.time_signatures == [(0, 4, 4), (192, 3, 4)]
    assert content.end_tick == 541


def test_notes_are_in_time_order_those_of_a_tick_from_low_to_high_and_from_soft_to_loud():
    one, other = track(note_on(9, 50, 70), note_on(9, 40, 90)), track(note_on(9, 40, 80, 2))
    expected = [(9, 40, 80, 3), (9, 40, 90, 10), (9, 50, 70, 10)]
    for tracks in ((one, other), (other, one)):
        assert listed(read_midi(midi_file(*tracks)).notes) == expected


READ_ALIKE = {
    "type 0": drum_file(*GROOVE),
    "type 1": midi_file(track(*GROOVE)),
    "type 1, tempo in a track of its own": midi_file(track(*GROOVE[:2]), track(*NOTES)),
    "type 1, a drum a track": midi_file(track(*GROOVE[4:]), track(*GROOVE[:4])),
    "neither tempo nor metre": drum_file(*NOTES),
    "tempo and metre repeated": drum_file(*GROOVE, tempo(0, 500_000), time_signature(0, 4, 4)),
    "note-on of velocity 0 as note-off": drum_file(*GROOVE, note_on(600, KICK, 0)),
    "a note-off too many": drum_file(*GROOVE, note_off(600, KICK)),
    "running status": running(b""),
    "running status after system exclusive": running(b"\x00\xf0\x02\x41\xf7"),
    "running status after text": running(b"\x00\xff\x01\x02hi"),
    "a system exclusive in pieces": drum_file(
        *GROOVE, (9, b"\xf0\x02\x41\x10"), (9, b"\xf7\x02\x42\xf7")
    ),
    "an escape": drum_file(*GROOVE, (9, b"\xf7\x03\x99\x24\x64")),
    "song position, song select and clock": drum_file(
        *GROOVE, (9, b"\xf2\x99\x24"), (9, b"\xf3\x99"), (9, b"\xf8"), (9, b"\xfe")
    ),
    "text in Latin-1": drum_file(*GROOVE, (0, b"\xff\x01\x04caf\xe9")),
    "1,024 bytes of Japanese": drum_file(
        *GROOVE, (0, b"\xff\x05" + variable_length(1024) + ("鼓" * 342).encode()[:1024])
    ),
    "an impossible key signature": drum_file(*GROOVE, (0, b"\xff\x59\x02\x7f\x09")),
    "an unknown meta event": drum_file(*GROOVE, (0, b"\xff\x7c\x01\xff")),
    "a port without a number": drum_file(*GROOVE, (0, b"\xff\x21\x00")),
    "a time signature of two bytes": drum_file(*NOTES, (0, b"\xff\x58\x02\x04\x02")),
    "a tempo of four bytes": drum_file(*NOTES, (0, b"\xff\x51\x04\x07\xa1\x20\x00")),
    "a controller of 200": drum_file(*GROOVE, (9, b"\xb9\x07\xc8")),
    "a program, a pressure and a bend": drum_file(
        *GROOVE, (9, b"\xc9\xf0"), (9, b"\xd9\x90"), (9, b"\xe9\x99\x24")
    ),
    "a longer header": drum_file(*GROOVE).replace(
        b"\0\0\0\x06\0\0\0\x01\x01\xe0", b"\0\0\0\x08\0\0\0\x01\x01\xe0\xff\xff"
    ),
    "an unknown chunk before the track": midi_file(chunk(b"XFIH", b"MTrk"), track(*GROOVE)).replace(
        b"\0\x01\0\x02", b"\0\x01\0\x01"
    ),
    "an unknown chunk after the track": drum_file(*GROOVE) + chunk(b"XFKM", b"MTrk\0"),
    "more tracks than the header says": midi_file(track(*GROOVE[:4]), track(*NOTES[2:])).replace(
        b"\0\x01\0\x02", b"\0\x01\0\x01"
    ),
    "40,000 tracks": midi_file(*[chunk(b"MTrk", END)] * 39_999, track(*GROOVE)),
    "zeros after the end of the track": midi_file(chunk(b"MTrk", track(*GROOVE)[8:] + b"\0\0")),
    "a track without an end": midi_file(chunk(b"MTrk", track(*GROOVE)[8:-4] + b"\x01\xff\x01\x00")),
    "bytes after the last track": drum_file(*GROOVE) + b"\x00",
    "RMID": riff(b"RMID", (b"data", drum_file(*GROOVE))),
    "RMID with names": riff(b"RMID", (b"DISP", b"odd"), (b"data", drum_file(*GROOVE))),
}


@pytest.mark.parametrize("data", READ_ALIKE.values(), ids=READ_ALIKE)
def test_what_does_not_concern_drums_does_not_spoil_a_file(data):
    content = read_midi(data)
    assert listed(content.notes) == HITS
    assert not len(content.cut_off.ticks)
    assert content.tempos == [(0, 500_000)]
    assert content.time_signatures == [(0, 4, 4)]


@pytest.mark.parametrize(
    "events",
    [
        pytest.param([note_on(0), note_on(480)], id="never end"),
        pytest.param([note_on(0), note_on(480), note_off(480)], id="end at once"),
        pytest.param([note_on(0), note_on(480), note_off(960)], id="end together"),
    ],
)
def test_notes_of_any_length_are_hits(events):
    assert listed(read_midi(drum_file(*events)).notes) == [(0, KICK, 100, 10), (480, KICK, 100, 10)]


CUT_OFF = chunk(
    b"MTrk",
    b"\x00\x99\x24\x64" + b"\x83\x60\x99\x24\x64" + b"\x00\x89\x24\x40" + b"\x00\xff\x2f\x00",
)


def test_a_note_that_starts_and_ends_with_the_file_is_cut_off():
    content = read_midi(midi_file(CUT_OFF))
    assert listed(content.notes) == [(0, KICK, 100, 10)]
    assert listed(content.cut_off) == [(480, KICK, 100, 10)]


def test_a_note_that_starts_and_ends_with_its_track_alone_is_a_hit():
    content = read_midi(midi_file(CUT_OFF, track(note_on(960, SNARE))))
    assert [note[0] for note in listed(content.notes)] == [0, 480, 960]


@pytest.mark.parametrize(
    ("events", "expected"),
    [
        pytest.param([], [(0, 500_000)], id="none: 120 bpm"),
        pytest.param([tempo(96, 1)], [(0, 500_000), (96, 1)], id="late: 120 bpm before it"),
        pytest.param([tempo(0, 1), tempo(0, 2)], [(0, 2)], id="the last of a tick"),
        pytest.param([tempo(9, 1), tempo(5, 2)], [(0, 500_000), (5, 2), (9, 1)], id="in order"),
    ],
)
def test_the_last_tempo_of_a_tick_counts_in_whichever_tracks_they_are(events, expected):
    for tracks in ([track(*events)], [track(event) for event in events]):
        assert read_midi(midi_file(*tracks, track(*NOTES))).tempos == expected


def test_the_last_time_signature_of_a_tick_counts():
    events = time_signature(0, 3, 4), time_signature(0, 6, 8), time_signature(96, 2, 2)
    content = read_midi(midi_file(*(track(event) for event in events)))
    assert content.time_signatures == [(0, 6, 8), (96, 2, 2)]


VALID = drum_file(*GROOVE)

REFUSED = {
    "empty": (b"", MidiFormatError, "empty, expected b'MThd'"),
    "text": (b"kick snare kick snare\n", MidiFormatError, "starts with b'kick', expected b'MThd'"),
    "a PNG": (b"\x89PNG\r\n\x1a\n", MidiFormatError, r"starts with b'\\x89PNG', expected b'MThd'"),
    "a WAV": (riff(b"WAVE", (b"data", VALID)), MidiFormatError, "starts with b'RIFF'"),
    "RMID without a file": (riff(b"RMID", (b"DISP", b"")), MidiFormatError, "without data"),
    "cut in its header": (VALID[:9], MidiFormatError, "damaged MIDI file: it ends in its header"),
    "cut in a track": (VALID[:-9], MidiFormatError, "damaged MIDI file: it ends too early"),
    "without its last track": (
        midi_file(track(*GROOVE), b""),
        MidiFormatError,
        "damaged MIDI file: found 1 tracks, expected 2 as its header says",
    ),
    "a track by another name": (
        VALID.replace(b"MTrk", b"XTrk"),
        MidiFormatError,
        "damaged MIDI file: found 0 tracks, expected 1",
    ),
    "65,535 tracks in name only": (
        VALID[:10] + b"\xff\xff" + VALID[12:],
        MidiFormatError,
        "damaged MIDI file: found 1 tracks, expected 65535",
    ),
    "a track that says it is shorter": (
        VALID.replace(struct.pack(">L", len(VALID) - 22), struct.pack(">L", len(VALID) - 30)),
        MidiFormatError,
        "damaged MIDI file: a track",
    ),
    "notes after the end of a track": (
        midi_file(chunk(b"MTrk", END + track(*NOTES)[8:])),
        MidiFormatError,
        "damaged MIDI file: found data after the end of a track",
    ),
    "data before any status": (
        midi_file(chunk(b"MTrk", b"\x00\x24\x64" + END)),
        MidiFormatError,
        "damaged MIDI file: found data without a status",
    ),
    "an undefined status": (
        drum_file((0, b"\xf4"), *NOTES),
        MidiFormatError,
        "damaged MIDI file: found an unknown status 0xf4",
    ),
    "a system exclusive longer than its track": (
        drum_file((0, b"\xf0" + variable_length(2**28 - 1)), *NOTES),
        MidiFormatError,
        "damaged MIDI file: a track ends within an event",
    ),
    "a note without a velocity": (
        midi_file(chunk(b"MTrk", b"\x00\x99\x24")),
        MidiFormatError,
        "damaged MIDI file: a track ends within an event",
    ),
    "a number without end": (
        midi_file(chunk(b"MTrk", b"\xff" * 1_000_000 + b"\x00\x99\x24\x64")),
        MidiFormatError,
        "damaged MIDI file: found a number of more than four bytes",
    ),
    "type 2": (
        midi_file(track(*GROOVE), file_type=2),
        MidiFormatError,
        "found a MIDI file of type 2, expected type 0 or 1",
    ),
    "division in SMPTE frames": (
        drum_file(*GROOVE, division=0xE728),
        MidiFormatError,
        "found a time division in SMPTE frames, expected ticks per quarter",
    ),
    "division 0": (
        drum_file(*GROOVE, division=0),
        MidiFormatError,
        "found a time division of 0, expected ticks per quarter",
    ),
    "tempo 0": (drum_file(tempo(0, 0), *NOTES), TempoError, "found a tempo event of 000000"),
    "a tempo of two bytes": (
        drum_file((7, b"\xff\x51\x02\x07\xa1"), *NOTES),
        TempoError,
        "found a tempo event of 07a1 at tick 7",
    ),
    "metre 0/4": (
        drum_file(time_signature(0, 0, 4), *NOTES),
        TimeSignatureError,
        "found a time signature event of 0002",
    ),
    "a time signature of one byte": (
        drum_file((7, b"\xff\x58\x01\x04"), *NOTES),
        TimeSignatureError,
        "found a time signature event of 04 at tick 7",
    ),
    "too many bytes": (
        VALID.ljust(MAX_BYTES + 1, b"\x00"),
        MidiLengthError,
        f"found more than {MAX_BYTES} bytes",
    ),
    "ten million years": (
        drum_file(*((tick * (2**28 - 1), b"\xff\x01\x00") for tick in range(40_000))),
        MidiLengthError,
        "found a track of .* ticks, expected less",
    ),
}


@pytest.mark.parametrize(("data", "error", "message"), REFUSED.values(), ids=REFUSED)
def test_a_bad_file_is_refused(data, error, message):
    with pytest.raises(error, match=message) as refusal:
        read_midi(data)
    assert type(refusal.value) is error
    assert isinstance(refusal.value, MidiError)


BUSY = {
    "notes": lambda: midi_file(chunk(b"MTrk", b"\x00\x99\x24\x64" + b"\x00\x24\x64" * 340_000)),
    "pressures": lambda: midi_file(chunk(b"MTrk", b"\x00\xd9\x24" + b"\x00\x24" * 500_000)),
    "tempos": lambda: midi_file(chunk(b"MTrk", b"\x01\xff\x51\x03\x07\xa1\x20" * 140_000)),
    "metres": lambda: midi_file(chunk(b"MTrk", b"\x01\xff\x58\x02\x03\x02" * 170_000)),
    "tracks": lambda: midi_file(*[chunk(b"MTrk", b"")] * 0xFFFF),
    "chunks": lambda: VALID + chunk(b"XFIH", b"") * 130_000,
}


@pytest.mark.parametrize("build", BUSY.values(), ids=BUSY)
def test_the_busiest_files_are_read(build):
    data = build()
    assert len(data) < MAX_BYTES
    assert isinstance(read_midi(data), MidiContent)
