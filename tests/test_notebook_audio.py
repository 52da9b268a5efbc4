"""Drums that play in a notebook."""

import io
import sys
import wave
from types import SimpleNamespace

import numpy as np
import pytest
from factories import drum_file, note_on, tempo

import musicvae
from musicvae.drummer import Drums
from processing import MusicVAEProcessor, render
from processing.errors import MissingLibraryError

PROCESSOR = MusicVAEProcessor(bars=1, steps_per_bar=24)


def grids() -> tuple[np.ndarray, np.ndarray]:
    roll = np.zeros((2, 9, 24), np.uint8)
    roll[:, 0, 0], roll[:, 1, 12] = 100, 60
    return roll, np.zeros(roll.shape, np.float32)


def output() -> SimpleNamespace:
    return SimpleNamespace(**dict(zip(("piano_roll", "timing"), grids(), strict=True)))


@pytest.fixture
def played(monkeypatch):
    """The sound that a player made in a notebook gets."""

    def audio(*arguments, **options) -> np.ndarray:
        player = SimpleNamespace(Audio=lambda sound, rate, normalize: (sound, rate, normalize))
        monkeypatch.setitem(sys.modules, "IPython.display", player)
        sound, rate, normalize = musicvae.audio(*arguments, **options)
        assert (rate, normalize) == (44100, False)
        return sound

    return audio


def test_the_output_of_a_model_sounds_at_the_given_tempo(played):
    sound = played(output(), bpm=90, steps_per_bar=24)
    np.testing.assert_array_equal(sound, render(*grids(), 90, 24))


def test_a_song_sounds_with_its_tempo_map(played):
    song = PROCESSOR.read(drum_file(tempo(0, 500_000), tempo(960, 900_000), note_on(1200)))
    sound = played(song, steps_per_bar=24)
    np.testing.assert_array_equal(
        sound, render(song.piano_roll, song.timing, steps_per_bar=24, like=song)
    )


def test_drums_sound_with_their_grid_and_tempo_unless_another_is_given(played):
    drums = Drums(*(grid[0] for grid in grids()), PROCESSOR, bpm=90)
    rolls = drums.piano_roll, drums.timing
    np.testing.assert_array_equal(played(drums), render(*rolls, 90, 24))
    np.testing.assert_array_equal(played(drums, bpm=150), render(*rolls, 150, 24))


def test_ipython_plays_the_sound_as_loud_as_it_is():
    pytest.importorskip("IPython")
    player = musicvae.audio(output(), steps_per_bar=24)
    with wave.open(io.BytesIO(player.data)) as file:
        assert (file.getframerate(), file.getnchannels()) == (44100, 2)
        samples = np.frombuffer(file.readframes(file.getnframes()), "<i2").reshape(-1, 2).T
    np.testing.assert_allclose(samples / 32767, render(*grids(), steps_per_bar=24), atol=1 / 32767)


def test_without_ipython_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "IPython.display", None)
    with pytest.raises(MissingLibraryError, match="pip install ipython"):
        musicvae.audio(output())
