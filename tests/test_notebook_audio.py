"""Drums that play in a notebook."""

import io
import sys
import wave
from types import SimpleNamespace

import numpy as np
import pytest

import musicvae
from processing import render
from processing.errors import MissingLibraryError


def drums() -> SimpleNamespace:
    roll = np.zeros((2, 9, 16), np.uint8)
    roll[:, 0, 0], roll[:, 1, 8] = 100, 60
    return SimpleNamespace(piano_roll=roll, timing=np.zeros(roll.shape, np.float32))


def test_the_player_has_the_sound_of_the_drums_at_its_loudness():
    pytest.importorskip("IPython")
    player = musicvae.audio(drums(), bpm=90)
    with wave.open(io.BytesIO(player.data)) as file:
        assert (file.getframerate(), file.getnchannels()) == (44100, 2)
        samples = np.frombuffer(file.readframes(file.getnframes()), "<i2").reshape(-1, 2).T
    sound = render(drums().piano_roll, drums().timing, bpm=90)
    np.testing.assert_allclose(samples / 32767, sound, atol=1 / 32767)


def test_without_ipython_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "IPython.display", None)
    with pytest.raises(MissingLibraryError, match="pip install ipython"):
        musicvae.audio(drums())
