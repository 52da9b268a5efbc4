"""Damaged files at random, from a seed: each is read or refused by name, and nothing else happens.

    pytest -m exhaustive -s tests/test_mutations.py

prints how many of many more ended how, and the most processor time and memory of one.
"""

import csv
import os
import random
import struct
import zipfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
from factories import (
    INFO_COLUMNS,
    chunk,
    drum_file,
    ending_at,
    midi_file,
    note_off,
    note_on,
    riff,
    tempo,
    time_signature,
    track,
)
from mutations import mutated, outcomes

from processing import GrooveMIDI, MusicVAEProcessor
from processing.errors import DatasetFolderError, MidiError
from processing.piano_roll import check_piano_roll, join_windows

BAR = 1920
FEW, MANY = 400, 10_000
CASES = Path(os.environ.get("MIDI_CASES", Path(__file__).parents[2] / "shared/cases/midi"))

GROOVE = [
    event
    for step in range(0, 48, 2)
    for event in (
        note_on(120 * step + step % 5, 36 + 2 * (step % 8), 40 + step),
        note_off(120 * step + 60, 36 + 2 * (step % 8)),
    )
]
EVERYTHING = midi_file(
    track(
        (0, b"\xff\x03\x05drums"),
        *(tempo(bar * BAR, 400_000 + bar) for bar in range(3)),
        time_signature(0, 4, 4),
        time_signature(BAR, 2, 2),
        (5, b"\xf0\x03\x41\x10\xf7"),
    ),
    track(
        *GROOVE, (9, b"\xc9\x00"), (9, b"\xb9\x04\x40"), (600, b"\xe9\x00\x40"), ending_at(3 * BAR)
    ),
    track(*(note_on(480 * beat, 40, 100, 1) for beat in range(9))),
    chunk(b"XFIH", b"unknown"),
)
PICKUP = drum_file(time_signature(0, 1, 4), time_signature(480, 4, 4), *GROOVE)
RUNNING = midi_file(
    chunk(b"MTrk", b"\x00\x99\x24\x64" + b"\x78\x24\x63\x78\x2a\x40" * 30 + b"\x01\xff\x2f\x00")
)
SEEDS = [EVERYTHING, PICKUP, RUNNING, riff(b"RMID", (b"data", RUNNING))]
SPECIAL = [b"\xff", b"\x00", b"\x7f", b"\x80", b"\xff\x2f\x00", b"\xff\x51\x03", b"\xff\x58\x04"]
SPECIAL += [
    b"MTrk",
    b"MThd",
    b"\xff\xff\xff\xff",
    b"\x99\x24\x64",
    b"\xf0",
    b"\xf7",
    b"\x83\xff\x7f",
]


def mutated_midi(data: bytes, rng: random.Random) -> bytes:
    """A mutated file; half of them have chunks of the lengths that they say."""
    if rng.random() < 0.5 or not data.startswith(b"MThd"):
        return mutated(data, rng, SPECIAL)
    chunks, position = [], 0
    while position + 8 <= len(data):
        name, size = struct.unpack_from(">4sL", data, position)
        chunks.append((name, data[position + 8 : position + 8 + size]))
        position += 8 + size
    index = rng.choice([index for index, (name, _) in enumerate(chunks) if name == b"MTrk"])
    chunks[index] = b"MTrk", mutated(chunks[index][1], rng, SPECIAL)
    return b"".join(chunk(*part) for part in chunks)


def outcome_of(data: bytes) -> str:
    """How reading a file, and writing it back, ends; anything but a named error is raised."""
    processor = MusicVAEProcessor()
    try:
        song = processor.read(data)
    except MidiError as error:
        assert str(error).startswith("midi: ") and len(str(error)) < 500
        return type(error).__name__
    for grids in zip(song.piano_roll, song.timing, strict=True):
        check_piano_roll(*grids)
    again = processor.read(processor.decode(song.piano_roll, song.timing, like=song))
    assert np.array_equal(again.piano_roll, song.piano_roll)
    assert np.array_equal(again.timing, song.timing)
    assert again.num_bars == song.num_bars
    windows = MusicVAEProcessor(hop_bars=1, adjust_mode="bars").training_windows(data)
    assert windows.piano_roll.any(axis=(1, 2)).all()
    roll = join_windows(song.piano_roll)
    assert (song.counts.notes, song.counts.merged) >= (np.count_nonzero(roll), 0)
    return "read and written"


def mutations(seeds: list[bytes], number: int) -> Iterable[bytes]:
    rng = random.Random(0)
    return (mutated_midi(rng.choice(seeds), rng) for _ in range(number))


def shared_cases() -> list[bytes]:
    return [path.read_bytes() for path in sorted(CASES.glob("*.mid"))]


@pytest.mark.parametrize("number", [FEW, pytest.param(MANY, marks=pytest.mark.exhaustive)])
def test_a_mutated_midi_file_is_read_and_written_or_refused_by_name(number):
    counts = outcomes(mutations(SEEDS + shared_cases(), number), outcome_of, "mutated MIDI files")
    assert counts["read and written"] > number // 10
    assert counts["MidiFormatError"] > number // 10


@pytest.mark.parametrize("number", [FEW, pytest.param(MANY, marks=pytest.mark.exhaustive)])
def test_random_bytes_in_a_track_are_read_and_written_or_refused_by_name(number):
    rng = random.Random(1)
    tracks = (rng.randbytes(rng.randrange(200)) for _ in range(number))
    files = (midi_file(chunk(b"MTrk", data)) for data in tracks)
    assert outcomes(files, outcome_of, "random tracks").total() == number


@pytest.fixture(scope="module")
def dataset(tmp_path_factory) -> Path:
    """A small folder in Groove's layout."""
    folder = tmp_path_factory.mktemp("groove")
    row = dict.fromkeys(INFO_COLUMNS, "1") | {"time_signature": "4-4", "style": "rock/café"}
    with open(folder / "info.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, INFO_COLUMNS)
        writer.writeheader()
        for split in ("train", "validation", "test"):
            (folder / f"{split}.mid").write_bytes(drum_file(note_on(0), note_on(4 * BAR)))
            names = {"midi_filename": f"{split}.mid", "split": split, "bpm": "120"}
            writer.writerow(row | names)
    return folder


def outcome_of_dataset(path: Path) -> str:
    try:
        stream = GrooveMIDI(data_dir=path).as_streaming_dataset()
        for split in stream.values():
            assert all(20 <= example["bpm"] <= 500 for example in split)
    except (DatasetFolderError, MidiError) as error:
        assert len(str(error)) < 2000
        return type(error).__name__
    return "read"


@pytest.mark.parametrize("number", [40, pytest.param(1000, marks=pytest.mark.exhaustive)])
def test_a_mutated_info_csv_is_read_or_refused_by_name(number, dataset):
    info = dataset / "info.csv"
    original, rng = info.read_bytes(), random.Random(2)

    def outcome(data: bytes) -> str:
        info.write_bytes(data)
        return outcome_of_dataset(dataset)

    try:
        files = (mutated(original, rng) for _ in range(number))
        assert outcomes(files, outcome, "mutated info.csv").total() == number
    finally:
        info.write_bytes(original)


@pytest.mark.parametrize("number", [20, pytest.param(500, marks=pytest.mark.exhaustive)])
def test_a_mutated_archive_is_refused(number, dataset, tmp_path):
    path, rng = tmp_path / "groove.zip", random.Random(3)
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(dataset.iterdir()):
            archive.write(file, f"groove/{file.name}")
    original = path.read_bytes()

    def outcome(data: bytes) -> str:
        path.write_bytes(data)
        return outcome_of_dataset(path)

    counts = outcomes((mutated(original, rng) for _ in range(number)), outcome, "mutated archives")
    assert counts == {"DatasetFolderError": number}
