"""Piano rolls as MIDI files: new grooves, and songs in the place of those that were read."""

import io
import warnings

import mido
import numpy as np
import pretty_midi
import pytest
from factories import SNARE, drum_file, ending_at, note_on, tempo, time_signature
from hypothesis import given, settings
from hypothesis import strategies as st

from processing import MusicVAEProcessor
from processing.errors import PianoRollError
from processing.midi_file import read_midi
from processing.midi_writer import DrumMidi, note_events

BAR, STEP = 1920, 120  # ticks at 480 a quarter
repeatable = settings(derandomize=True, deadline=None, max_examples=50)
processor = MusicVAEProcessor()


def read(data: bytes, **settings):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return MusicVAEProcessor(**settings).read(data)


def rewritten(data: bytes, **settings) -> bytes:
    """A file after it was read and written."""
    song = read(data, **settings)
    return processor.decode(song.piano_roll, song.timing, like=song).data


def one_hit(step: int = 0, timing: float = 0, drum: int = 0, steps: int = 64):
    roll, timings = np.zeros((9, steps), np.uint8), np.zeros((9, steps), np.float32)
    roll[drum, step], timings[drum, step] = 100, timing
    return roll, timings


def onsets(data: bytes) -> list[int]:
    return read_midi(data).notes.ticks.tolist()


# The file


def test_a_groove_is_a_file_of_type_1_with_tempo_metre_and_names_that_others_read():
    midi = mido.MidiFile(file=io.BytesIO(processor.decode(*one_hit(), bpm=96).data))
    assert (midi.type, midi.ticks_per_beat, len(midi.tracks)) == (1, 480, 2)
    assert [track.name for track in midi.tracks] == ["tempo", "drums"]
    _, tempo, metre, _ = midi.tracks[0]
    assert (tempo.type, tempo.tempo) == ("set_tempo", 625_000)
    assert (metre.type, metre.numerator, metre.denominator) == ("time_signature", 4, 4)
    assert [message.type for message in midi.tracks[1][1:-1]] == ["note_on", "note_off"]
    (instrument,) = pretty_midi.PrettyMIDI(
        io.BytesIO(processor.decode(*one_hit()).data)
    ).instruments
    assert instrument.is_drum


@pytest.mark.parametrize("bars", [1, 3, 4])
@pytest.mark.parametrize("lead_in_bars", [0, 2])
def test_every_track_ends_on_the_last_bar_line(bars, lead_in_bars):
    data = processor.decode(*one_hit(steps=16 * bars), lead_in_bars=lead_in_bars).data
    for track in mido.MidiFile(file=io.BytesIO(data)).tracks:
        assert sum(message.time for message in track) == (bars + lead_in_bars) * BAR


def test_a_roll_of_broken_bars_ends_on_the_next_bar_line():
    assert read_midi(processor.decode(*one_hit(steps=17)).data).end_tick == 2 * BAR


@given(st.integers(120_000, 3_000_000))
@repeatable
def test_a_written_tempo_reads_back_exactly(microseconds):
    data = processor.decode(*one_hit(), bpm=60e6 / microseconds).data
    assert read_midi(data).tempos == [(0, microseconds)]


def test_writing_takes_a_path_or_a_file_and_leaves_no_other(tmp_path):
    midi, file = processor.decode(*one_hit()), io.BytesIO()
    assert isinstance(midi, DrumMidi)
    (tmp_path / "groove.mid").write_bytes(b"before")
    processor.write(tmp_path / "groove.mid", *one_hit())
    midi.write(file)
    assert (tmp_path / "groove.mid").read_bytes() == file.getvalue() == midi.data
    with pytest.raises(FileNotFoundError):
        midi.write(tmp_path / "nowhere" / "groove.mid")
    assert [path.name for path in tmp_path.iterdir()] == ["groove.mid"]


# Notes


def notes_of(events: list) -> list[tuple[int, int, int, int]]:
    """Start, end, pitch and velocity of each note."""
    sounding, notes = {}, []
    for tick, (status, pitch, velocity) in events:
        if status >> 4 == 9:
            sounding[pitch] = tick, velocity
        else:
            start, struck = sounding.pop(pitch)
            notes.append((start, tick, pitch, struck))
    return sorted(notes)


def test_a_note_ends_where_its_pitch_is_struck_again_and_where_the_file_ends():
    ticks, pitches = np.array([0, 50, 170, 300]), np.array([36, 36, 38, 36])
    events = note_events(ticks, pitches, np.array([1, 64, 100, 127]), 10, 120, 400)
    assert notes_of(events) == [
        (0, 50, 36, 1),
        (50, 170, 36, 64),
        (170, 290, 38, 100),
        (300, 400, 36, 127),
    ]


@pytest.mark.parametrize("steps_per_bar", [7, 16, 24])
@given(st.integers(0, 2**31))
@repeatable
def test_one_note_a_hit_at_most_a_step_long(steps_per_bar, seed):
    rng = np.random.default_rng(seed)
    roll = np.where(rng.random((9, 2 * steps_per_bar)) < 0.4, 80, 0).astype(np.uint8)
    timing = np.where(roll > 0, rng.uniform(-0.5, 0.49, roll.shape), 0).astype(np.float32)
    data = MusicVAEProcessor(steps_per_bar=steps_per_bar).decode(roll, timing).data
    events, tick = [], 0
    for message in mido.MidiFile(file=io.BytesIO(data)).tracks[1]:
        tick += message.time
        if not message.is_meta:
            events.append((tick, message.bytes()))
    notes = notes_of(events)
    assert len(notes) == np.count_nonzero(roll)
    assert all(1 <= end - start <= BAR // steps_per_bar for start, end, _, _ in notes)


# Early hits on the first step


def test_an_early_first_hit_of_a_groove_is_at_its_end_or_in_its_lead_in():
    early = one_hit(timing=-0.25)
    assert onsets(processor.decode(*early).data) == [4 * BAR - 30]
    assert onsets(processor.decode(*early, lead_in_bars=1).data) == [BAR - 30]


def test_a_groove_with_an_early_first_hit_comes_back_as_the_same_loop():
    roll, timing = one_hit(timing=-0.25)
    song = read(processor.decode(roll, timing).data)
    assert np.array_equal(song.piano_roll, roll[None])
    assert np.array_equal(song.timing, timing[None])


def test_an_early_first_hit_of_a_song_is_at_its_start():
    song = read(drum_file(note_on(0), ending_at(4 * BAR)))
    drums = one_hit(timing=-0.25)
    assert onsets(processor.decode(*drums, like=song).data) == [0]
    assert onsets(processor.decode(*drums, like=song, lead_in_bars=1).data) == [BAR - 30]


# In the place of a song


def test_a_song_keeps_its_channel_pitches_tempos_metre_and_length():
    events = (
        time_signature(0, 2, 2),
        *(tempo(bar * BAR, 400_000 + bar) for bar in range(7)),
        *(note_on(bar * BAR + 4 * STEP, 40, channel=2) for bar in range(6)),
    )
    data = drum_file(*events, ending_at(7 * BAR))
    content, expected = read_midi(rewritten(data)), read_midi(data)
    assert content.tempos == expected.tempos
    assert content.time_signatures == expected.time_signatures
    assert content.end_tick == expected.end_tick == 7 * BAR
    for found, column in zip(content.notes, expected.notes, strict=True):
        np.testing.assert_array_equal(found, column)


def test_the_padding_of_the_last_window_is_cut_off():
    song = read(drum_file(note_on(0), note_on(4 * BAR)))
    full = np.full((2, 9, 64), 100, np.uint8)
    content = read_midi(processor.decode(full, like=song).data)
    assert content.end_tick == 5 * BAR
    assert len(content.notes.ticks) == 5 * 16 * 9


def test_a_longer_roll_goes_on_after_the_song():
    song = read(drum_file(note_on(0), tempo(BAR, 400_000)))
    data = processor.decode(*one_hit(step=40, steps=48), like=song).data
    assert read_midi(data).end_tick == 3 * BAR
    assert onsets(data) == [40 * STEP]


def test_fewer_bars_than_the_song_has_are_refused():
    song = read(drum_file(note_on(0), note_on(4 * BAR)))
    with pytest.raises(PianoRollError, match="piano_roll: found 4 bars, expected the 5 of midi"):
        processor.decode(*one_hit(), like=song)


def test_a_song_has_its_own_tempo():
    song = read(drum_file(note_on(0)))
    with pytest.raises(ValueError, match="^bpm: found 100 for the place of midi, expected none"):
        processor.decode(song.piano_roll, song.timing, bpm=100, like=song)


@pytest.mark.parametrize(("division", "written"), [(1, 480), (24, 480), (96, 480), (384, 768)])
def test_a_coarse_resolution_is_multiplied(division, written):
    data = drum_file(
        note_on(0), tempo(4 * division, 400_000), note_on(4 * division), division=division
    )
    content = read_midi(rewritten(data))
    assert content.ticks_per_quarter == written
    assert content.notes.ticks.tolist() == [0, 4 * written]
    assert content.tempos == [(0, 500_000), (4 * written, 400_000)]


PICKUP = (time_signature(0, 1, 4), time_signature(480, 4, 4), note_on(0, SNARE), note_on(480))


def test_a_pickup_stays_one():
    data = drum_file(*PICKUP, ending_at(480 + 4 * BAR))
    content = read_midi(rewritten(data))
    assert content.notes.ticks.tolist() == [0, 480]
    assert content.time_signatures == [(0, 1, 4), (480, 4, 4)]
    assert content.end_tick == 480 + 4 * BAR


def test_hits_before_a_pickup_are_left_out_with_a_warning_and_early_ones_are_not():
    song = read(drum_file(*PICKUP, ending_at(480 + 3 * BAR)))
    roll, timing = one_hit(step=12, timing=-0.25)
    roll[0, [0, 11]] = 100
    with pytest.warns(UserWarning, match="^midi: 2 hits left out, before its pickup"):
        assert onsets(processor.decode(roll[None], timing[None], like=song).data) == [0]


def test_a_lead_in_before_a_pickup_is_refused():
    song = read(drum_file(*PICKUP))
    with pytest.raises(ValueError, match="lead_in_bars: found 1 before midi, which starts with a"):
        processor.decode(song.piano_roll, like=song, lead_in_bars=1)


def test_a_lead_in_moves_the_tempo_map():
    song = read(drum_file(tempo(0, 400_000), tempo(BAR, 300_000), note_on(0)))
    content = read_midi(
        processor.decode(song.piano_roll, song.timing, like=song, lead_in_bars=2).data
    )
    assert content.tempos == [(0, 400_000), (3 * BAR, 300_000)]
    assert content.notes.ticks.tolist() == [2 * BAR]


# Round trips

PITCHES = st.sampled_from([36, 38, 42, 46, 45, 48, 50, 49, 51])
songs = st.builds(
    lambda division, num_bars, hits, tempos, metre, channel: (
        division,
        num_bars * 4 * division,
        [note_on(t % (num_bars * 4 * division), p, v, channel) for t, p, v in hits],
        [tempo(t % (num_bars * 4 * division), microseconds) for t, microseconds in tempos],
        time_signature(0, *metre),
    ),
    st.sampled_from([24, 96, 120, 480, 960, 32_767]),
    st.integers(1, 12),
    st.lists(st.tuples(st.integers(0, 2**31), PITCHES, st.integers(1, 127)), min_size=1),
    st.lists(st.tuples(st.integers(0, 2**31), st.integers(120_000, 3_000_000)), max_size=9),
    st.sampled_from([(4, 4), (2, 2), (8, 8)]),
    st.integers(0, 15),
)


@given(songs)
@repeatable
def test_reading_then_writing_keeps_bars_tempo_map_metre_and_hits(song):
    division, end, notes, tempos, metre = song
    data = drum_file(metre, *tempos, *notes, ending_at(end), division=division)
    before, written = read(data), rewritten(data)
    after = read(written)
    assert np.array_equal(after.piano_roll, before.piano_roll)
    assert np.array_equal(after.timing, before.timing)
    assert after.num_bars == before.num_bars
    assert after.layout.channel == before.layout.channel
    scale = after.layout.ticks_per_quarter // division
    for found, expected in (
        (after.layout.tempos, before.layout.tempos),
        (after.layout.time_signatures, before.layout.time_signatures),
    ):
        assert found == [(scale * tick, *values) for tick, *values in expected]
    assert after.layout.end_tick == scale * before.layout.end_tick
    assert rewritten(written) == written
