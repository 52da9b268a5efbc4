"""Drums on a SoundFont."""

import os
import struct
import sys

import numpy as np
import pytest

from processing.drum_synthesis import SAMPLE_RATE
from processing.errors import MissingLibraryError, NotAFileError, SoundError
from processing.sound import PEAK
from processing.soundfont import DRUM_BANK, render_soundfont

KICK = 0


def chunk(name: bytes, data: bytes) -> bytes:
    return name + struct.pack("<I", len(data)) + data + bytes(len(data) % 2)


def named(name: str, layout: str, *numbers: int) -> bytes:
    return name.encode().ljust(20, b"\0") + struct.pack("<" + layout, *numbers)


def soundfont(bank: int = DRUM_BANK) -> bytes:
    """A SoundFont of one preset with one instrument of one sample, a beep on all pitches.

    Each list ends with a record that only says where the one before it ends.
    """
    t = np.arange(SAMPLE_RATE // 10) / SAMPLE_RATE
    beep = np.rint(20000 * np.cos(2 * np.pi * 440 * t) * np.exp(-t / 0.02)).astype("<i2")
    instrument, sample = 41, 53  # the generators that name them
    records = {
        b"phdr": named("kit", "HHHIII", 0, bank, 0, 0, 0, 0)
        + named("", "HHHIII", 0, 0, 1, 0, 0, 0),
        b"pbag": struct.pack("<HHHH", 0, 0, 1, 0),
        b"pmod": bytes(10),
        b"pgen": struct.pack("<HHHH", instrument, 0, 0, 0),
        b"inst": named("beep", "H", 0) + named("", "H", 1),
        b"ibag": struct.pack("<HHHH", 0, 0, 1, 0),
        b"imod": bytes(10),
        b"igen": struct.pack("<HHHH", sample, 0, 0, 0),
        b"shdr": named("beep", "IIIIIBbHH", 0, len(t), 0, len(t), SAMPLE_RATE, 36, 0, 0, 1)
        + named("", "IIIIIBbHH", *[0] * 9),
    }
    lists = {
        b"INFO": chunk(b"ifil", struct.pack("<HH", 2, 1)),
        b"sdta": chunk(b"smpl", beep.tobytes() + bytes(92)),
        b"pdta": b"".join(chunk(name, data) for name, data in records.items()),
    }
    return chunk(
        b"RIFF", b"sfbk" + b"".join(chunk(b"LIST", name + data) for name, data in lists.items())
    )


@pytest.fixture
def write(tmp_path):
    def write(data: bytes) -> str:
        path = tmp_path / "kit.sf2"
        path.write_bytes(data)
        return str(path)

    return write


@pytest.fixture
def library():
    return pytest.importorskip(
        "tinysoundfont", reason="needs `pip install --no-deps tinysoundfont`"
    )


def kicks(**velocity_of_step: int) -> np.ndarray:
    roll = np.zeros((9, 16), np.uint8)
    for step, velocity in velocity_of_step.items():
        roll[KICK, int(step[1:])] = velocity
    return roll


def test_hits_sound_where_and_as_loud_as_they_are(library, write):
    roll = kicks(s2=100, s8=50)
    timing = np.where(roll > 0, 0.25, 0).astype(np.float32)
    sound = render_soundfont(write(soundfont()), roll, timing, bpm=120)
    first, second = (round((step + 0.25) / 8 * SAMPLE_RATE) for step in (2, 8))
    assert sound.dtype == np.float32 and sound.shape == (2, 6 * SAMPLE_RATE)
    loudness = np.abs(sound).max(axis=0)
    assert not loudness[:first].any()
    assert loudness[first : first + 20].any()
    assert loudness[first + SAMPLE_RATE // 5 : second].max() < 1e-3 < loudness[second:].max()
    assert loudness[second:].max() == pytest.approx(loudness.max() / 2, rel=0.02)
    assert loudness.max() <= PEAK


def test_drums_without_hits_are_silent(library, write):
    assert not render_soundfont(write(soundfont()), kicks()).any()


@pytest.mark.parametrize("data", [b"", b"RIFF", bytes(500)], ids=["empty", "cut", "zeros"])
def test_a_file_that_is_no_soundfont_is_named(library, write, data):
    with pytest.raises(SoundError, match="found .*kit.sf2, expected an SF2 or SF3 file"):
        render_soundfont(write(data), kicks(s0=100))


def test_a_missing_file_is_named(library, tmp_path):
    with pytest.raises(FileNotFoundError, match="kit.sf2"):
        render_soundfont(tmp_path / "kit.sf2", kicks(s0=100))


def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "kit.sf2")
    with pytest.raises(NotAFileError, match="kit.sf2: found no regular file, expected one"):
        render_soundfont(tmp_path / "kit.sf2", kicks(s0=100))


def test_a_soundfont_without_drum_kit_is_refused(library, write):
    with pytest.raises(SoundError, match="found no drum kit in bank 128 of .*kit.sf2"):
        render_soundfont(write(soundfont(bank=0)), kicks(s0=100))


def test_without_the_library_the_error_says_what_to_install(monkeypatch, write):
    monkeypatch.setitem(sys.modules, "tinysoundfont", None)
    with pytest.raises(MissingLibraryError, match="pip install --no-deps tinysoundfont"):
        render_soundfont(write(soundfont()), kicks(s0=100))
