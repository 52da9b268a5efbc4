"""Songs: a user's file with every bar in its place."""

import warnings

import numpy as np
import pytest
from factories import (
    CLOSED_HI_HAT,
    KICK,
    SNARE,
    drum_file,
    ending_at,
    midi_file,
    note_on,
    tempo,
    time_signature,
    track,
)

from processing import MusicVAEProcessor
from processing.drum_song import DrumSong
from processing.errors import MidiLengthError, TimeSignatureError
from processing.midi_file import MAX_BARS

BAR, STEP = 1920, 120  # ticks at 480 a quarter


def song_of(*events, end: int | None = None, **settings) -> DrumSong:
    """The song of a file with these events that ends at a tick."""
    data = drum_file(*events, *([] if end is None else [ending_at(end)]))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return MusicVAEProcessor(**settings).read(data)


def hits_of(song: DrumSong) -> list[tuple[int, int]]:
    """Drum and step of each hit, in time order; steps are counted from the start of the song."""
    roll = np.concatenate(list(song.piano_roll), axis=1)
    return [(drum, step) for step, drum in np.argwhere(roll.T).tolist()]


def test_a_song_has_windows_side_by_side_and_silence_after_its_last_bar():
    kicks = [note_on(bar * BAR) for bar in range(6)]
    song = song_of(*kicks)
    assert (song.piano_roll.dtype, song.piano_roll.shape) == (np.uint8, (2, 9, 64))
    assert (song.timing.dtype, song.timing.shape) == (np.float32, (2, 9, 64))
    assert hits_of(song) == [(0, bar * 16) for bar in range(6)]
    assert song.num_bars == 6


# Every bar stays


def test_silent_bars_stay_wherever_they_are():
    song = song_of(note_on(4 * BAR), note_on(13 * BAR), end=20 * BAR)
    assert hits_of(song) == [(0, 4 * 16), (0, 13 * 16)]
    assert (song.num_bars, len(song.piano_roll)) == (20, 5)
    assert [bool(window.any()) for window in song.piano_roll] == [False, True, False, True, False]


@pytest.mark.parametrize(
    ("end", "num_bars"),
    [
        pytest.param(0, 2, id="with its last hit"),
        pytest.param(2 * BAR, 2, id="on a bar line"),
        pytest.param(2 * BAR + 1, 2, id="a tick after one"),
        pytest.param(2 * BAR + 959, 2, id="in the first half of a silent bar"),
        pytest.param(2 * BAR + 960, 3, id="in its second half"),
    ],
)
def test_a_song_ends_at_the_bar_line_nearest_to_the_end_of_the_file(end, num_bars):
    song = song_of(note_on(BAR), end=max(end, BAR))
    assert song.num_bars == num_bars
    assert song.layout.end_tick == num_bars * BAR


def test_a_song_is_as_long_as_the_longest_track():
    data = midi_file(track(note_on(0)), track(note_on(5 * BAR, channel=0), ending_at(6 * BAR)))
    assert MusicVAEProcessor().read(data).num_bars == 6


def test_silence_for_ever_is_left_out_with_a_remark():
    song = song_of(note_on(BAR), end=(MAX_BARS + 1) * BAR)
    assert song.num_bars == 2
    ((kind, text),) = song.remarks
    assert (kind, text) == (
        "silence",
        "the silence after the last hit reaches beyond bar 4096: left out",
    )


def test_a_hit_that_is_early_on_the_line_after_the_last_bar_is_refused():
    with pytest.raises(MidiLengthError, match="found 4097 bars, expected at most 4096"):
        song_of(note_on(MAX_BARS * BAR - 1), end=MAX_BARS * BAR + 5)


@pytest.mark.parametrize(
    ("adjust_mode", "steps", "num_bars"),
    [("none", [36, 52], 5), ("bars", [4, 20], 3), ("first_onset", [0, 16], 2)],
)
def test_the_adjust_mode_decides_about_leading_silence(adjust_mode, steps, num_bars):
    song = song_of(note_on(36 * STEP), note_on(52 * STEP), end=5 * BAR, adjust_mode=adjust_mode)
    assert hits_of(song) == [(0, step) for step in steps]
    assert song.num_bars == num_bars


def test_tempos_and_metre_move_with_the_music():
    events = tempo(0, 500_000), tempo(BAR, 400_000), tempo(3 * BAR, 600_000)
    song = song_of(*events, note_on(2 * BAR), note_on(3 * BAR), adjust_mode="bars")
    assert song.layout.tempos == [(0, 400_000), (BAR, 600_000)]
    assert song.layout.time_signatures == [(0, 4, 4)]


# Loops


def test_an_early_hit_on_the_line_where_a_file_ends_is_the_first_steps():
    song = song_of(note_on(STEP, SNARE), note_on(4 * BAR - 30), end=4 * BAR)
    assert hits_of(song) == [(0, 0), (1, 1)]
    assert song.timing[0, 0, 0] == np.float32(-0.25)
    assert (song.num_bars, song.layout.is_loop) == (4, True)


def test_an_early_hit_on_a_line_after_which_a_file_goes_on_has_a_bar_of_its_own():
    song = song_of(note_on(STEP, SNARE), note_on(4 * BAR - 30), end=4 * BAR + 30)
    assert hits_of(song) == [(1, 1), (0, 64)]
    assert (song.num_bars, song.layout.is_loop) == (5, False)


# Metre


@pytest.mark.parametrize("metre", [(4, 4), (2, 2), (8, 8), (16, 16)])
def test_every_metre_of_four_quarters_has_the_bar_of_four_four(metre):
    song = song_of(time_signature(0, *metre), note_on(0), note_on(BAR))
    assert hits_of(song) == [(0, 0), (0, 16)]
    assert song.layout.time_signatures == [(0, *metre)]


def test_a_metre_after_the_last_hit_does_not_matter():
    song = song_of(note_on(0), note_on(3 * BAR), time_signature(4 * BAR, 3, 4), end=4 * BAR + 1440)
    assert song.num_bars == 4
    assert song.layout.end_tick == 4 * BAR + 1440


@pytest.mark.parametrize(
    ("signatures", "message"),
    [
        pytest.param([(0, 3, 4)], "bar 1: found time signature 3/4", id="from the start"),
        pytest.param([(2 * BAR, 7, 8)], "bar 3: found time signature 7/8", id="in the middle"),
        pytest.param([(BAR + 480, 4, 4)], "bar 2: found a bar of 1 quarters", id="cut short"),
    ],
)
def test_another_metre_among_the_bars_is_refused(signatures, message):
    with pytest.raises(TimeSignatureError, match=f"^midi: {message}.*, expected 4/4"):
        song_of(*(time_signature(*s) for s in signatures), note_on(0), note_on(3 * BAR))


def test_bar_lines_start_after_a_pickup():
    song = song_of(
        time_signature(0, 1, 4),
        time_signature(480, 4, 4),
        note_on(0, SNARE),
        note_on(480),
        end=480 + 4 * BAR,
    )
    assert hits_of(song) == [(1, 12), (0, 16)]
    assert (song.num_bars, song.layout.start_tick, song.layout.end_tick) == (5, -1440, 8160)


# Tempo


def test_the_tempo_of_a_window_is_that_at_its_start():
    events = tempo(0, 500_000), tempo(4 * BAR, 400_000), tempo(5 * BAR, 300_000)
    song = song_of(*events, *(note_on(bar * BAR) for bar in range(9)))
    assert (song.bpm.dtype, song.bpm.tolist()) == (np.float32, [120, 150, 200])
    assert song.layout.tempos == [(0, 500_000), (4 * BAR, 400_000), (5 * BAR, 300_000)]


def test_a_changing_tempo_changes_nothing_about_the_grid():
    hits = [note_on(tick) for tick in (0, 130, 700, 2000)]
    tempos = [tempo(tick, 400_000 + tick) for tick in range(0, 2000, 10)]
    plain, changing = song_of(*hits), song_of(*hits, *tempos)
    assert np.array_equal(changing.piano_roll, plain.piano_roll)
    assert np.array_equal(changing.timing, plain.timing)


def test_the_time_of_a_tick_follows_the_tempo():
    song = song_of(tempo(0, 500_000), tempo(8 * STEP, 1_000_000), note_on(0))
    times = song.layout.seconds(STEP * np.array([0, 1, 8, 9, 16, 64]))
    assert times == pytest.approx([0, 0.125, 1, 1.25, 3, 15])


def test_the_time_of_a_tick_before_a_pickup_is_negative():
    song = song_of(time_signature(0, 1, 4), time_signature(480, 4, 4), note_on(0))
    times = song.layout.seconds(song.layout.start_tick + STEP * np.array([0, 12, 16]))
    assert times == pytest.approx([-1.5, 0, 0.5])


# What is said


def test_merged_notes_are_counted():
    flams = [note_on(tick, SNARE, velocity) for tick, velocity in ((0, 40), (20, 90), (480, 80))]
    song = song_of(*flams)
    assert song.piano_roll[0, 1, 0] == 90
    assert song.counts.merged == 1
    ((kind, text),) = song.remarks
    assert kind == "merged notes"
    assert text == "1 of 3 notes merged with a louder one on the same step and drum"


def test_each_remark_is_one_warning_that_names_the_file():
    events = note_on(0, channel=0), note_on(9, velocity=90, channel=0), note_on(0, 4, channel=0)
    with pytest.warns(UserWarning) as caught:
        MusicVAEProcessor().read(drum_file(*events), name="take.mid")
    assert [str(warning.message) for warning in caught] == [
        "take.mid: found no note on channel 10: channel 1, the only one, is read",
        "take.mid: 1 of 3 notes left out, of pitches that the pitch map does not know: 4 (1)",
        "take.mid: 1 of 2 notes merged with a louder one on the same step and drum",
    ]


def test_a_file_of_which_every_note_is_read_as_it_stands_gives_no_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        MusicVAEProcessor().read(drum_file(note_on(0), note_on(0, channel=0)))


# What is written back


@pytest.mark.parametrize(
    ("pitches", "written"),
    [
        pytest.param([], 38, id="none: the first of the map"),
        pytest.param([40, 40, 38], 38, id="the first of the map, where the file has it"),
        pytest.param([39, 40, 39], 39, id="else the most frequent"),
        pytest.param([40, 39], 39, id="of equally frequent the lowest"),
    ],
)
def test_the_pitch_to_write_is_one_of_the_file(pitches, written):
    snares = [note_on((4 * index + 4) * STEP, pitch) for index, pitch in enumerate(pitches)]
    song = song_of(note_on(0), *snares)
    assert song.layout.pitches == (36, written, 42, 46, 45, 48, 50, 49, 51)


def test_hits_of_other_drums_have_their_own_pitches():
    song = song_of(note_on(0, KICK), note_on(0, CLOSED_HI_HAT), pitch_map="roland_td11")
    assert song.layout.pitches == (36, 38, 42, 46, 43, 47, 50, 49, 51)
