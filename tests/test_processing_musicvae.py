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
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pretty_midi
import pytest
import torch
from factories import KICK, SNARE, Event, drum_file, note_off, note_on, tempo, time_signature
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoProcessor

from modeling_musicvae import MusicVAEConfig, MusicVAEModel
from processing import MusicVAEProcessor
from processing.drum_kit import DRUM_NAMES, PITCH_MAPS
from processing.drum_song import DrumSong
from processing.errors import (
    MidiFormatError,
    NoDrumHitsError,
    NotAFileError,
    PianoRollError,
    ProcessorConfigError,
    TempoError,
    TimeSignatureError,
)
from processing.midi_file import read_midi

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


def test_a_recording_becomes_windows_side_by_side():
    windows = MusicVAEProcessor()(take(6))
    assert set(windows) == {"piano_roll", "timing", "bpm"}
    expected_roll = np.zeros((2, 9, 64), np.uint8)
    expected_roll[:, 0, ::16], expected_roll[:, 1, 4::16] = 100, 90
    expected_roll[1, :, 32:] = 0
    expected_timing = np.where(expected_roll == 90, np.float32(0.25), np.float32(0))
    np.testing.assert_array_equal(windows["piano_roll"], expected_roll, strict=True)
    np.testing.assert_array_equal(windows["timing"], expected_timing, strict=True)
    np.testing.assert_array_equal(windows["bpm"], np.full(2, 120, np.float32), strict=True)


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
    assert windows["bpm"].tolist() == [120, 120, 100, 120, 120]
    assert windows["piano_roll"].shape == windows["timing"].shape == (5, 9, 64)


def test_torch_tensors_are_returned_on_request():
    windows = MusicVAEProcessor()(take(4), return_tensors="pt")
    assert windows["piano_roll"].dtype == torch.uint8
    assert windows["timing"].dtype == windows["bpm"].dtype == torch.float32


@pytest.mark.parametrize(
    ("settings", "num_bars", "starts"),
    [
        pytest.param({}, 6, [0, 4], id="side by side"),
        pytest.param({"hop_bars": 1}, 6, [0, 1, 2], id="every bar"),
        pytest.param({"hop_bars": 3}, 8, [0, 3, 6], id="every third bar"),
        pytest.param({"hop_bars": 3, "bars": 2}, 7, [0, 3, 6], id="with bars between them"),
        pytest.param({"hop_bars": 1}, 2, [0], id="shorter than a window"),
    ],
)
def test_windows_start_every_hop_until_all_bars_are_in_one(settings, num_bars, starts):
    processor = MusicVAEProcessor(**settings)
    windows = processor(take(num_bars))["piano_roll"]
    kicks = [
        [bar - start for bar in range(start, min(start + processor.bars, num_bars))]
        for start in starts
    ]
    assert [(window[0].nonzero()[0] // 16).tolist() for window in windows] == kicks


@pytest.mark.parametrize(
    ("tempos", "expected"),
    [([], [(0, 666_667)]), ([tempo(96, 400_000)], [(0, 666_667), (96, 400_000)])],
    ids=["none", "late"],
)
def test_a_tempo_is_chosen_where_a_recording_names_none(tempos, expected):
    data = drum_file(*tempos, note_on(0))
    assert MusicVAEProcessor().read(data, bpm=90).layout.tempos == expected


def test_a_tempo_in_the_recording_stays():
    data = drum_file(tempo(0, 500_000), note_on(0))
    assert MusicVAEProcessor().read(data, bpm=90).layout.tempos == [(0, 500_000)]


@pytest.mark.parametrize("bpm", [0, 19, 501, float("nan")])
def test_an_invalid_tempo_for_a_recording_raises(bpm):
    with pytest.raises(TempoError, match=f"^bpm: found {bpm}, expected 20 to 500$"):
        MusicVAEProcessor().read(drum_file(note_on(0)), bpm=bpm)


def test_windows_with_a_hop_have_the_tempo_at_their_start():
    data = drum_file(
        *(tempo(bar * TICKS_PER_BAR, 400_000 + bar) for bar in range(6)), note_on(9999)
    )
    bpms = MusicVAEProcessor(hop_bars=1)(data)["bpm"]
    assert bpms.tolist() == np.float32([60e6 / (400_000 + bar) for bar in range(3)]).tolist()


def test_a_model_takes_what_a_processor_returns():
    sizes = {"encoder_hidden_size": 8, "conductor_hidden_size": 8, "decoder_hidden_size": 8}
    model = MusicVAEModel(MusicVAEConfig(**sizes))
    assert model(**MusicVAEProcessor()(take(4), return_tensors="pt")).loss.isfinite()


def test_a_grid_of_triplets():
    windows = MusicVAEProcessor(bars=2, steps_per_bar=24)(take(2))
    assert windows["piano_roll"].shape == (1, 9, 48)
    assert np.flatnonzero(windows["piano_roll"][0, 1]).tolist() == [6, 30]


@pytest.mark.parametrize("pitch_map", PITCH_MAPS)
def test_every_pitch_plays_its_drum(pitch_map):
    processor = MusicVAEProcessor(pitch_map=pitch_map)
    for drum, pitches in enumerate(PITCH_MAPS[pitch_map]):
        for pitch in pitches:
            roll = processor.read(drum_file(note_on(0, pitch, 77))).piano_roll
            assert np.argwhere(roll).tolist() == [[0, drum, 0]]


@pytest.mark.parametrize("pitch_map", PITCH_MAPS)
def test_every_drum_is_written_as_its_first_pitch_and_read_back(pitch_map):
    processor = MusicVAEProcessor(pitch_map=pitch_map)
    roll = np.zeros((9, 64), np.uint8)
    roll[range(9), range(9)] = 100
    midi = processor.decode(roll)
    written = read_midi(midi.data).notes.pitches.tolist()
    assert written == [pitches[0] for pitches in PITCH_MAPS[pitch_map]]
    assert np.array_equal(processor(midi)["piano_roll"][0], roll)


# Writing; more in test_song_writer.py


def test_decode_places_notes_by_step_and_timing():
    roll, timing = np.zeros((9, 16), np.uint8), np.zeros((9, 16), np.float32)
    roll[0, [0, 1, 8]] = 100, 50, 127
    timing[0, [0, 1, 8]] = 0, -0.5, 0.25
    roll[8, 15] = 1
    midi = MusicVAEProcessor().decode(roll, timing, bpm=120)
    notes = pretty_midi.PrettyMIDI(io.BytesIO(midi.data)).instruments[0].notes
    notes.sort(key=lambda note: note.start)
    assert [(note.pitch, note.velocity) for note in notes] == [
        (36, 100),
        (36, 50),
        (36, 127),
        (51, 1),
    ]
    assert [note.start for note in notes] == pytest.approx([0, 0.0625, 1.03125, 1.875])
    assert [note.end for note in notes] == pytest.approx([0.0625, 0.1875, 1.15625, 2.0])


def test_batch_decode_decodes_each_roll():
    generator = np.random.default_rng(0)
    rolls = generator.integers(0, 128, (3, 9, 64), dtype=np.uint8)
    timings = generator.uniform(-0.5, 0.49, (3, 9, 64)).astype(np.float32)
    processor = MusicVAEProcessor()
    together = processor.batch_decode(torch.tensor(rolls), torch.tensor(timings), 90, 1)
    alone = [processor.decode(*grid, 90, 1) for grid in zip(rolls, timings, strict=True)]
    assert [midi.data for midi in together] == [midi.data for midi in alone]
    on_the_grid = processor.batch_decode(rolls)
    assert [midi.data for midi in on_the_grid] == [processor.decode(roll).data for roll in rolls]


def test_silence_decodes_to_no_notes():
    midi = MusicVAEProcessor().decode(np.zeros((9, 64), np.uint8))
    assert not len(read_midi(midi.data).notes.ticks)


# Round trips

offsets = st.floats(-0.5, float(np.nextafter(np.float32(0.5), np.float32(0))), width=32)
tempos = st.floats(20, 500)


def offsets_on_ticks(steps_per_bar: int) -> st.SearchStrategy[float]:
    ticks = TICKS_PER_BAR // steps_per_bar
    return st.integers(-(ticks // 2), (ticks - 1) // 2).map(lambda tick: tick / ticks)


def grids(steps_per_bar: int, offsets: st.SearchStrategy[float]):
    """Four bars of piano roll and timing, with at least one hit."""

    def grid(hits: dict[tuple[int, int], tuple[int, float]]) -> tuple[np.ndarray, np.ndarray]:
        roll = np.zeros((9, 4 * steps_per_bar), np.uint8)
        timing = np.zeros(roll.shape, np.float32)
        for place, (velocity, offset) in hits.items():
            roll[place], timing[place] = velocity, offset
        return roll, timing

    places = st.tuples(st.integers(0, 8), st.integers(0, 4 * steps_per_bar - 1))
    hits = st.dictionaries(places, st.tuples(st.integers(1, 127), offsets), min_size=1, max_size=60)
    return hits.map(grid)


def read_back(processor, roll, timing, **kwargs) -> tuple[np.ndarray, np.ndarray]:
    """The song of a roll's MIDI file."""
    song = processor.read(processor.decode(roll, timing, **kwargs))
    return song.piano_roll[0], song.timing[0]


@pytest.mark.parametrize("steps_per_bar", [7, 12, 16, 24, 32])
@given(st.data())
@repeatable
def test_roll_to_midi_to_roll_is_the_identity_to_within_half_a_tick(steps_per_bar, data):
    roll, timing = data.draw(grids(steps_per_bar, offsets))
    processor = MusicVAEProcessor(steps_per_bar=steps_per_bar)
    found_roll, found_timing = read_back(processor, roll, timing, bpm=data.draw(tempos))
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
    found = read_back(processor, roll, timing, bpm=data.draw(tempos))
    assert np.array_equal(found, (roll, timing))


def test_a_roll_with_every_drum_on_every_step_comes_back():
    generator = np.random.default_rng(0)
    roll = generator.integers(1, 128, (9, 64), dtype=np.uint8)
    timing = generator.integers(-60, 60, (9, 64)).astype(np.float32) / np.float32(120)
    assert np.array_equal(read_back(MusicVAEProcessor(), roll, timing), (roll, timing))


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
    first = read(processor, drum_file(tempo(0, microseconds), *events, division=division))
    assert_same(rewritten(processor, first), first)


def read(processor: MusicVAEProcessor, data: bytes) -> DrumSong:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # about notes that share a step
        return processor.read(data)


def rewritten(processor: MusicVAEProcessor, song: DrumSong) -> DrumSong:
    """A song after its way to MIDI and back."""
    return read(processor, processor.decode(song.piano_roll, song.timing, like=song).data)


def assert_same(found: DrumSong, expected: DrumSong) -> None:
    np.testing.assert_array_equal(found.piano_roll, expected.piano_roll, strict=True)
    np.testing.assert_array_equal(found.timing, expected.timing, strict=True)
    np.testing.assert_array_equal(found.bpm, expected.bpm, strict=True)
    assert found.num_bars == expected.num_bars


@pytest.fixture(scope="module")
def groove_takes(shared_groove) -> dict[str, bytes]:
    """Forty files in 4/4 of the Groove MIDI Dataset."""
    with zipfile.ZipFile(shared_groove) as archive:
        rows = csv.DictReader(io.StringIO(archive.read("groove/info.csv").decode()))
        names = [row["midi_filename"] for row in rows if row["time_signature"] == "4-4"]
        return {name: archive.read(f"groove/{name}") for name in random.Random(0).sample(names, 40)}


def test_groove_comes_back_from_midi_unchanged(groove_takes):
    processor = MusicVAEProcessor(pitch_map="roland_td11")
    for data in groove_takes.values():
        first = read(processor, data)
        assert_same(rewritten(processor, first), first)


def test_groove_reads_alike_as_pretty_midi(groove_takes):
    processor = MusicVAEProcessor(pitch_map="roland_td11")
    num_compared = 0
    for data in groove_takes.values():
        midi = pretty_midi.PrettyMIDI(io.BytesIO(data))
        # PrettyMIDI leaves out notes that end at once.
        if len(midi.instruments[0].notes) == len(read_midi(data).notes.ticks):
            found, expected = read(processor, midi), read(processor, data)
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
    "channel": 3,
    "adjust_mode": "first_onset",
}


def test_the_defaults_are_those_of_a_users_file():
    processor = MusicVAEProcessor()
    assert {name: getattr(processor, name) for name in OTHER_PARAMETERS} == {
        "bars": 4,
        "steps_per_bar": 16,
        "hop_bars": 4,
        "pitch_map": "general_midi",
        "channel": "auto",
        "adjust_mode": "none",
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


@pytest.mark.parametrize("as_file", [False, True])
def test_a_users_pitch_map_is_saved_with_the_processor(as_file, tmp_path):
    own = {name: [number] for number, name in enumerate(DRUM_NAMES)}
    (tmp_path / "kit.json").write_text(json.dumps(own))
    MusicVAEProcessor(pitch_map=tmp_path / "kit.json" if as_file else own).save_pretrained(tmp_path)
    (tmp_path / "kit.json").unlink()
    processor = MusicVAEProcessor.from_pretrained(tmp_path)
    assert processor.pitch_map == own
    assert processor.read(drum_file(note_on(0, 8))).piano_roll[0, 8, 0] == 100


def test_settings_without_a_pitch_map_are_general_midi_with_a_warning(tmp_path):
    MusicVAEProcessor().save_pretrained(tmp_path)
    path = tmp_path / "processor_config.json"
    saved = json.loads(path.read_text())
    del saved["pitch_map"]
    path.write_text(json.dumps(saved))
    with pytest.warns(UserWarning, match="has no pitch_map: files are read as general_midi"):
        assert MusicVAEProcessor.from_pretrained(tmp_path).pitch_map == "general_midi"


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
    assert (tmp_path / "decoded.mid").read_bytes() == decoded.data


WRONG_PARAMETERS = {
    **dict.fromkeys(("bars", "steps_per_bar"), (0, -1, True, 4.0, "4", None, 2**31)),
    "hop_bars": (0, -1, True, 4.0, "4", 2**31),
    "pitch_map": ("general", None),
    "channel": (0, "all", None),
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

THREE_FOUR = drum_file(time_signature(0, 3, 4), note_on(0), note_off(60))


def test_an_error_names_the_path(tmp_path):
    path = tmp_path / "waltz.mid"
    path.write_bytes(THREE_FOUR)
    message = f"^{re.escape(str(path))}: bar 1: found time signature 3/4, expected 4/4$"
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
    message = r"^midi\[1\]: bar 1: found time signature 3/4, expected 4/4$"
    with pytest.raises(TimeSignatureError, match=message):
        MusicVAEProcessor()([take(1), source(THREE_FOUR)])


def test_an_error_names_a_recording_by_the_given_name():
    with pytest.raises(MidiFormatError, match="^take 3: not a MIDI file: it is empty, expected"):
        MusicVAEProcessor().read(b"", name="take 3")


def test_a_pretty_midi_that_cannot_be_written_is_named():
    midi = pretty_midi.PrettyMIDI(io.BytesIO(take(1)))
    midi.instruments[0].notes[0].pitch = 128
    with pytest.raises(MidiFormatError, match=r"^midi\[0\]: found a PrettyMIDI that cannot be"):
        MusicVAEProcessor()(midi)


def test_a_kit_without_known_pitches_is_refused():
    with pytest.raises(NoDrumHitsError, match=r"^midi\[0\]: found 1 note of pitches 60 \(1\)"):
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


NO_SETTINGS = {
    "no file": (None, "no processor_config.json"),
    "another class": (b'{"processor_class": "Other"}', "the settings of a Other"),
    "no JSON": (b"bars: 4", "a processor_config.json that is no JSON object"),
    "a list": (b"[4, 16]", "a processor_config.json that is no JSON object"),
    "null": (b"null", "a processor_config.json that is no JSON object"),
    "a text": (b'"general_midi"', "a processor_config.json that is no JSON object"),
    "UTF-16": ('{"bars": 4}'.encode("utf-16"), "a processor_config.json that is no JSON object"),
    "deeper than Python": (b"[" * 100_000, "a processor_config.json that is no JSON object"),
}


@pytest.mark.parametrize(("content", "found"), NO_SETTINGS.values(), ids=NO_SETTINGS)
def test_a_folder_without_its_settings_is_refused(content, found, tmp_path):
    if content is not None:
        (tmp_path / "processor_config.json").write_bytes(content)
    with pytest.raises(ProcessorConfigError, match=f"^{tmp_path}: found {found}.*, expected th"):
        MusicVAEProcessor.from_pretrained(tmp_path)


def test_settings_that_are_long_are_refused_without_being_read(tmp_path):
    path = tmp_path / "processor_config.json"
    path.touch()
    os.truncate(path, 3 << 30)  # of holes
    with pytest.raises(ProcessorConfigError, match="found a processor_config.json of 3221225472"):
        MusicVAEProcessor.from_pretrained(tmp_path)


@pytest.mark.parametrize("kind", ["folder", "pipe"])
def test_what_is_no_regular_file_is_named_and_not_waited_for(kind, tmp_path):
    path = tmp_path / "take.mid"
    os.mkfifo(path) if kind == "pipe" else path.mkdir()
    with pytest.raises(NotAFileError, match="take.mid: found no regular file, expected one"):
        MusicVAEProcessor()(path)


def test_the_processor_works_without_the_datasets_library(take_path):
    code = f"""
import sys
sys.modules["datasets"] = None  # importing it now fails
from processing import MusicVAEProcessor
print(MusicVAEProcessor()({str(take_path)!r})["piano_roll"].shape)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "(2, 9, 64)"
