"""The nine drums of a piano roll and the MIDI pitches that play them."""

import json
import os

import numpy as np

from .errors import PitchMapError
from .regular_files import read_regular_file

DRUM_NAMES = (
    "kick",
    "snare",
    "closed hi-hat",
    "open hi-hat",
    "low tom",
    "mid tom",
    "high tom",
    "crash",
    "ride",
)
NUM_DRUMS = len(DRUM_NAMES)
NUM_PITCHES = 128
MAX_PITCH_MAP_BYTES = 1 << 16

# A pitch map: for each drum its pitches; the first of them is the one that is written.
Pitches = tuple[tuple[int, ...], ...]

PITCH_MAPS: dict[str, Pitches] = {
    # General MIDI percussion, reduced to nine drums as Magenta does at inference.
    "general_midi": (
        (36, 35),
        (38, 27, 28, 31, 32, 33, 34, 37, 39, 40, 56, 65, 66, 75, 85),
        (42, 44, 54, 68, 69, 70, 71, 73, 78, 80, 22),
        (46, 67, 72, 74, 79, 81, 26),
        (45, 29, 41, 43, 61, 64, 84),
        (48, 47, 60, 63, 77, 86, 87),
        (50, 30, 62, 76, 83),
        (49, 52, 55, 57, 58),
        (51, 53, 59, 82),
    ),
    # The Roland TD-11 kit on which the Groove MIDI Dataset was recorded; source: the table of the
    # dataset, https://magenta.tensorflow.org/datasets/groove.
    "roland_td11": (
        (36,),
        (38, 37, 40),
        (42, 22, 44),
        (46, 26),
        (43, 58),
        (47, 45),
        (50, 48),
        (49, 52, 55, 57),
        (51, 53, 59),
    ),
    # Source: Yamaha, DTX502 Reference Manual, "MIDI Note Numbers Assigned to Pads", preset kits.
    "yamaha_dtx502": (
        (36, 35),
        (38, 40, 37, 31, 34, 27),
        (42, 79, 86, 44),
        (46, 78, 85, 83),
        (43,),
        (47,),
        (48,),
        (49, 59, 55),
        (51, 52, 53),
    ),
    # Source: Yamaha, DTXPLORER Owner's Manual, "MIDI Transmit Note Number".
    "yamaha_dtxplorer": (
        (33,),
        (31, 34, 37),
        (42, 44),
        (46, 85),
        (43,),
        (47,),
        (48,),
        (49, 57, 55),
        (51, 52),
    ),
    # Source: XLN Audio, "Addictive Drums 2 Keymap" of 2021. Chokes, brush sweeps, sticks and the
    # flexible slots are no hits of a drum; the third and the fourth tom are low.
    "addictive_drums_2": (
        (36,),
        (38, 37, 39, 40, 41, 42, 43, 44),
        (49, 48, 50, 51, 52, 53),
        (54, 55, 56, 57, 58, 59),
        (67, 65, 66, 68),
        (69, 70),
        (71, 72),
        (77, 46, 79, 81, 89, 91, 93),
        (60, 45, 61, 62, 84, 85, 86),
    ),
}


def resolve_pitch_map(pitch_map: str | os.PathLike | dict) -> str | dict[str, list[int]]:
    """The pitch map as a name or, where it is the user's own, as a checked dictionary.

    Args:
        pitch_map: a name in `PITCH_MAPS`; a dictionary from each of `DRUM_NAMES` to its pitches, of
            which the first is written; or the path of a JSON file with such an object.

    Raises:
        PitchMapError: the name is unknown, the file unreadable, a drum unknown or without pitches,
            or a pitch out of range or given to two drums.
    """
    if isinstance(pitch_map, str) and pitch_map in PITCH_MAPS:
        return pitch_map
    if isinstance(pitch_map, dict):
        return _checked(pitch_map, "pitch_map")
    if isinstance(pitch_map, os.PathLike) or str(pitch_map).lower().endswith(".json"):
        return _checked(_read_json(os.fspath(pitch_map)), os.fspath(pitch_map))
    raise PitchMapError(
        f"pitch_map: found {pitch_map!r}, expected one of {tuple(PITCH_MAPS)}, a dictionary or a "
        "JSON file"
    )


def pitches_of(pitch_map: str | dict[str, list[int]]) -> Pitches:
    """The pitches of each drum, in the order of `DRUM_NAMES`."""
    if isinstance(pitch_map, str):
        return PITCH_MAPS[pitch_map]
    return tuple(tuple(pitch_map[name]) for name in DRUM_NAMES)


def drum_of_pitch(pitches: Pitches) -> np.ndarray:
    """int64 (128,): the drum that each MIDI pitch plays, -1 for none."""
    drums = np.full(NUM_PITCHES, -1)
    for drum, group in enumerate(pitches):
        drums[list(group)] = drum
    return drums


def _read_json(path: str) -> object:
    try:
        return json.loads(read_regular_file(path, MAX_PITCH_MAP_BYTES).decode("utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise PitchMapError(f"pitch_map: found {path}, expected a JSON file: {error}") from error


def _checked(pitch_map: object, source: str) -> dict[str, list[int]]:
    if not isinstance(pitch_map, dict) or set(pitch_map) != set(DRUM_NAMES):
        found = sorted(map(str, pitch_map)) if isinstance(pitch_map, dict) else pitch_map
        raise PitchMapError(
            f"{source}: found {str(found)[:200]}, expected the pitches of each of {DRUM_NAMES}"
        )
    owners: dict[int, str] = {}
    for name in DRUM_NAMES:
        pitches = pitch_map[name]
        if not isinstance(pitches, list | tuple) or not pitches:
            raise PitchMapError(f"{source}: {name}: found {pitches!r}, expected a list of pitches")
        for pitch in pitches:
            if type(pitch) is not int or not 0 <= pitch < NUM_PITCHES:
                raise PitchMapError(f"{source}: {name}: found {pitch!r}, expected 0 to 127")
            if owners.setdefault(pitch, name) != name:
                raise PitchMapError(
                    f"{source}: {name}: found pitch {pitch}, which plays {owners[pitch]}"
                )
    return {name: list(pitch_map[name]) for name in DRUM_NAMES}
