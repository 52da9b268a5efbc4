"""Drums on a SoundFont, by the optional library tinysoundfont."""

import os
from pathlib import Path
from typing import Any

import numpy as np

from .drum_kit import PITCH_MAPS
from .drum_song import DrumSong
from .drum_synthesis import SAMPLE_RATE
from .errors import MissingLibraryError, SoundError
from .midi_file import DRUM_CHANNEL
from .regular_files import check_regular_file
from .sound import limited, sampled_hits

DRUM_BANK = 128
TAIL, FADE = 4 * SAMPLE_RATE, SAMPLE_RATE  # samples in which the last hits die away
# A SoundFont's kits have General MIDI's pitches, whichever kit the drums were read from.
PITCHES = [pitches[0] for pitches in PITCH_MAPS["general_midi"]]


def render_soundfont(
    soundfont: str | os.PathLike,
    piano_roll: np.ndarray,
    timing: np.ndarray | None = None,
    bpm: float | None = None,
    steps_per_bar: int = 16,
    like: DrumSong | None = None,
) -> np.ndarray:
    """Drums on the first drum kit of a SoundFont.

    Args:
        soundfont: a file in the format SF2 or SF3, with a drum kit in bank 128.
        piano_roll, timing, bpm, steps_per_bar, like: see `render`.

    Returns:
        float32 (2, samples), see `render`. It lasts 4 s beyond the last bar.

    Raises:
        MissingLibraryError: tinysoundfont is not installed.
        FileNotFoundError: there is no such file.
        SoundError: it is not a SoundFont, or has no drum kit.
        PianoRollError, TempoError, ValueError: see `render`.
    """
    hits = sampled_hits(piano_roll, timing, bpm, steps_per_bar, like)
    synthesizer = _synthesizer(soundfont)
    mix = np.zeros((2, hits.end + TAIL), np.float32)
    onsets = [*hits.onsets.tolist(), mix.shape[1]]
    for start, end, drum, velocity in zip(
        onsets[:-1], onsets[1:], hits.drums, hits.velocities.tolist(), strict=True
    ):
        synthesizer.noteon(DRUM_CHANNEL - 1, PITCHES[drum], velocity)
        sound = np.frombuffer(synthesizer.generate(end - start), np.float32)
        mix[:, start:end] = sound.reshape(-1, 2).T
    mix[:, -FADE:] *= np.linspace(1, 0, FADE, dtype=np.float32)
    return limited(mix)


def _synthesizer(soundfont: str | os.PathLike) -> Any:
    """A `tinysoundfont.Synth` that plays the drum kit."""
    check_regular_file(soundfont)
    data = Path(soundfont).read_bytes()
    try:
        import tinysoundfont
    except ImportError as error:
        # It asks for PyAudio, which has to be compiled, and needs it only to play aloud.
        raise MissingLibraryError(
            "tinysoundfont: found no such library, expected it for a SoundFont: "
            "pip install --no-deps tinysoundfont"
        ) from error
    synthesizer = tinysoundfont.Synth(samplerate=SAMPLE_RATE)
    try:
        kit = synthesizer.sfload(data)
    except RuntimeError as error:
        raise SoundError(f"soundfont: found {soundfont}, expected an SF2 or SF3 file") from error
    if synthesizer.sfpreset_name(kit, DRUM_BANK, 0) is None:
        raise SoundError(f"soundfont: found no drum kit in bank {DRUM_BANK} of {soundfont}")
    synthesizer.program_select(DRUM_CHANNEL - 1, kit, DRUM_BANK, 0, True)
    return synthesizer
