"""Kinds of files that users have: one of each from the shared cases, and a second one made here."""

import json
import os
import warnings
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from factories import (
    Event,
    chunk,
    drum_file,
    ending_at,
    midi_file,
    note_off,
    note_on,
    tempo,
    time_signature,
    track,
)

from processing import MusicVAEProcessor
from processing.drum_kit import PITCH_MAPS
from processing.drum_song import DrumSong
from processing.midi_file import read_midi

SHARED = Path(os.environ.get("MIDI_CASES", Path(__file__).parents[2] / "shared/cases/midi"))
BAR, STEP = 1920, 120  # ticks at 480 a quarter

Note = tuple[int, int, int]  # tick, pitch, velocity


@dataclass(frozen=True)
class Kind:
    """A kind of file, and what is expected of it.

    Attributes:
        num_bars: of the shared file.
        second: a second file of the kind, with the notes that it has.
        second_bars: of the second file.
        remarks: kinds of remarks, the same in both files.
        pickups: lengths in ticks of the pickup of the shared file and of the second.
        settings: (tempos, metres) of the second file, where they are not 120 bpm in 4/4.
    """

    num_bars: int
    second: tuple[bytes, list[Note]]
    second_bars: int = 2
    remarks: list[str] = field(default_factory=list)
    pickups: tuple[int, int] = (0, 0)
    tempos: list[tuple[int, int]] = field(default_factory=lambda: [(0, 500_000)])


ROCK: list[Note] = [
    note
    for bar in (0, BAR)
    for note in ((bar, 36, 100), (bar + 490, 38, 90), (bar + 960, 36, 80), (bar + 1430, 38, 95))
]


def ons(notes: list[Note], channel: int = 9) -> list[Event]:
    return [note_on(tick, pitch, velocity, channel) for tick, pitch, velocity in notes]


def rock_with(*events: Event) -> tuple[bytes, list[Note]]:
    return drum_file(*events, *ons(ROCK)), ROCK


def running_rock(between: bytes) -> bytes:
    """Two bars of kicks in running status, with other bytes between the first and the second."""
    kicks = b"\x83\x60\x24\x64" * 7
    return midi_file(chunk(b"MTrk", b"\x00\x99\x24\x64" + between + kicks + b"\x01\xff\x2f\x00"))


KICKS = [(480 * beat, 36, 100) for beat in range(8)]
HI_HATS = [(STEP * step + 7 * (step % 5 - 2) % 50, 42, 60 + step % 60) for step in range(8 * 16)]
PERCUSSION = [(0, 35, 99), (240, 39, 98), (480, 44, 97), (720, 52, 96), (1920, 56, 95)]
GAPS = [(0, 36, 99), (9 * BAR, 38, 98)]
UNKNOWN = [(0, 36, 99), *((STEP * step, pitch, 99) for step in range(1, 32) for pitch in (5, 100))]
PICKUP_OF_THREE = [(480, 38, 99), (1440, 36, 98), (1440 + BAR, 36, 97)]
ZERO_LENGTH = [(480 * beat, 36, 100) for beat in range(5)]
FLAMS = [(beat + grace, 38, 50 + grace) for beat in range(0, 2 * BAR, 480) for grace in (0, 9, 20)]
THREE_TRACKS = [track(*ons(ROCK[start::3])) for start in range(3)]

KINDS = {
    "gm_kick35_clap39": Kind(4, (drum_file(*ons(PERCUSSION)), PERCUSSION)),
    "silent_middle": Kind(12, (drum_file(*ons(GAPS)), GAPS), 10),
    "drums_ch1": Kind(
        4,
        (midi_file(track(*ons(ROCK[::2], 4)), track(*ons(ROCK[1::2], 4))), ROCK),
        remarks=["channel"],
    ),
    "unmapped_most": Kind(6, (drum_file(*ons(UNKNOWN)), UNKNOWN), 2, ["unknown pitches"]),
    "tempo_late_first": Kind(
        8,
        (midi_file(track(*ons(ROCK)), track(tempo(BAR, 400_000))), ROCK),
        tempos=[(0, 500_000), (BAR, 400_000)],
    ),
    "tempo_change_after_last_hit": Kind(
        5,
        rock_with(tempo(2 * BAR, 900_000), ending_at(2 * BAR + 9)),
        tempos=[(0, 500_000), (2 * BAR, 900_000)],
    ),
    "tempo_1us_jitter": Kind(
        5,
        rock_with(*(tempo(tick, 500_000 + tick % 7) for tick in range(0, BAR, 96))),
        tempos=[(tick, 500_000 + tick % 7) for tick in range(0, BAR, 96)],
    ),
    "tempo_twice_at_0_tracks": Kind(
        4, rock_with(tempo(0, 1), tempo(0, 600_000), tempo(0, 400_000)), tempos=[(0, 400_000)]
    ),
    "runstatus_after_sysex_silent": Kind(
        2, (running_rock(b"\x00\xf0\x02\x01\xf7\x00\xff\x01\x00\x00\xf7\x01\x99"), KICKS)
    ),
    "ntrks_small_loses_ohh": Kind(
        4, (midi_file(*THREE_TRACKS).replace(b"\0\x01\0\x03", b"\0\x01\0\x01"), ROCK)
    ),
    "sig_44_again_midbar": Kind(
        5,
        (
            drum_file(time_signature(0, 4, 4), time_signature(1440, 4, 4), *ons(PICKUP_OF_THREE)),
            PICKUP_OF_THREE,
        ),
        3,
        pickups=(480, 1440),
    ),
    "sig_pickup_1_4": Kind(
        5,
        (
            drum_file(time_signature(0, 6, 8), time_signature(1440, 2, 2), *ons(PICKUP_OF_THREE)),
            PICKUP_OF_THREE,
        ),
        3,
        pickups=(480, 1440),
    ),
    "sig_2_2": Kind(4, rock_with(time_signature(0, 8, 8))),
    "keysig_bad": Kind(4, rock_with((0, b"\xff\x59\x01\x63"), (5, b"\xff\x59\x00"))),
    "sig_len_2": Kind(4, rock_with((0, b"\xff\x58\x06\x04\x02\x18\x08\x01\x01"))),
    "cc_value_200": Kind(
        4, rock_with((3, b"\xb9\xc8\xff"), (4, b"\xe9\xff\xff"), (5, b"\xd9\xff"))
    ),
    "sysex_f7_escape": Kind(
        4, rock_with((0, b"\xf0\x01\x43"), (7, b"\xf7\x02\x12\xf7"), (9, b"\xf7\x01\xfa"))
    ),
    "alien_chunk_before_track": Kind(
        4,
        (
            midi_file(
                chunk(b"XFIH", b"MTrk" * 9), track(*ons(ROCK)), chunk(b"XFKM", b"\0")
            ).replace(b"\0\x01\0\x03", b"\0\x01\0\x01"),
            ROCK,
        ),
    ),
    "lyrics_jp_utf8_gapless": Kind(4, rock_with((0, b"\xff\x05\x90\x00" + b"\xff" * 2048))),
    "zero_len_notes": Kind(
        4,
        (
            drum_file(*(e for n in ZERO_LENGTH for e in (note_on(*n), note_off(n[0])))).replace(
                b"\x01\xff\x2f\x00", b"\x00\xff\x2f\x00"
            ),
            ZERO_LENGTH,
        ),
        1,
        ["cut off notes"],
    ),
    "flams": Kind(4, (drum_file(*ons(FLAMS)), FLAMS), remarks=["merged notes"]),
    "hihat16_32bars": Kind(32, (drum_file(*ons(HI_HATS)), HI_HATS), 8),
}


def read(data: bytes) -> tuple[DrumSong, list[str]]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        song = MusicVAEProcessor().read(data)
    return song, [str(warning.message) for warning in caught]


def expected_hits(notes: list[Note], pickup: int, kind: str) -> dict[tuple[int, int], int]:
    """The loudest velocity of each drum and step, without the help of the package."""
    if kind == "zero_len_notes":
        notes = notes[:-1]
    hits: dict[tuple[int, int], int] = {}
    for tick, pitch, velocity in notes:
        drums = [drum for drum in range(9) if pitch in PITCH_MAPS["general_midi"][drum]]
        for drum in drums:
            place = drum, (tick + (BAR - pickup if pickup else 0) + STEP // 2) // STEP
            hits[place] = max(velocity, hits.get(place, 0))
    return hits


def check(
    kind: str, data: bytes, notes: list[Note], num_bars: int, pickup: int, tempos: list
) -> DrumSong:
    """Checks how a file is read, and that nothing of it changes when it is written."""
    song, messages = read(data)
    roll = np.concatenate(list(song.piano_roll), axis=1)
    found = {(drum, step): roll[drum, step] for drum, step in np.argwhere(roll).tolist()}
    assert found == expected_hits(notes, pickup, kind)
    assert song.num_bars == num_bars
    assert song.layout.tempos == tempos
    assert song.layout.start_tick == (pickup - BAR if pickup else 0)
    assert [remark.kind for remark in song.remarks] == KINDS[kind].remarks
    assert messages == [f"midi: {remark.text}" for remark in song.remarks]
    written = MusicVAEProcessor().decode(song.piano_roll, song.timing, like=song).data
    again, _ = read(written)
    assert np.array_equal(again.piano_roll, song.piano_roll)
    assert np.array_equal(again.timing, song.timing)
    assert again.num_bars == num_bars
    assert again.layout == song.layout
    return song


@pytest.fixture(scope="module")
def expected() -> dict[str, dict]:
    path = SHARED / "expected.json"
    if not path.is_file():
        pytest.skip(f"needs the shared MIDI cases in {SHARED}, or their place in MIDI_CASES")
    return json.loads(path.read_text())


def test_every_shared_case_has_its_kind_here(expected):
    assert set(expected) == set(KINDS)


@pytest.mark.parametrize("kind", KINDS)
def test_a_shared_case_is_read_as_expected_and_stays_as_it_is(kind, expected):
    case = expected[kind]
    tempos = {0: 500_000} | {tick: tempo for tick, tempo in case["tempos"]}
    song = check(
        kind,
        (SHARED / f"{kind}.mid").read_bytes(),
        [tuple(note) for note in case["notes"]],
        KINDS[kind].num_bars,
        KINDS[kind].pickups[0],
        list(tempos.items()),
    )
    assert song.layout.channel == case["channel"]
    metres = [tuple(metre) for metre in case["time_signatures"]] or [(0, 4, 4)]
    assert song.layout.time_signatures == metres


@pytest.mark.parametrize("kind", KINDS)
def test_a_second_file_of_the_kind_is_read_as_expected_and_stays_as_it_is(kind):
    data, notes = KINDS[kind].second
    check(kind, data, notes, KINDS[kind].second_bars, KINDS[kind].pickups[1], KINDS[kind].tempos)


def test_every_hit_stays_where_late_and_early_hits_meet_between_windows(expected):
    song, _ = read((SHARED / "hihat16_32bars.mid").read_bytes())
    timing = song.timing.copy()
    timing[:, 2, -1], timing[:, 2, 0] = 0.4, -0.4
    data = MusicVAEProcessor().decode(song.piano_roll, timing, like=song).data
    assert len(read_midi(data).notes.ticks) == 512
    assert np.array_equal(read(data)[0].piano_roll, song.piano_roll)
