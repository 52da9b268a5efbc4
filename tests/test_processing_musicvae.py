"""The processor: MIDI to windows of piano roll and timing, and back."""

import csv
import inspect
import io
import json
import os
import random
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pretty_midi
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from midi_factory import (
    CLOSED_HI_HAT,
    KICK,
    SNARE,
    Event,
    drum_file,
    midi_file,
    note_off,
    note_on,
    tempo,
    time_signature,
    track,
)
from transformers import AutoProcessor

from processing import MusicVAEProcessor
from processing.drum_kit import PITCH_MAPS
from processing.errors import (
    MidiError,
    MidiFormatError,
    NoDrumHitsError,
    PianoRollError,
    ProcessorConfigError,
    TempoError,
    TimeSignatureError,
)
from processing.midi_file import pretty_midi_bytes, read_drum_hits
from processing.piano_roll import check_piano_roll
from processing.processing_musicvae import Performance

TICKS_PER_BAR = 1920  # as written; a step of 16 has 120
repeatable = settings(derandomize=True, deadline=None, max_examples=50)


def take(num_bars: int, first_bar: int = 0, microseconds: int = 500_000) -> bytes:
    """Bars with a kick on the first step and a snare, a little late, on the fifth."""
    ticks = TICKS_PER_BAR * np.arange(first_bar, first_bar + num_bars)
    events = [event for tick in ticks.tolist() for event in bar_of_take(tick)]
    return drum_file(tempo(0, microseconds), *events)


def bar_of_take(tick: int) -> list[Event]:
    return [
        note_on(tick, KICK, 100),
        note_off(tick + 90, KICK),
        note_on(tick + 510, SNARE, 90),
        note_off(tick + 600, SNARE),
    ]


# Reading


def test_a_recording_becomes_windows_of_four_bars():
    windows = MusicVAEProcessor()(take(6))
    assert set(windows) == {"piano_roll", "timing", "file_index", "start_bar", "bpm"}
    expected_roll = np.zeros((3, 9, 64), np.uint8)
    expected_roll[:, 0, ::16], expected_roll[:, 1, 4::16] = 100, 90
    expected_timing = np.zeros((3, 9, 64), np.float32)
    expected_timing[:, 1, 4::16] = 0.25
    np.testing.assert_array_equal(windows["piano_roll"], expected_roll, strict=True)
    np.testing.assert_array_equal(windows["timing"], expected_timing, strict=True)
    np.testing.assert_array_equal(windows["file_index"], np.array([0, 0, 0]), strict=True)
    np.testing.assert_array_equal(windows["start_bar"], np.array([0, 1, 2]), strict=True)
    np.testing.assert_array_equal(windows["bpm"], np.full(3, 120, np.float32), strict=True)


@pytest.fixture
def take_path(tmp_path) -> Path:
    path = tmp_path / "take.mid"
    path.write_bytes(take(6))
    return path


SOURCES = {
    "path": str,
    "PathLike": lambda path: path,
    "file": lambda path: io.BufferedReader(io.FileIO(path)),
    "file in memory": lambda path: io.BytesIO(path.read_bytes()),
    "bytes": lambda path: path.read_bytes(),
    "PrettyMIDI": lambda path: pretty_midi.PrettyMIDI(str(path)),
}


@pytest.mark.parametrize("source", SOURCES.values(), ids=SOURCES)
def test_every_kind_of_input_gives_the_same_windows(source, take_path):
    processor = MusicVAEProcessor()
    windows, expected = processor(source(take_path)), processor(take(6))
    for name in expected:
        np.testing.assert_array_equal(windows[name], expected[name], strict=True)


def test_a_list_of_any_inputs_gives_the_windows_of_each_in_turn(take_path):
    windows = MusicVAEProcessor()(
        [take_path, take(1, microseconds=600_000), pretty_midi.PrettyMIDI(str(take_path))]
    )
    assert windows["file_index"].tolist() == [0, 0, 0, 1, 2, 2, 2]
    assert windows["start_bar"].tolist() == [0, 1, 2, 0, 0, 1, 2]
    assert windows["bpm"].tolist() == [120, 120, 120, 100, 120, 120, 120]
    assert windows["piano_roll"].shape == windows["timing"].shape == (7, 9, 64)


def test_torch_tensors_are_returned_on_request():
    windows = MusicVAEProcessor()(take(4), return_tensors="pt")
    assert windows["piano_roll"].dtype == torch.uint8
    assert windows["timing"].dtype == windows["bpm"].dtype == torch.float32
    assert windows["file_index"].dtype == windows["start_bar"].dtype == torch.int64


def test_a_short_recording_is_padded_with_silence():
    windows = MusicVAEProcessor()(take(1))
    assert windows["piano_roll"].shape == (1, 9, 64)
    assert windows["piano_roll"][0, :, :16].any()
    assert not windows["piano_roll"][0, :, 16:].any()
    assert not windows["timing"][0, :, 16:].any()


@pytest.mark.parametrize(
    ("adjust_mode", "start_bars"),
    [("bars", [0, 1]), ("first_onset", [0, 1]), ("none", [1, 2, 3, 4, 5])],
)
def test_start_bar_counts_from_the_bar_where_the_music_was_moved_to(adjust_mode, start_bars):
    windows = MusicVAEProcessor(adjust_mode=adjust_mode)(take(5, first_bar=4))
    assert windows["start_bar"].tolist() == start_bars


def test_hop_and_window_length_are_counted_in_bars():
    windows = MusicVAEProcessor(bars=2, hop_bars=3, steps_per_bar=24)(take(8))
    assert windows["start_bar"].tolist() == [0, 3, 6]
    assert windows["piano_roll"].shape == (3, 9, 48)
    assert np.flatnonzero(windows["piano_roll"][0, 1]).tolist() == [6, 30]


def test_the_last_window_is_padded_with_silence_so_that_no_bar_is_lost():
    windows = MusicVAEProcessor(hop_bars=4)(take(6))
    assert windows["start_bar"].tolist() == [0, 4]
    assert windows["piano_roll"][1, :, :32].any()
    assert not windows["piano_roll"][1, :, 32:].any()


def test_a_silent_window_is_left_out():
    windows = MusicVAEProcessor(adjust_mode="none", hop_bars=4)(take(1, first_bar=5))
    assert windows["start_bar"].tolist() == [4]


@pytest.mark.parametrize("pitch_map", PITCH_MAPS)
def test_every_pitch_plays_its_drum(pitch_map):
    processor = MusicVAEProcessor(pitch_map=pitch_map)
    for drum, pitches in enumerate(PITCH_MAPS[pitch_map]):
        for pitch in pitches:
            roll = processor.read(drum_file(note_on(0, pitch, 77))).piano_roll
            assert np.argwhere(roll).tolist() == [[drum, 0]]


@pytest.mark.parametrize(
    ("pitch_map", "written"),
    [
        ("roland_td11", [36, 38, 42, 46, 43, 47, 50, 49, 51]),
        ("general_midi", [36, 38, 42, 46, 45, 48, 50, 49, 51]),
    ],
)
def test_every_drum_is_written_as_one_pitch_and_read_back(pitch_map, written):
    processor = MusicVAEProcessor(pitch_map=pitch_map)
    roll = np.zeros((9, 64), np.uint8)
    roll[range(9), range(9)] = 100
    midi = processor.decode(roll)
    assert [note.pitch for note in midi.instruments[0].notes] == written
    assert np.array_equal(processor(midi)["piano_roll"][0], roll)


def test_pitches_of_other_kits_are_left_out():
    data = drum_file(note_on(0, KICK), note_on(0, 54), note_on(120, CLOSED_HI_HAT))
    roll = MusicVAEProcessor(pitch_map="roland_td11").read(data).piano_roll
    assert np.argwhere(roll).tolist() == [[0, 0], [2, 1]]


def test_of_equally_loud_hits_on_a_step_the_earlier_stays_however_tracks_are_ordered():
    late, early = note_on(20, 44, 70), note_on(10, 42, 70)
    for data in (drum_file(late, early), midi_file(track(late), track(early))):
        assert MusicVAEProcessor().read(data).timing[2, 0] == np.float32(10 / 120)


# Writing


def test_decode_writes_one_drum_track_with_tempo_and_metre():
    roll = np.zeros((9, 64), np.uint8)
    roll[0, ::4] = 100
    decoded = MusicVAEProcessor().decode(roll, bpm=96)
    for midi in (decoded, pretty_midi.PrettyMIDI(io.BytesIO(pretty_midi_bytes(decoded)))):
        (drums,) = midi.instruments
        assert drums.is_drum
        assert midi.resolution == 480
        assert midi.get_tempo_changes()[1].tolist() == pytest.approx([96])
        (metre,) = midi.time_signature_changes
        assert (metre.numerator, metre.denominator, metre.time) == (4, 4, 0)


def test_decode_places_notes_by_step_and_timing():
    roll, timing = np.zeros((9, 16), np.uint8), np.zeros((9, 16), np.float32)
    roll[0, [0, 1, 8]] = 100, 50, 127
    timing[0, [0, 1, 8]] = 0, -0.5, 0.25
    roll[8, 15] = 1
    notes = MusicVAEProcessor().decode(roll, timing, bpm=120).instruments[0].notes
    assert [(note.pitch, note.velocity) for note in notes] == [
        (36, 100),
        (36, 50),
        (36, 127),
        (51, 1),
    ]
    assert [note.start for note in notes] == pytest.approx([0, 0.0625, 1.03125, 1.875])
    assert [note.end for note in notes] == pytest.approx([0.0625, 0.1875, 1.15625, 2.0])


def test_a_hit_before_the_start_is_written_at_0_or_kept_by_a_lead_in():
    roll, timing = np.zeros((9, 16), np.uint8), np.zeros((9, 16), np.float32)
    roll[0, 0], timing[0, 0] = 100, -0.25
    processor = MusicVAEProcessor()
    (clipped,) = processor.decode(roll, timing, bpm=120).instruments[0].notes
    (kept,) = processor.decode(roll, timing, bpm=120, lead_in_bars=1).instruments[0].notes
    assert (clipped.start, clipped.end) == pytest.approx((0, 0.125))
    assert (kept.start, kept.end) == pytest.approx((2 - 0.03125, 2 + 0.09375))


def test_batch_decode_decodes_each_roll():
    generator = np.random.default_rng(0)
    rolls = generator.integers(0, 128, (3, 9, 64), dtype=np.uint8)
    timings = generator.uniform(-0.5, 0.49, (3, 9, 64)).astype(np.float32)
    processor = MusicVAEProcessor()
    together = processor.batch_decode(torch.tensor(rolls), torch.tensor(timings), 90, 1)
    alone = [processor.decode(*grid, 90, 1) for grid in zip(rolls, timings, strict=True)]
    assert [pretty_midi_bytes(midi) for midi in together] == [
        pretty_midi_bytes(midi) for midi in alone
    ]
    on_the_grid = processor.batch_decode(rolls)
    assert [pretty_midi_bytes(midi) for midi in on_the_grid] == [
        pretty_midi_bytes(processor.decode(roll)) for roll in rolls
    ]


def test_silence_decodes_to_no_notes():
    assert MusicVAEProcessor().decode(np.zeros((9, 64), np.uint8)).instruments[0].notes == []


# Round trips

offsets = st.floats(-0.5, float(np.nextafter(np.float32(0.5), np.float32(0))), width=32)
tempos = st.floats(20, 500)


def offsets_on_ticks(steps_per_bar: int) -> st.SearchStrategy[float]:
    ticks = TICKS_PER_BAR // steps_per_bar
    return st.integers(-(ticks // 2), (ticks - 1) // 2).map(lambda tick: tick / ticks)


def grids(steps_per_bar: int, offsets: st.SearchStrategy[float], first_bar: bool = True):
    """Four bars of piano roll and timing, with at least one hit, in the first bar if so asked."""

    def grid(hits: dict[tuple[int, int], tuple[int, float]]) -> tuple[np.ndarray, np.ndarray]:
        roll = np.zeros((9, 4 * steps_per_bar), np.uint8)
        timing = np.zeros(roll.shape, np.float32)
        for place, (velocity, offset) in hits.items():
            roll[place], timing[place] = velocity, offset
        return roll, timing

    def hits(num_steps: int, **size: int):
        places = st.tuples(st.integers(0, 8), st.integers(0, num_steps - 1))
        return st.dictionaries(places, st.tuples(st.integers(1, 127), offsets), **size)

    first = hits(steps_per_bar if first_bar else 4 * steps_per_bar, min_size=1, max_size=5)
    rest = hits(4 * steps_per_bar, max_size=60)
    return st.builds(lambda first, rest: grid(rest | first), first, rest)


def read_back(processor, roll, timing, **kwargs) -> tuple[np.ndarray, np.ndarray]:
    """What the first window of a roll's MIDI file holds."""
    windows = processor(pretty_midi_bytes(processor.decode(roll, timing, **kwargs)))
    return windows["piano_roll"][0], windows["timing"][0]


@pytest.mark.parametrize("steps_per_bar", [7, 12, 16, 24, 32])
@given(st.data())
@repeatable
def test_roll_to_midi_to_roll_is_the_identity_to_within_half_a_tick(steps_per_bar, data):
    roll, timing = data.draw(grids(steps_per_bar, offsets))
    processor = MusicVAEProcessor(steps_per_bar=steps_per_bar)
    found_roll, found_timing = read_back(
        processor, roll, timing, bpm=data.draw(tempos), lead_in_bars=1
    )
    tick = steps_per_bar / TICKS_PER_BAR
    # Within half a tick, but where the nearest tick belongs to the neighbouring step.
    nearest_is_ours = (timing >= -0.5 + tick / 2) & (timing < 0.5 - tick / 2)
    assert np.array_equal(found_roll, roll)
    assert (abs(found_timing - timing) <= np.where(nearest_is_ours, tick / 2, tick) + 1e-6).all()


@pytest.mark.parametrize("steps_per_bar", [12, 16, 24, 32])
@given(st.data())
@repeatable
def test_roll_to_midi_to_roll_is_the_identity_where_timing_lies_on_ticks(steps_per_bar, data):
    roll, timing = data.draw(grids(steps_per_bar, offsets_on_ticks(steps_per_bar)))
    processor = MusicVAEProcessor(steps_per_bar=steps_per_bar)
    found = read_back(processor, roll, timing, bpm=data.draw(tempos), lead_in_bars=1)
    assert np.array_equal(found, (roll, timing))


@given(grids(16, offsets_on_ticks(16), first_bar=False), tempos)
@repeatable
def test_without_a_lead_in_only_early_hits_on_the_first_step_move(grid, bpm):
    roll, timing = grid
    found_roll, found_timing = read_back(
        MusicVAEProcessor(adjust_mode="none"), roll, timing, bpm=bpm
    )
    timing[:, 0] = np.maximum(timing[:, 0], 0)
    assert np.array_equal(found_roll, roll)
    assert np.array_equal(found_timing, timing)


def test_a_roll_with_every_drum_on_every_step_comes_back():
    generator = np.random.default_rng(0)
    roll = generator.integers(1, 128, (9, 64), dtype=np.uint8)
    timing = generator.integers(-60, 60, (9, 64)).astype(np.float32) / np.float32(120)
    found = read_back(MusicVAEProcessor(), roll, timing, lead_in_bars=1)
    assert np.array_equal(found, (roll, timing))


@pytest.mark.parametrize("steps_per_bar", [7, 16, 24])
@given(st.data())
@repeatable
def test_notes_last_at_most_a_step_and_never_overlap(steps_per_bar, data):
    roll, timing = data.draw(grids(steps_per_bar, offsets))
    midi = MusicVAEProcessor(steps_per_bar=steps_per_bar).decode(roll, timing)
    last_end = dict.fromkeys(range(128), 0)
    for note in midi.instruments[0].notes:
        start, end = midi.time_to_tick(note.start), midi.time_to_tick(note.end)
        assert 1 <= end - start <= TICKS_PER_BAR // steps_per_bar
        assert start >= last_end[note.pitch]
        last_end[note.pitch] = end


KIT = [pitch for pitches in PITCH_MAPS["general_midi"] for pitch in pitches]
performances = st.lists(
    st.tuples(st.integers(0, 20_000), st.sampled_from(KIT), st.integers(1, 127)),
    min_size=1,
    max_size=80,
)


@pytest.mark.parametrize("adjust_mode", ["bars", "none"])
@pytest.mark.parametrize("steps_per_bar", [7, 16, 24])
@given(performances, st.integers(120_000, 3_000_000), st.sampled_from([48, 96, 120, 240, 480]))
@repeatable
def test_midi_to_roll_to_midi_to_roll_is_the_identity(
    steps_per_bar, adjust_mode, hits, microseconds, division
):
    processor = MusicVAEProcessor(steps_per_bar=steps_per_bar, adjust_mode=adjust_mode)
    events = [note_on(*hit) for hit in hits]
    first = processor.read(drum_file(tempo(0, microseconds), *events, division=division))
    assert_same(rewritten(processor, first), first)


@given(performances, st.integers(1, 0x7FFF))
@repeatable
def test_a_performance_of_any_resolution_keeps_its_hits_and_then_stays_as_it_is(hits, division):
    processor = MusicVAEProcessor()
    # Spread over eight bars, whatever a tick is.
    events = [note_on(tick * division // 600, *hit) for tick, *hit in hits]
    first = processor.read(drum_file(*events, division=division))
    second = rewritten(processor, first)
    assert np.array_equal(second.piano_roll, first.piano_roll)
    assert abs(second.timing - first.timing).max() <= 1 / 120
    assert_same(rewritten(processor, second), second)


def rewritten(processor: MusicVAEProcessor, performance: Performance) -> Performance:
    """A performance after its way to MIDI and back."""
    lead_in_bars = 1 if processor.adjust_mode == "bars" else 0
    return processor.read(processor.decode(*performance, lead_in_bars))


def assert_same(found: Performance, expected: Performance) -> None:
    np.testing.assert_array_equal(found.piano_roll, expected.piano_roll, strict=True)
    np.testing.assert_array_equal(found.timing, expected.timing, strict=True)
    assert found.bpm == expected.bpm


@pytest.fixture(scope="module")
def groove_takes(shared_groove) -> dict[str, bytes]:
    """Forty files in 4/4 of the Groove MIDI Dataset."""
    with zipfile.ZipFile(shared_groove) as archive:
        rows = csv.DictReader(io.StringIO(archive.read("groove/info.csv").decode()))
        names = [row["midi_filename"] for row in rows if row["time_signature"] == "4-4"]
        return {name: archive.read(f"groove/{name}") for name in random.Random(0).sample(names, 40)}


def test_groove_comes_back_from_midi_unchanged(groove_takes):
    processor = MusicVAEProcessor(pitch_map="roland_td11")
    for name, data in groove_takes.items():
        first = processor.read(data, name)
        assert_same(rewritten(processor, first), first)


def test_groove_reads_alike_as_pretty_midi(groove_takes):
    processor = MusicVAEProcessor(pitch_map="roland_td11")
    num_compared = 0
    for data in groove_takes.values():
        midi = pretty_midi.PrettyMIDI(io.BytesIO(data))
        # PrettyMIDI leaves out notes that end at once.
        if len(midi.instruments[0].notes) == len(read_drum_hits(data).ticks):
            found, expected = processor.read(midi), processor.read(data)
            assert np.array_equal(found.piano_roll, expected.piano_roll)
            assert np.array_equal(found.timing, expected.timing)
            assert found.bpm == pytest.approx(expected.bpm, rel=1e-5)
            num_compared += 1
    assert num_compared >= 20


# Parameters

OTHER_PARAMETERS = {
    "bars": 2,
    "steps_per_bar": 24,
    "hop_bars": 3,
    "pitch_map": "roland_td11",
    "adjust_mode": "first_onset",
}


def test_the_defaults_are_four_bars_of_sixteenths_at_every_bar():
    processor = MusicVAEProcessor()
    assert {name: getattr(processor, name) for name in OTHER_PARAMETERS} == {
        "bars": 4,
        "steps_per_bar": 16,
        "hop_bars": 1,
        "pitch_map": "general_midi",
        "adjust_mode": "bars",
    }


def test_every_parameter_is_saved_and_nothing_else(tmp_path):
    MusicVAEProcessor().save_pretrained(tmp_path)
    saved = json.loads((tmp_path / "processor_config.json").read_text())
    parameters = inspect.signature(MusicVAEProcessor.__init__).parameters.keys()
    assert saved.keys() - {"processor_class", "auto_map"} == parameters - {"self", "kwargs"}
    assert OTHER_PARAMETERS.keys() == parameters - {"self", "kwargs"}


@pytest.mark.parametrize("loader", [MusicVAEProcessor, AutoProcessor])
def test_a_saved_processor_loads_with_every_parameter(loader, tmp_path):
    MusicVAEProcessor(**OTHER_PARAMETERS).save_pretrained(tmp_path)
    processor = loader.from_pretrained(tmp_path)
    assert type(processor) is MusicVAEProcessor
    assert {name: getattr(processor, name) for name in OTHER_PARAMETERS} == OTHER_PARAMETERS


WITHOUT_OUR_PACKAGES = """
import sys
sys.modules["processing"] = sys.modules["modeling_musicvae"] = None  # importing them now fails

import numpy as np
from transformers import AutoProcessor

processor = AutoProcessor.from_pretrained("processor", trust_remote_code=True)
windows = processor("take.mid")
np.savez("windows.npz", **windows)
processor.decode(windows["piano_roll"][0], windows["timing"][0], bpm=100).write("decoded.mid")
"""


def test_a_saved_processor_works_where_our_packages_are_not_installed(take_path, tmp_path):
    processor = MusicVAEProcessor(bars=2)
    processor.save_pretrained(tmp_path / "processor")
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    subprocess.run(
        [sys.executable, "-c", WITHOUT_OUR_PACKAGES],
        cwd=tmp_path,
        env=environment | {"HF_HOME": str(tmp_path / "hf_home"), "HF_HUB_OFFLINE": "1"},
        check=True,
    )
    expected = processor(take_path)
    with np.load(tmp_path / "windows.npz") as windows:
        for name in expected:
            np.testing.assert_array_equal(windows[name], expected[name], strict=True)
    decoded = processor.decode(expected["piano_roll"][0], expected["timing"][0], bpm=100)
    assert (tmp_path / "decoded.mid").read_bytes() == pretty_midi_bytes(decoded)


WRONG_PARAMETERS = {
    **dict.fromkeys(("bars", "steps_per_bar", "hop_bars"), (0, -1, True, 4.0, "4", None, 2**31)),
    "pitch_map": ("general", None),
    "adjust_mode": ("bar", None),
}


@pytest.mark.parametrize(
    ("name", "value"),
    [(name, value) for name, values in WRONG_PARAMETERS.items() for value in values],
)
def test_a_wrong_parameter_is_named(name, value):
    with pytest.raises(ValueError, match=f"^{name}: found {value!r}, expected"):
        MusicVAEProcessor(**{name: value})


def test_an_unknown_parameter_is_refused():
    with pytest.raises(TypeError, match="num_bars"):
        MusicVAEProcessor(num_bars=4)


# Bad input

THREE_FOUR = drum_file(time_signature(0, 3, 4), note_on(0))


def test_an_error_names_the_path(tmp_path):
    path = tmp_path / "waltz.mid"
    path.write_bytes(THREE_FOUR)
    message = f"^{re.escape(str(path))}: found time signature 3/4, expected 4/4$"
    for recording in (path, str(path)):
        with pytest.raises(TimeSignatureError, match=message):
            MusicVAEProcessor()(recording)
    with path.open("rb") as file, pytest.raises(TimeSignatureError, match=message):
        MusicVAEProcessor()(file)


UNNAMED = {
    "bytes": bytes,
    "file in memory": io.BytesIO,
    "PrettyMIDI": lambda data: pretty_midi.PrettyMIDI(io.BytesIO(data)),
}


@pytest.mark.parametrize("source", UNNAMED.values(), ids=UNNAMED)
def test_an_error_names_the_place_of_a_recording_without_a_path(source):
    message = r"^midi\[1\]: found time signature 3/4, expected 4/4$"
    with pytest.raises(TimeSignatureError, match=message):
        MusicVAEProcessor()([take(1), source(THREE_FOUR)])


def test_an_error_names_a_recording_as_it_is_told():
    with pytest.raises(MidiFormatError, match="^take 3: not a MIDI file: it is empty, expected"):
        MusicVAEProcessor().read(b"", name="take 3")


def test_a_pretty_midi_that_cannot_be_written_is_named():
    midi = pretty_midi.PrettyMIDI(io.BytesIO(take(1)))
    midi.instruments[0].notes[0].pitch = 128
    with pytest.raises(MidiFormatError, match=r"^midi\[0\]: found a PrettyMIDI that cannot be"):
        MusicVAEProcessor()(midi)


def test_a_kit_without_known_pitches_is_refused():
    with pytest.raises(NoDrumHitsError, match=r"^midi\[0\]: found no pitch of the roland_td11 kit"):
        MusicVAEProcessor(pitch_map="roland_td11")(drum_file(note_on(0, 60)))


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="missing.mid"):
        MusicVAEProcessor()(tmp_path / "missing.mid")


def test_an_empty_list_is_refused():
    with pytest.raises(ValueError, match="^midi: found an empty list"):
        MusicVAEProcessor()([])


NOT_RECORDINGS = {
    "None": (None, "NoneType"),
    "array": (np.zeros((9, 64), np.uint8), "ndarray"),
    "list in a list": ([take(1)], "list"),
    "text file": (io.StringIO("MThd"), "StringIO"),
}


@pytest.mark.parametrize(("recording", "type_name"), NOT_RECORDINGS.values(), ids=NOT_RECORDINGS)
def test_what_is_no_recording_is_refused(recording, type_name):
    with pytest.raises(TypeError, match=rf"^midi\[1\]: found {type_name}, expected a path"):
        MusicVAEProcessor()([take(1), recording])


def test_windows_are_decoded_into_one_recording_without_a_gap():
    processor = MusicVAEProcessor(hop_bars=4)
    windows = processor(take(12))
    midi = processor.decode(windows["piano_roll"], windows["timing"])
    for name, expected in windows.items():
        np.testing.assert_array_equal(processor(midi)[name], expected)


ROLL = np.zeros((9, 64), np.uint8)
WRONG_DECODE_ARGUMENTS = {
    "float roll": (
        {"piano_roll": ROLL.astype(np.float32)},
        PianoRollError,
        "piano_roll: found float32",
    ),
    "no windows": (
        {"piano_roll": ROLL[None][:0]},
        PianoRollError,
        r"piano_roll: found uint8 \(0, 9, 64\)",
    ),
    "batches of windows": (
        {"piano_roll": ROLL[None, None]},
        PianoRollError,
        r"piano_roll: found uint8 \(1, 1, 9, 64\)",
    ),
    "velocity 128": (
        {"piano_roll": ROLL + np.uint8(128)},
        PianoRollError,
        "piano_roll: found velocity 128",
    ),
    "timing of another length": (
        {"timing": np.zeros((9, 63), np.float32)},
        PianoRollError,
        r"timing: found float32 \(9, 63\)",
    ),
    "timing not a number": (
        {"timing": np.full((9, 64), np.nan, np.float32)},
        PianoRollError,
        "timing: found a value outside",
    ),
    "roll too long": (
        {"piano_roll": np.zeros((9, 4097 * 16), np.uint8)},
        PianoRollError,
        "piano_roll: found 4097 bars, expected at most 4096",
    ),
    "lead-in too long": (
        {"lead_in_bars": 10**12},
        PianoRollError,
        "piano_roll: found 1000000000004 bars, expected at most 4096",
    ),
    **{
        f"lead_in_bars {lead_in_bars!r}": (
            {"lead_in_bars": lead_in_bars},
            ValueError,
            f"lead_in_bars: found {lead_in_bars!r}, expected 0 or more",
        )
        for lead_in_bars in (-1, True, 1.0)
    },
    **{
        f"bpm {bpm!r}": (
            {"bpm": bpm},
            TempoError,
            f"bpm: found {bpm!r}, expected 20 to 500",
        )
        for bpm in (0, -120, 19.9, 500.1, float("nan"), float("inf"))
    },
}


@pytest.mark.parametrize(
    ("arguments", "error", "message"), WRONG_DECODE_ARGUMENTS.values(), ids=WRONG_DECODE_ARGUMENTS
)
def test_decode_refuses_wrong_arguments(arguments, error, message):
    with pytest.raises(error, match=f"^{message}"):
        MusicVAEProcessor().decode(**{"piano_roll": ROLL} | arguments)


def test_batch_decode_refuses_a_single_roll_and_too_few_timings():
    with pytest.raises(PianoRollError, match=r"^piano_rolls: found \(9, 64\), expected"):
        MusicVAEProcessor().batch_decode(ROLL)
    with pytest.raises(PianoRollError, match="^timings: found 1, expected 2"):
        MusicVAEProcessor().batch_decode(np.stack([ROLL, ROLL]), np.zeros((1, 9, 64), np.float32))


edits = st.tuples(
    st.integers(0, len(take(2))), st.integers(0, 8), st.binary(max_size=8)
)  # where, how many bytes go, which come


@given(st.lists(edits, min_size=1, max_size=4))
@settings(repeatable, max_examples=300)
def test_a_mutated_file_gives_windows_or_a_midi_error(edits):
    data = take(2)
    for position, removed, inserted in edits:
        data = data[:position] + inserted + data[position + removed :]
    try:
        performance = MusicVAEProcessor().read(data)
    except MidiError as error:
        assert str(error).startswith("midi: ")
        return
    check_piano_roll(performance.piano_roll, performance.timing)
    assert performance.piano_roll.any()


@pytest.mark.parametrize(
    ("settings", "found"),
    [(None, "no processor_config.json"), ({"processor_class": "Other"}, "the settings of a Other")],
    ids=["none", "of another class"],
)
def test_a_folder_without_its_settings_is_refused(settings, found, tmp_path):
    if settings is not None:
        (tmp_path / "processor_config.json").write_text(json.dumps(settings))
    with pytest.raises(ProcessorConfigError, match=f"^{tmp_path}: found {found}, expected those"):
        MusicVAEProcessor.from_pretrained(tmp_path)
