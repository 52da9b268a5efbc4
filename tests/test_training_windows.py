"""Windows of a file for training."""

import numpy as np
import pytest
from factories import drum_file, ending_at, note_on, tempo, time_signature

from processing import MusicVAEProcessor
from processing.errors import TimeSignatureError
from processing.training_windows import TrainingWindows

BAR = 1920  # ticks at 480 a quarter


def windows_of(*events, **settings) -> TrainingWindows:
    settings = {"bars": 2, "hop_bars": 1, "adjust_mode": "bars"} | settings
    return MusicVAEProcessor(**settings).training_windows(drum_file(*events))


def kicks(*bars: float):
    return [note_on(int(bar * BAR)) for bar in bars]


def test_every_window_of_a_performance_starts_at_a_bar():
    windows = windows_of(*kicks(0, 1, 2, 3))
    assert (windows.piano_roll.dtype, windows.piano_roll.shape) == (np.uint8, (3, 9, 32))
    assert (windows.timing.dtype, windows.timing.shape) == (np.float32, (3, 9, 32))
    assert (windows.bpm.dtype, windows.bpm.tolist()) == (np.float32, [120, 120, 120])
    assert (windows.start_bar.dtype, windows.start_bar.tolist()) == (np.int64, [0, 1, 2])
    assert windows.num_bars == 4


def test_silence_before_after_and_within_the_music_has_no_windows():
    windows = windows_of(*kicks(3, 7), ending_at(20 * BAR))
    assert windows.start_bar.tolist() == [0, 3]
    assert windows.num_bars == 5


def test_bars_are_counted_from_the_first_of_the_file_where_silence_stays():
    assert windows_of(*kicks(3, 7), adjust_mode="none").start_bar.tolist() == [2, 3, 6]


def test_an_early_hit_on_the_last_line_has_a_bar_of_its_own():
    windows = windows_of(*kicks(0), note_on(2 * BAR - 30), ending_at(2 * BAR))
    assert windows.num_bars == 3


def test_the_hop_is_counted_in_bars():
    assert windows_of(*kicks(*range(7)), hop_bars=2).start_bar.tolist() == [0, 2, 4]


def test_a_recording_shorter_than_a_window_has_none():
    windows = windows_of(*kicks(5))
    assert windows.piano_roll.shape == (0, 9, 32)
    assert windows.num_bars == 1


def test_the_tempo_of_a_window_is_that_at_its_start():
    windows = windows_of(tempo(0, 500_000), tempo(3 * BAR, 400_000), *kicks(2, 3, 4))
    assert windows.bpm.tolist() == [120, 150]


WALTZ = [
    time_signature(0, 4, 4),
    time_signature(3 * BAR, 3, 4),
    time_signature(3 * BAR + 1440, 4, 4),
]
AFTER = 3 * BAR + 1440  # where 4/4 starts again, in bar 4


def test_a_window_never_holds_a_bar_of_another_metre():
    hits = [*kicks(0, 1, 2, 3), note_on(AFTER), note_on(AFTER + BAR), note_on(AFTER + 2 * BAR)]
    windows = windows_of(*WALTZ, *hits)
    assert windows.start_bar.tolist() == [0, 1, 4, 5]
    assert windows.piano_roll[:, 0, [0, 16]].tolist() == [[100, 100]] * 4
    ((kind, text),) = windows.remarks
    assert kind == "other metres"
    assert text == "1 of 7 notes left out, in bars of another metre"


def test_an_early_hit_belongs_to_the_line_after_it_also_where_the_metre_changes():
    hits = [*kicks(0, 1), note_on(AFTER - 30), note_on(AFTER + BAR)]
    windows = windows_of(*WALTZ, *hits)
    assert windows.start_bar.tolist() == [0, 4]
    assert windows.timing[1, 0, 0] == np.float32(-0.25)
    assert not windows.remarks


def test_a_pickup_is_in_no_window():
    events = time_signature(0, 1, 4), time_signature(480, 4, 4), note_on(0)
    windows = windows_of(*events, note_on(480), note_on(480 + BAR))
    assert windows.start_bar.tolist() == [0]
    assert windows.piano_roll[0, 0].nonzero()[0].tolist() == [0, 16]


@pytest.mark.parametrize("metre", [(2, 2), (8, 8)])
def test_other_names_of_four_four_are_four_four(metre):
    assert len(windows_of(time_signature(0, *metre), *kicks(0, 1)).piano_roll) == 1


@pytest.mark.parametrize(
    "signatures",
    [[time_signature(0, 3, 4)], [time_signature(0, 4, 4), time_signature(BAR, 3, 4)]],
    ids=["throughout", "where there are hits"],
)
def test_a_file_without_hits_in_four_four_is_refused(signatures):
    with pytest.raises(TimeSignatureError, match="found time signature 3/4, expected 4/4"):
        windows_of(*signatures, *kicks(2, 3))


def test_merged_notes_are_said():
    windows = windows_of(note_on(0), note_on(5), *kicks(1))
    ((kind, text),) = windows.remarks
    assert kind == "merged notes"
    assert text == "1 of 3 notes merged with a louder one on the same step and drum"
