"""Standard MIDI Files, good and bad."""

import io
from datetime import timedelta

import numpy as np
import pretty_midi
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from midi_factory import (
    CLOSED_HI_HAT,
    KICK,
    SNARE,
    chunk,
    drum_file,
    midi_file,
    note_off,
    note_on,
    tempo,
    time_signature,
    track,
    variable_length,
)

from processing.errors import (
    MidiError,
    MidiFormatError,
    MidiLengthError,
    NoDrumHitsError,
    TempoError,
    TimeSignatureError,
)
from processing.midi_file import (
    MAX_BARS,
    MAX_BYTES,
    pretty_midi_bytes,
    read_drum_hits,
    write_drum_hits,
)

GROOVE = (
    tempo(0, 500_000),
    time_signature(0, 4, 4),
    note_on(0, KICK, 100),
    note_off(60, KICK),
    note_on(240, CLOSED_HI_HAT, 40),
    note_off(300, CLOSED_HI_HAT),
    note_on(480, SNARE, 90),
    note_off(540, SNARE),
)
HITS = [(0, KICK, 100), (240, CLOSED_HI_HAT, 40), (480, SNARE, 90)]


def hits_of(data: bytes) -> list[tuple[int, int, int]]:
    hits = read_drum_hits(data)
    return list(zip(*(column.tolist() for column in hits[:3]), strict=True))


def test_a_file_gives_its_hits_in_ticks_and_its_tempo():
    hits = read_drum_hits(drum_file(*GROOVE, division=96))
    for column in hits[:3]:
        assert (column.dtype, column.shape) == (np.int64, (3,))
    assert list(zip(*hits[:3], strict=True)) == HITS
    assert (hits.ticks_per_quarter, hits.bpm) == (96, 120)


RUNNING_STATUS = chunk(b"MTrk", b"\x00\x99\x24\x64\x81\x70\x2a\x28\x81\x70\x26\x5a\x00\xff\x2f\x00")
READ_ALIKE = {
    "type 0": drum_file(*GROOVE),
    "type 1": midi_file(track(*GROOVE)),
    "type 1, tempo in a track of its own": midi_file(track(*GROOVE[:2]), track(*GROOVE[2:])),
    "type 1, tempo in the last track": midi_file(track(*GROOVE[2:]), track(*GROOVE[:2])),
    "type 1, a drum a track": midi_file(track(*GROOVE[4:]), track(*GROOVE[:4])),
    "tempo repeated": drum_file(*GROOVE, tempo(480, 500_000)),
    "metre repeated": drum_file(*GROOVE, time_signature(480, 4, 4)),
    "neither tempo nor metre": drum_file(*GROOVE[2:]),
    "beside a bass": midi_file(track(*GROOVE), track(note_on(7, 36, 100, channel=0))),
    "running status": midi_file(RUNNING_STATUS),
    "note-on of velocity 0 as note-off": drum_file(*GROOVE, note_on(600, KICK, 0)),
    "a note-off too many": drum_file(*GROOVE, note_off(600, KICK)),
    "text and system exclusive": drum_file(
        *GROOVE, (0, b"\xff\x01\x05caf\xc3\xa9"), (9, b"\xf0\x03\x41\x10\xf7")
    ),
    "bytes after the last track": drum_file(*GROOVE) + b"\x00",
}


@pytest.mark.parametrize("data", READ_ALIKE.values(), ids=READ_ALIKE)
def test_the_same_groove_reads_alike(data):
    assert hits_of(data) == HITS
    assert read_drum_hits(data).bpm == 120


@pytest.mark.parametrize(
    "events",
    [
        pytest.param([note_on(0), note_on(480)], id="never end"),
        pytest.param([note_on(0), note_on(480), note_off(480)], id="end at once"),
        pytest.param([note_on(0), note_on(480), note_off(960)], id="end together"),
    ],
)
def test_notes_of_any_length_are_hits(events):
    assert hits_of(drum_file(*events)) == [(0, KICK, 100), (480, KICK, 100)]


def test_a_note_that_starts_and_ends_with_its_track_is_none():
    cut_off = (
        b"\x00\x99\x24\x64" + b"\x83\x60\x99\x24\x64" + b"\x00\x89\x24\x40" + b"\x00\xff\x2f\x00"
    )
    assert hits_of(midi_file(chunk(b"MTrk", cut_off))) == [(0, KICK, 100)]


VALID = drum_file(*GROOVE)
NOTES = GROOVE[2:]
TEN_HOURS = 10 * 60 * 120 * 480  # in ticks, at 120 bpm

REFUSED = {
    "empty": (b"", MidiFormatError, "empty, expected b'MThd'"),
    "text": (b"kick snare kick snare\n", MidiFormatError, "starts with b'kick', expected b'MThd'"),
    "a PNG": (b"\x89PNG\r\n\x1a\n", MidiFormatError, r"starts with b'\\x89PNG', expected b'MThd'"),
    "cut in its header": (VALID[:9], MidiFormatError, "damaged MIDI file: it ends too early"),
    "cut in a track": (VALID[:-9], MidiFormatError, "damaged MIDI file: it ends too early"),
    "without its last track": (
        midi_file(track(*GROOVE), b""),
        MidiFormatError,
        "damaged MIDI file: it ends too early",
    ),
    "a track by another name": (
        VALID.replace(b"MTrk", b"XTrk"),
        MidiFormatError,
        "damaged MIDI file: no MTrk header",
    ),
    "65,535 tracks in name only": (
        VALID[:10] + b"\xff\xff" + VALID[12:],
        NoDrumHitsError,
        "found no note on channel 10",
    ),
    "a data byte above 127": (
        drum_file(note_on(0, KICK, 200)),
        MidiFormatError,
        "damaged MIDI file: data byte",
    ),
    "a tempo of two bytes": (
        drum_file((0, b"\xff\x51\x02\x07\xa1"), *NOTES),
        MidiFormatError,
        "damaged MIDI file: it holds a malformed event",
    ),
    "a huge system exclusive": (
        drum_file((0, b"\xf0" + variable_length(2**28 - 1)), *NOTES),
        MidiFormatError,
        "damaged MIDI file: Message length",
    ),
    "a number without end": (
        midi_file(chunk(b"MTrk", b"\xff" * 1_000_000 + b"\x00\x99\x24\x64")),
        MidiFormatError,
        "damaged MIDI file: found a number without end",
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
    "no tracks": (midi_file(), NoDrumHitsError, "found no note on channel 10, expected drum hits"),
    "no notes": (
        drum_file(*GROOVE[:2]),
        NoDrumHitsError,
        "found no note on channel 10, expected drum hits",
    ),
    "no drums": (
        drum_file(note_on(0, channel=0), note_on(0, channel=8)),
        NoDrumHitsError,
        "found no note on channel 10, expected drum hits",
    ),
    "note-offs alone": (
        drum_file(note_off(0), note_on(9, KICK, 0)),
        NoDrumHitsError,
        "found no note on channel 10, expected drum hits",
    ),
    "tempo 0": (
        drum_file(tempo(0, 0), *NOTES),
        TempoError,
        "found tempo inf bpm, expected 20 to 500",
    ),
    "tempo absurdly fast": (
        drum_file(tempo(0, 1), *NOTES),
        TempoError,
        r"found tempo 6e\+07 bpm, expected 20 to 500",
    ),
    "tempo absurdly slow": (
        drum_file(tempo(0, 2**24 - 1), *NOTES),
        TempoError,
        "found tempo 3.57628 bpm, expected 20 to 500",
    ),
    "changing tempo": (
        drum_file(*GROOVE, tempo(480, 400_000)),
        TempoError,
        "found tempos from 120 to 150 bpm, expected one",
    ),
    "barely changing tempo": (
        drum_file(*GROOVE, tempo(480, 500_001)),
        TempoError,
        "found tempos from 119.99976 to 120 bpm, expected one",
    ),
    "changing tempo in another track": (
        midi_file(track(*GROOVE), track(tempo(480, 400_000))),
        TempoError,
        "found tempos from 120 to 150 bpm, expected one",
    ),
    "three-four": (
        drum_file(time_signature(0, 3, 4), *NOTES),
        TimeSignatureError,
        "found time signature 3/4, expected 4/4",
    ),
    "six-eight": (
        drum_file(time_signature(0, 6, 8), *NOTES),
        TimeSignatureError,
        "found time signature 6/8, expected 4/4",
    ),
    "changing metre": (
        drum_file(*GROOVE, time_signature(1920, 5, 4)),
        TimeSignatureError,
        "found time signature 5/4, expected 4/4",
    ),
    "ten hours": (
        drum_file(*GROOVE, note_on(TEN_HOURS)),
        MidiLengthError,
        "found a hit after bar 4096, expected at most 4096 bars",
    ),
    "an onset beyond 64 bits": (
        drum_file(note_on(2**70)),
        MidiLengthError,
        "found a hit after bar 4096, expected at most 4096 bars",
    ),
    "too many bytes": (
        VALID.ljust(MAX_BYTES + 1, b"\x00"),
        MidiLengthError,
        f"found more than {MAX_BYTES} bytes",
    ),
}


@pytest.mark.parametrize(("data", "error", "message"), REFUSED.values(), ids=REFUSED)
def test_a_bad_file_is_refused(data, error, message):
    with pytest.raises(error, match=message) as refusal:
        read_drum_hits(data)
    assert type(refusal.value) is error
    assert isinstance(refusal.value, MidiError)


@pytest.mark.parametrize("microseconds", [120_000, 3_000_000], ids=["500 bpm", "20 bpm"])
def test_the_fastest_and_the_slowest_tempo_are_read(microseconds):
    hits = read_drum_hits(drum_file(tempo(0, microseconds), *NOTES))
    assert hits.bpm == 60e6 / microseconds


def test_the_last_tick_of_the_last_bar_is_read():
    last = MAX_BARS * 4 * 480 - 1
    assert hits_of(drum_file(note_on(last))) == [(last, KICK, 100)]


def test_notes_of_one_pitch_never_overlap():
    ticks = np.array([0, 50, 170, 300])
    pitches = np.array([KICK, KICK, SNARE, KICK])
    midi = write_drum_hits(ticks, pitches, np.array([1, 64, 100, 127]), max_duration=120, bpm=90)
    notes = [
        (midi.time_to_tick(note.start), midi.time_to_tick(note.end), note.pitch, note.velocity)
        for note in midi.instruments[0].notes
    ]
    assert notes == [
        (0, 50, KICK, 1),
        (50, 170, KICK, 64),
        (170, 290, SNARE, 100),
        (300, 420, KICK, 127),
    ]


@given(st.integers(120_000, 3_000_000))
@settings(derandomize=True, deadline=None, max_examples=50)
def test_a_written_tempo_reads_back_exactly(microseconds):
    midi = write_drum_hits(
        np.array([0]), np.array([KICK]), np.array([99]), 120, 60e6 / microseconds
    )
    assert read_drum_hits(pretty_midi_bytes(midi)).bpm == 60e6 / microseconds


def test_a_pretty_midi_that_cannot_be_written_is_refused():
    midi = pretty_midi.PrettyMIDI(io.BytesIO(VALID))
    midi.instruments[0].notes[0].velocity = 128
    with pytest.raises(MidiFormatError, match="PrettyMIDI that cannot be written: .*0..127"):
        pretty_midi_bytes(midi)


ALL_IN_ONE = midi_file(
    track(*GROOVE[:2], (0, b"\xff\x03\x05drums"), (5, b"\xf0\x03\x41\x10\xf7")),
    track(*GROOVE[2:], (9, b"\xc9\x00"), (9, b"\xb9\x04\x40"), (600, b"\xe9\x00\x40")),
)
edits = st.tuples(
    st.integers(0, len(ALL_IN_ONE)), st.integers(0, 8), st.binary(max_size=8)
)  # where, how many bytes go, which come


@given(st.lists(edits, min_size=1, max_size=6))
@settings(derandomize=True, deadline=timedelta(seconds=5), max_examples=1000)
def test_a_mutated_file_is_read_or_refused(edits):
    data = ALL_IN_ONE
    for position, removed, inserted in edits:
        data = data[:position] + inserted + data[position + removed :]
    assert_read_or_refused(data)


@given(st.binary(max_size=200))
@settings(derandomize=True, deadline=timedelta(seconds=5), max_examples=500)
def test_random_bytes_are_read_or_refused(track_bytes):
    assert_read_or_refused(track_bytes)
    assert_read_or_refused(midi_file(chunk(b"MTrk", track_bytes)))


def assert_read_or_refused(data: bytes) -> None:
    try:
        hits = read_drum_hits(data)
    except MidiError:
        return
    assert (hits.ticks >= 0).all()
    assert ((hits.velocities >= 1) & (hits.velocities <= 127)).all()
    assert ((hits.pitches >= 0) & (hits.pitches <= 127)).all()
