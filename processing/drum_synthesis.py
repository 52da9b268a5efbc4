"""The nine drums as sound, synthesised in NumPy: sines that fall, noise in bands, inharmonic modes.

Each drum is two sounds that start together: `soft`, its resonance, and `hard`, the bright part
that a stroke excites the more the harder it is. A hit is the sum of both, see `DrumSound.hit`.
"""

from collections.abc import Callable
from functools import cache
from typing import NamedTuple

import numpy as np

SAMPLE_RATE = 44_100  # Hz
ROOM_SECONDS = 0.35

NUM_MODES = 40
# Lowest and highest Hz of a band of a cymbal's noise, its decay as a share of the whole's, its
# amplitude, and the share of it that only a hard stroke excites.
BANDS = (
    (300, 3000, 0.9, 0.16, 0.1),
    (3000, 6500, 1.0, 0.26, 0.4),
    (6500, 10500, 0.7, 0.26, 0.7),
    (10500, 16000, 0.4, 0.18, 1.0),
)


class DrumSound(NamedTuple):
    """One drum in stereo.

    Attributes:
        soft: float32 (2, samples), what sounds however it is struck.
        hard: float32 (2, samples), what a hard stroke adds.
    """

    soft: np.ndarray
    hard: np.ndarray

    @property
    def num_samples(self) -> int:
        return self.soft.shape[1]

    def hit(self, velocity: int, num_samples: int | None = None) -> np.ndarray:
        """A stroke of a MIDI velocity 1 to 127, float32 (2, samples).

        Amplitude grows by 1.6 dB for each dB of velocity, and the share of `hard` with velocity.
        """
        loudness = velocity / 127
        gain = np.float32(loudness**1.6)
        hit = self.hard[:, :num_samples] * np.float32(gain * loudness)
        hit += self.soft[:, :num_samples] * gain
        return hit


class Place(NamedTuple):
    """Where a drum is in the mix.

    Attributes:
        peak: amplitude of its loudest hit.
        pan: -1 is left, 1 is right, as the drummer sees the kit.
        room: amplitude of the room's answer.
    """

    peak: float
    pan: float
    room: float


@cache
def drum_sound(drum: int) -> DrumSound:
    """The sound of a drum, by its index in `DRUM_NAMES`; made when it is first asked for."""
    synthesize, place = KIT[drum]
    parts = np.array(
        [_in_room(part, place) for part in synthesize(np.random.default_rng(drum))], np.float32
    )
    parts *= place.peak / np.abs(parts.sum(axis=0)).max()
    parts.setflags(write=False)  # all hits share them
    return DrumSound(*parts)


def _kick(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    t = _seconds(0.6)
    body = np.sin(_falling(t, 165, 51, 0.022)) * np.exp(-t / 0.13)
    shell = np.sin(_falling(t, 230, 98, 0.015)) * np.exp(-t / 0.05)
    beater = np.sin(_falling(t, 1100, 240, 0.004)) * np.exp(-t / 0.008)
    click = _noise(rng, t, 1800, 7000) * np.exp(-t / 0.004)
    return np.tanh(1.6 * (body + 0.25 * shell)), 0.55 * beater + 0.32 * click


def _snare(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    t = _seconds(0.6)
    head = np.sin(_falling(t, 240, 188, 0.012)) * np.exp(-t / 0.07)
    shell = np.sin(_falling(t, 380, 331, 0.010)) * np.exp(-t / 0.045)
    buzz = _noise(rng, t, 700, 5000) * np.exp(-t / 0.075)
    wires = _noise(rng, t, 2600, 11000) * (np.exp(-t / 0.085) + 1.3 * np.exp(-t / 0.012))
    crack = np.sin(_falling(t, 1250, 820, 0.004)) * np.exp(-t / 0.009)
    return 0.8 * head + 0.4 * shell + 0.16 * buzz, 0.26 * wires + 0.35 * crack


def _tom(pitch: float, decay: float) -> Callable:
    def synthesize(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        t = _seconds(4 * decay + 0.2)
        # The modes of a round membrane.
        soft = sum(
            weight
            * np.sin(_falling(t, 1.35 * ratio * pitch, ratio * pitch, 0.035))
            * np.exp(-t / (decay / ratio**1.5))
            for ratio, weight in ((1, 1), (1.59, 0.42), (2.14, 0.2))
        )
        stick = np.sin(_falling(t, 950, 420, 0.004)) * np.exp(-t / 0.008)
        skin = _noise(rng, t, 700, 5500) * (np.exp(-t / 0.006) + 0.12 * np.exp(-t / 0.06))
        return np.tanh(1.2 * soft), 0.4 * stick + 0.3 * skin

    return synthesize


def _cymbal(length: float, decay: float, swell: float, ping: float, lowest: float) -> Callable:
    """A thin plate: few modes below, which ring the longest, and above so many that they are noise.

    Args:
        length: seconds.
        decay: seconds in which its middle falls by 8.7 dB.
        swell: seconds in which the energy of a stroke reaches the upper bands.
        ping: amplitude of the stick.
        lowest: Hz, of its modes.
    """

    def synthesize(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        t = _seconds(length)
        soft, hard = np.zeros_like(t), np.zeros_like(t)

        def add(part: np.ndarray, hardness: float) -> None:
            nonlocal soft, hard
            soft += (1 - hardness) * part
            hard += hardness * part

        for frequency in np.sort(rng.uniform(lowest, 9000, NUM_MODES)):
            rings = decay * 1.5 * (lowest / frequency) ** 0.35
            mode = np.sin(2 * np.pi * (frequency * t + rng.random())) * np.exp(-t / rings)
            loudness = rng.uniform(0.05, 0.2) * np.sqrt(frequency / 9000)
            add(loudness * mode, frequency / 9000)
        for low, high, rings, weight, hardness in BANDS:
            rising = 1 - 0.6 * np.exp(-t * 7000 / (swell * low)) if swell else 1.0
            noise = _noise(rng, t, max(low, lowest), high)
            add(weight * noise * rising * np.exp(-t / (decay * rings)), hardness)
        stick = _noise(rng, t, 2500, 12000) * np.exp(-t / 0.004)
        bell = np.sin(2 * np.pi * 5.1 * lowest * t) * np.exp(-t / (0.3 * decay))
        return soft + 0.12 * ping * bell, hard + ping * stick

    return synthesize


# By drum, in the order of `DRUM_NAMES`.
KIT: tuple[tuple[Callable, Place], ...] = (
    (_kick, Place(0.85, 0.0, 0.05)),
    (_snare, Place(0.75, 0.05, 0.16)),
    (_cymbal(0.35, 0.035, 0.0, 0.5, 700), Place(0.28, -0.35, 0.06)),
    (_cymbal(2.20, 0.32, 0.0, 0.5, 700), Place(0.32, -0.35, 0.06)),
    (_tom(82, 0.24), Place(0.75, 0.5, 0.14)),
    (_tom(116, 0.20), Place(0.72, 0.1, 0.14)),
    (_tom(158, 0.17), Place(0.70, -0.3, 0.14)),
    (_cymbal(4.00, 0.75, 0.03, 0.3, 380), Place(0.50, -0.55, 0.10)),
    (_cymbal(3.00, 0.42, 0.02, 3.0, 480), Place(0.36, 0.5, 0.06)),
)


def _seconds(length: float) -> np.ndarray:
    """The time of each sample of a sound."""
    return np.arange(round(length * SAMPLE_RATE)) / SAMPLE_RATE


def _falling(t: np.ndarray, start: float, end: float, fall: float) -> np.ndarray:
    """The phase of a sine whose frequency in Hz falls exponentially, in radians."""
    return 2 * np.pi * (end * t + (start - end) * fall * (1 - np.exp(-t / fall)))


def _noise(rng: np.random.Generator, t: np.ndarray, low: float, high: float) -> np.ndarray:
    """Noise of standard deviation 1 between two frequencies in Hz; 12 dB an octave less beyond."""
    spectrum = np.fft.rfft(rng.standard_normal(len(t)))
    frequencies = np.fft.rfftfreq(len(t), 1 / SAMPLE_RATE)[1:]
    spectrum[0] = 0
    spectrum[1:] /= np.sqrt((1 + (low / frequencies) ** 4) * (1 + (frequencies / high) ** 4))
    noise = np.fft.irfft(spectrum, len(t))
    return noise / noise.std()


@cache
def _room() -> np.ndarray:
    """The answer of a small room to a clap, float64 (2, samples): noise that gets darker."""
    rng = np.random.default_rng(9)
    t = _seconds(ROOM_SECONDS)
    late = 1 - np.exp(-t / 0.006)  # the walls are two metres away
    answer = np.array(
        [
            _noise(rng, t, 250, 2500) * np.exp(-t / 0.07)
            + _noise(rng, t, 2500, 8000) * np.exp(-t / 0.035)
            for _ in ("left", "right")
        ]
    )
    answer *= late
    return answer / np.sqrt(np.sum(answer**2, axis=1, keepdims=True))


def _in_room(sound: np.ndarray, place: Place) -> np.ndarray:
    """A mono sound at its place in the room, float64 (2, samples), ending in silence."""
    room = _room()
    num_samples = len(sound) + room.shape[1]
    size = 1 << (num_samples - 1).bit_length()
    sound = sound * _fade(len(sound))
    answer = np.fft.irfft(np.fft.rfft(sound, size) * np.fft.rfft(room, size), size)[:, :num_samples]
    angle = (place.pan + 1) * np.pi / 4
    gains = np.sqrt(2) * np.array([[np.cos(angle)], [np.sin(angle)]])  # of the same power anywhere
    stereo = place.room * answer * _fade(num_samples)
    stereo[:, : len(sound)] += gains * sound
    return stereo


def _fade(num_samples: int) -> np.ndarray:
    """1 for half of a sound, then down to 0."""
    return np.minimum(np.linspace(2, 0, num_samples), 1) ** 2
