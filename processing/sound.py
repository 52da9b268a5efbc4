"""Drums as sound: piano rolls on a kit that NumPy synthesises, and WAV files."""

import os
import wave
from pathlib import Path
from typing import NamedTuple

import numpy as np

from .drum_kit import DRUM_NAMES
from .drum_song import DrumSong
from .drum_synthesis import SAMPLE_RATE, drum_sound
from .errors import SoundError
from .song_writer import drums_in_place, placed_hits, written_layout

PEAK = 0.9375  # of full scale, -0.56 dB
KNEE = 0.625  # above it the mix bends toward the peak
CLOSED_HI_HAT, OPEN_HI_HAT = (DRUM_NAMES.index(name) for name in ("closed hi-hat", "open hi-hat"))
# A closed hi-hat silences the open one, unless it is struck together with it. In samples.
CHOKE_AFTER, CHOKE_FADE = round(0.025 * SAMPLE_RATE), round(0.012 * SAMPLE_RATE)


def render(
    piano_roll: np.ndarray,
    timing: np.ndarray | None = None,
    bpm: float | None = None,
    steps_per_bar: int = 16,
    like: DrumSong | None = None,
) -> np.ndarray:
    """Drums on a synthesised kit; the same drums give the same samples.

    Velocity makes a hit louder and brighter. An open hi-hat rings until a closed one. Hits sound
    where `MidiProcessor.decode` writes them.

    Args:
        piano_roll: uint8 (9, steps), MIDI velocities; an array or a CPU tensor. Windows
            (windows, 9, steps) sound one after another.
        timing: float32 of the same shape, microtiming in steps; on the grid if not given.
        bpm: tempo of a new groove in quarters a minute; 120 if not given.
        steps_per_bar: steps in a bar of four quarters.
        like: the song to take the place of: its tempo map, its pickup, its end.

    Returns:
        float32 (2, samples), left and right at `SAMPLE_RATE` (44,100 Hz), no sample beyond `PEAK`
        (0.9375). It lasts until the last bar is over and the last hit has died away.

    Raises:
        PianoRollError: roll or timing has the wrong shape, dtype or range, or is shorter than the
            song.
        TempoError: `bpm` is out of range.
        ValueError: there are both `bpm` and `like`.
    """
    hits = sampled_hits(piano_roll, timing, bpm, steps_per_bar, like)
    lengths = _lengths(hits)
    mix = np.zeros((2, max([hits.end, *(hits.onsets + lengths)])), np.float32)
    for onset, length, drum, velocity in zip(
        hits.onsets, lengths, hits.drums.tolist(), hits.velocities.tolist(), strict=True
    ):
        sound = drum_sound(drum)
        hit = sound.hit(velocity, length)
        if length < sound.num_samples:
            hit[:, -CHOKE_FADE:] *= np.linspace(1, 0, CHOKE_FADE, dtype=np.float32)
        mix[:, onset : onset + length] += hit
    return limited(mix)


class SampledHits(NamedTuple):
    """Hits in time order.

    Attributes:
        onsets: int64 (hits,), in samples.
        drums: int64 (hits,), indices into `DRUM_NAMES`.
        velocities: uint8 (hits,), 1 to 127.
        end: samples up to the last bar line.
    """

    onsets: np.ndarray
    drums: np.ndarray
    velocities: np.ndarray
    end: int


def sampled_hits(
    piano_roll: np.ndarray,
    timing: np.ndarray | None,
    bpm: float | None,
    steps_per_bar: int,
    like: DrumSong | None,
) -> SampledHits:
    """Where hits lie in a sound; the arguments and errors are those of `render`."""
    roll, timing, layout = drums_in_place(piano_roll, timing, bpm, like, steps_per_bar, pitches=())
    layout = written_layout(layout)
    name = "piano_roll" if like is None else like.name
    ticks, drums, velocities = placed_hits(roll, timing, layout, steps_per_bar, name)
    *onsets, end = np.rint(layout.seconds(np.append(ticks, layout.end_tick)) * SAMPLE_RATE)
    return SampledHits(np.array(onsets, int), drums, velocities, int(end))


def _lengths(hits: SampledHits) -> np.ndarray:
    """For how many samples each hit sounds, int64 (hits,)."""
    lengths = np.array([drum_sound(drum).num_samples for drum in hits.drums.tolist()], int)
    (opened,), (closed,) = (np.nonzero(hits.drums == drum) for drum in (OPEN_HI_HAT, CLOSED_HI_HAT))
    following = np.searchsorted(hits.onsets[closed], hits.onsets[opened] + CHOKE_AFTER)
    is_cut = following < len(closed)
    opened, closed = opened[is_cut], closed[following[is_cut]]
    rings = hits.onsets[closed] - hits.onsets[opened] + CHOKE_FADE
    lengths[opened] = np.minimum(lengths[opened], rings)
    return lengths


def limited(mix: np.ndarray) -> np.ndarray:
    """The mix, changed in place where it is louder than `KNEE`, and nowhere beyond `PEAK`."""
    loud = np.abs(mix) > KNEE
    excess = (np.abs(mix[loud]) - KNEE) / (PEAK - KNEE)
    mix[loud] = np.copysign(KNEE + (PEAK - KNEE) * np.tanh(excess), mix[loud])
    return mix


def write_wav(path: str | os.PathLike, sound: np.ndarray) -> None:
    """Writes 16-bit PCM at `SAMPLE_RATE`, replacing the file where it exists.

    Args:
        path: the file to write.
        sound: float32 (2, samples) in stereo or (samples,) in mono, within -1 and 1.

    Raises:
        SoundError: `sound` has another shape, or samples that are out of range.
    """
    channels = np.atleast_2d(sound)
    if channels.ndim != 2 or len(channels) > 2:
        raise SoundError(f"sound: found shape {sound.shape}, expected (2, samples) or (samples,)")
    if not (np.abs(channels) <= 1).all():
        raise SoundError("sound: found a sample that is not within -1 and 1, expected none")
    path = Path(path)
    temporary = path.with_name(path.name + ".tmp")
    try:
        with wave.open(str(temporary), "wb") as file:
            file.setparams((len(channels), 2, SAMPLE_RATE, 0, "NONE", "not compressed"))
            file.writeframes(np.rint(channels.T * 32767).astype("<i2").tobytes())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
