"""The drum hits among a file's notes."""

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
    tempo,
    track,
)

from processing.drum_kit import PITCH_MAPS
from processing.drum_notes import DrumNotes, bpm_at, check_channel, find_drum_notes
from processing.errors import (
    ChannelError,
    MidiFormatError,
    MidiLengthError,
    NoDrumHitsError,
    TempoError,
)
from processing.midi_file import MAX_BARS, read_midi

BASS, ORGAN = 1, 2  # channels, from 0


def find(data: bytes, channel: int | str = "auto", pitch_map: str = "general_midi") -> DrumNotes:
    return find_drum_notes(read_midi(data), channel, PITCH_MAPS[pitch_map])


def on(channel: int, *ticks: int, pitch: int = KICK):
    return [note_on(tick, pitch, 100, channel) for tick in ticks]


def test_hits_are_notes_of_known_pitches_in_time_order():
    notes = find(drum_file(note_on(480, SNARE, 90), note_on(0, CLOSED_HI_HAT, 40), note_on(0, 4)))
    for column, expected in zip(notes[:4], ([0, 480], [2, 1], [42, 38], [40, 90]), strict=True):
        np.testing.assert_array_equal(column, np.array(expected), strict=True)


@pytest.mark.parametrize(
    ("setting", "read", "written"),
    [
        pytest.param("auto", [0, 480], 10, id="channel 10, where it has notes"),
        pytest.param(10, [0, 480], 10, id="channel 10 by hand"),
        pytest.param(2, [7], 2, id="another by hand"),
        pytest.param("any", [0, 7, 480], 10, id="any"),
    ],
)
def test_the_channel_setting_decides_which_notes_are_read(setting, read, written):
    notes = find(drum_file(*on(9, 0, 480), *on(BASS, 7)), setting)
    assert notes.ticks.tolist() == read
    assert notes.channel == written
    assert not notes.remarks


def test_notes_on_other_channels_are_counted():
    notes = find(drum_file(*on(9, 0), *on(BASS, 1, 2), *on(ORGAN, 3)))
    assert notes.counts.other_channels == {2: 2, 3: 1}


def test_the_only_channel_is_read_with_a_remark():
    notes = find(drum_file(*on(BASS, 0, 480)))
    assert (notes.ticks.tolist(), notes.channel) == ([0, 480], 2)
    ((kind, text),) = notes.remarks
    assert kind == "channel"
    assert text == "found no note on channel 10: channel 2, the only one, is read"
    assert not find(drum_file(*on(BASS, 0)), 2).remarks
    assert find(drum_file(*on(BASS, 0)), "any").channel == 2


def test_which_of_several_channels_is_not_guessed():
    data = drum_file(*on(BASS, 0, 1, 2), *on(ORGAN, 3))
    message = r"found notes on channels 2 \(3\), 3 \(1\), expected some on channel 10: give the"
    with pytest.raises(ChannelError, match=message):
        find(data)
    with pytest.raises(ChannelError, match="expected some on channel 5"):
        find(data, 5)


@pytest.mark.parametrize("channel", [0, 17, True, "10", None, 1.0])
def test_an_invalid_channel_is_refused(channel):
    with pytest.raises(ValueError, match=f"^channel: found {channel!r}, expected 1 to 16, 'auto'"):
        check_channel(channel)


def test_unknown_pitches_are_counted_in_one_remark():
    notes = find(drum_file(note_on(0), *on(9, 1, 2, 3, pitch=4), *on(9, 4, pitch=100)))
    assert notes.counts.unknown_pitches == {4: 3, 100: 1}
    assert notes.counts.notes == 5
    ((kind, text),) = notes.remarks
    assert kind == "unknown pitches"
    assert text == (
        "4 of 5 notes left out, of pitches that the pitch map does not know: 4 (3), 100 (1)"
    )


def test_notes_that_the_end_cuts_off_are_counted():
    data = b"\x00\x99\x24\x64\x60\x99\x24\x64\x00\x89\x24\x40\x00\xff\x2f\x00"
    notes = find(midi_file(chunk(b"MTrk", data)))
    assert notes.counts.cut_off == 1
    ((kind, text),) = notes.remarks
    assert kind == "cut off notes"
    assert text == "1 note left out, of no length at the end of the file"


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(midi_file(), id="no tracks"),
        pytest.param(drum_file(tempo(0, 500_000)), id="no notes"),
        pytest.param(drum_file(note_off(0), note_on(9, KICK, 0)), id="note-offs alone"),
    ],
)
def test_a_file_without_notes_is_refused(data):
    with pytest.raises(NoDrumHitsError, match="found no note, expected drum hits"):
        find(data)


def test_a_file_without_known_pitches_is_refused():
    with pytest.raises(NoDrumHitsError, match=r"found 3 notes of pitches 60 \(2\), 61 \(1\)"):
        find(drum_file(note_on(0, 60), note_on(9, 61), note_on(9, 60)), pitch_map="roland_td11")


@pytest.mark.parametrize(("pitch", "velocity", "name"), [(200, 9, "pitch"), (9, 200, "velocity")])
def test_a_damaged_note_among_the_drums_spoils_the_file_and_elsewhere_does_not(
    pitch, velocity, name
):
    with pytest.raises(MidiFormatError, match=f"damaged .*: found {name} 200 at tick 7, expected"):
        find(drum_file(note_on(0), note_on(7, pitch, velocity)))
    assert find(drum_file(note_on(0), note_on(7, pitch, velocity, BASS))).ticks.tolist() == [0]


def test_the_last_tick_of_the_last_bar_is_read_and_no_later_one():
    end = MAX_BARS * 4 * 480
    assert find(drum_file(note_on(end - 1))).ticks.tolist() == [end - 1]
    with pytest.raises(MidiLengthError, match="found a hit after bar 4096, expected at most 4096"):
        find(drum_file(note_on(0), note_on(end)))


@pytest.mark.parametrize("microseconds", [120_000, 3_000_000], ids=["500 bpm", "20 bpm"])
def test_the_fastest_and_the_slowest_tempo_are_read(microseconds):
    find(drum_file(tempo(0, microseconds), note_on(0)))


@pytest.mark.parametrize(
    ("microseconds", "found"), [(1, r"6e\+07"), (119_999, "500.004"), (2**24 - 1, "3.57628")]
)
def test_an_absurd_tempo_is_refused_while_drums_sound_and_not_before_or_after(microseconds, found):
    absurd = tempo(1920, microseconds), tempo(3840, 500_000)
    find(drum_file(*absurd, note_on(0), note_on(3840)))
    with pytest.raises(TempoError, match=f"^bar 2: found tempo {found} bpm, expected 20 to 500"):
        find(drum_file(*absurd, note_on(0), note_on(3839)))


def test_the_tempo_at_a_tick_is_that_of_the_last_event():
    tempos = [(0, 500_000), (480, 400_000), (960, 600_000)]
    ticks = np.array([0, 479, 480, 959, 960, 10**6])
    assert bpm_at(tempos, ticks).tolist() == [120, 120, 150, 150, 100, 100]


def test_it_does_not_matter_how_a_kit_is_spread_over_tracks():
    events = note_on(0), note_on(10, 44, 70), note_on(20, 42, 70)
    one, many = find(drum_file(*events)), find(midi_file(*(track(e) for e in reversed(events))))
    for found, expected in zip(many[:4], one[:4], strict=True):
        np.testing.assert_array_equal(found, expected, strict=True)
