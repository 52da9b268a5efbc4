"""Drums as sound: piano rolls on a kit that NumPy synthesises, and WAV files."""

import os
import wave
from pathlib import Path
from typing import NamedTuple

import numpy as np

from .drum_kit import DRUM_NAMES
from .drum_synthesis import SAMPLE_RATE, drum_sound
from .errors import SoundError, TempoError
from .midi_file import DEFAULT_BPM, MAX_BPM, MIN_BPM
from .piano_roll import QUARTERS_PER_BAR, check_piano_roll

PEAK = 0.9375  # of full scale, -0.56 dB
KNEE = 0.625  # above it the mix bends toward the peak
CLOSED_HI_HAT, OPEN_HI_HAT = (DRUM_NAMES.index(name) for name in ("closed hi-hat", "open hi-hat"))
CHOKE_FADE = round(0.012 * SAMPLE_RATE)  # samples in which a closed hi-hat silences the open one


def render(
    piano_roll: np.ndarray,
    timing: np.ndarray | None = None,
    bpm: float | np.ndarray = DEFAULT_BPM,
    steps_per_bar: int = 16,
) -> np.ndarray:
    """Drums on a synthesised kit; the same drums give the same samples.

    Velocity makes a hit louder and brighter. An open hi-hat rings until a closed one on a later
    step.

    Args:
        piano_roll: uint8 (9, steps), MIDI velocities; an array or a CPU tensor. Windows
            (windows, 9, steps) sound one after another.
        timing: float32 of the same shape, microtiming in steps; on the grid if not given. A hit
            that is early on the first step sounds at 0 s.
        bpm: tempo in quarters a minute; or, where it changes, the time in seconds of each step
            of all windows and of the end, (steps + 1,).
        steps_per_bar: steps in a bar of four quarters.

    Returns:
        float32 (2, samples), left and right at `SAMPLE_RATE` (44,100 Hz), no sample beyond `PEAK`
        (0.9375). It lasts until the last bar is over and the last hit has died away.

    Raises:
        PianoRollError: roll or timing has the wrong shape, dtype or range.
        TempoError: `bpm` is out of range, or not one rising time for each step and the end.
    """
    hits = sampled_hits(piano_roll, timing, bpm, steps_per_bar)
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
    """The hits of a piano roll in the order of their steps.

    Attributes:
        steps: int64 (hits,).
        onsets: int64 (hits,), in samples.
        drums: int64 (hits,), indices into `DRUM_NAMES`.
        velocities: uint8 (hits,), 1 to 127.
        end: samples from the first step to the end of the last.
    """

    steps: np.ndarray
    onsets: np.ndarray
    drums: np.ndarray
    velocities: np.ndarray
    end: int


def sampled_hits(
    piano_roll: np.ndarray,
    timing: np.ndarray | None,
    bpm: float | np.ndarray,
    steps_per_bar: int,
) -> SampledHits:
    """Where hits lie in a sound; the arguments and errors are those of `render`."""
    roll = np.asarray(piano_roll)
    timing = np.zeros(roll.shape, np.float32) if timing is None else np.asarray(timing)
    if roll.ndim == 3 and len(roll) and roll.shape == timing.shape:
        roll, timing = (np.concatenate(windows, axis=1) for windows in (roll, timing))
    check_piano_roll(roll, timing)
    step_seconds = _step_seconds(bpm, roll.shape[1], steps_per_bar)
    steps, drums = np.nonzero(roll.T)
    positions = steps + timing[drums, steps]
    onsets = np.interp(positions, np.arange(len(step_seconds)), step_seconds)
    return SampledHits(
        steps,
        np.rint(onsets * SAMPLE_RATE).astype(int),
        drums,
        roll[drums, steps],
        round(step_seconds[-1] * SAMPLE_RATE),
    )


def _step_seconds(bpm: float | np.ndarray, num_steps: int, steps_per_bar: int) -> np.ndarray:
    """The time of each step and of the end, float64 (num_steps + 1,)."""
    if np.ndim(bpm) == 0:
        if not MIN_BPM <= bpm <= MAX_BPM:
            raise TempoError(f"bpm: found {bpm!r}, expected {MIN_BPM:g} to {MAX_BPM:g}")
        return np.arange(num_steps + 1) * (QUARTERS_PER_BAR * 60 / (bpm * steps_per_bar))
    seconds = np.asarray(bpm, np.float64)
    if seconds.shape != (num_steps + 1,):
        raise TempoError(f"bpm: found times {seconds.shape}, expected ({num_steps + 1},)")
    if not (np.isfinite(seconds).all() and seconds[0] >= 0 and (np.diff(seconds) > 0).all()):
        raise TempoError("bpm: found times that do not rise from 0 s on, expected rising times")
    return seconds


def _lengths(hits: SampledHits) -> np.ndarray:
    """For how many samples each hit sounds, int64 (hits,)."""
    lengths = np.array([drum_sound(drum).num_samples for drum in hits.drums.tolist()], int)
    (opened,), (closed,) = (np.nonzero(hits.drums == drum) for drum in (OPEN_HI_HAT, CLOSED_HI_HAT))
    following = np.searchsorted(hits.steps[closed], hits.steps[opened], side="right")
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
            file.setparams((len(channels), 2, SAMPLE_RATE, 0, "NONE", None))
            file.writeframes(np.rint(channels.T * 32767).astype("<i2").tobytes())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
