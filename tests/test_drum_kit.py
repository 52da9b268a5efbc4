"""Pitch maps: those that are known by name, and those of users."""

import json
import os

import numpy as np
import pytest

from processing.drum_kit import (
    DRUM_NAMES,
    PITCH_MAPS,
    drum_of_pitch,
    pitches_of,
    resolve_pitch_map,
)
from processing.errors import PitchMapError

OWN = {name: [number, number + 20] for number, name in enumerate(DRUM_NAMES)}


@pytest.mark.parametrize("name", PITCH_MAPS)
def test_a_named_map_gives_each_pitch_to_one_drum(name):
    pitches = pitches_of(resolve_pitch_map(name))
    assert len(pitches) == len(DRUM_NAMES) and all(pitches)
    assert len({pitch for group in pitches for pitch in group}) == sum(map(len, pitches))


@pytest.mark.parametrize(
    ("name", "drums"),
    [
        ("general_midi", {35: "kick", 39: "snare", 44: "closed hi-hat", 41: "low tom"}),
        ("roland_td11", {22: "closed hi-hat", 26: "open hi-hat", 58: "low tom", 59: "ride"}),
        ("yamaha_dtx502", {31: "snare", 83: "open hi-hat", 48: "high tom", 52: "ride"}),
        ("yamaha_dtxplorer", {33: "kick", 31: "snare", 85: "open hi-hat", 57: "crash"}),
        ("addictive_drums_2", {42: "snare", 49: "closed hi-hat", 57: "open hi-hat", 77: "crash"}),
    ],
)
def test_a_named_map_is_that_of_its_kit(name, drums):
    of_pitch = drum_of_pitch(PITCH_MAPS[name])
    assert {pitch: DRUM_NAMES[of_pitch[pitch]] for pitch in drums} == drums


def test_pitches_that_a_map_does_not_know_play_no_drum():
    of_pitch = drum_of_pitch(PITCH_MAPS["roland_td11"])
    assert (of_pitch.dtype, of_pitch.shape) == (np.int64, (128,))
    assert of_pitch[[0, 35, 127]].tolist() == [-1, -1, -1]


def test_a_map_may_be_a_dictionary_or_a_json_file(tmp_path):
    path = tmp_path / "kit.json"
    path.write_text(json.dumps(OWN))
    for given in (OWN, {name: tuple(pitches) for name, pitches in OWN.items()}, path, str(path)):
        assert resolve_pitch_map(given) == OWN
    assert pitches_of(OWN) == tuple((number, number + 20) for number in range(9))


WRONG = {
    "an unknown name": ("general", r"pitch_map: found 'general', expected one of \('general_midi'"),
    "None": (None, "pitch_map: found None, expected one of"),
    "a drum without pitches": (OWN | {"ride": []}, r"pitch_map: ride: found \[\], expected a list"),
    "a drum with one number": (OWN | {"ride": 51}, "pitch_map: ride: found 51, expected a list"),
    "an unknown drum": (OWN | {"cowbell": [56]}, "pitch_map: found .*cowbell.*, expected the"),
    "a missing drum": (
        {"kick": [36]},
        r"pitch_map: found \['kick'\], expected the pitches of each",
    ),
    "pitch 128": (OWN | {"ride": [128]}, "pitch_map: ride: found 128, expected 0 to 127"),
    "a broken pitch": (OWN | {"ride": [5.0]}, "pitch_map: ride: found 5.0, expected 0 to 127"),
    "a pitch of two drums": (OWN | {"ride": [0]}, "ride: found pitch 0, which plays kick"),
}


@pytest.mark.parametrize(("pitch_map", "message"), WRONG.values(), ids=WRONG)
def test_a_wrong_map_is_refused(pitch_map, message):
    with pytest.raises(PitchMapError, match=message):
        resolve_pitch_map(pitch_map)


WRONG_FILES = {
    "no JSON": b"kick: 36",
    "a list": b"[36, 38]",
    "UTF-16": json.dumps(OWN).encode("utf-16"),
    "deeper than Python": b"[" * 60_000,
    "longer than any map": b" " * (1 << 17) + json.dumps(OWN).encode(),
}


@pytest.mark.parametrize("content", WRONG_FILES.values(), ids=WRONG_FILES)
def test_a_wrong_file_is_named(content, tmp_path):
    path = tmp_path / "kit.json"
    path.write_bytes(content)
    with pytest.raises(PitchMapError, match="kit.json"):
        resolve_pitch_map(path)


def test_a_missing_file_and_a_pipe_are_named(tmp_path):
    os.mkfifo(tmp_path / "pipe.json")
    for name in ("missing.json", "pipe.json"):
        with pytest.raises(PitchMapError, match=name):
            resolve_pitch_map(tmp_path / name)
