"""Drums as sound: what is heard is what the piano roll says."""

import wave

import numpy as np
import pytest
from factories import drum_file, ending_at, note_on, tempo, time_signature

from processing import MusicVAEProcessor
from processing.drum_kit import DRUM_NAMES
from processing.drum_song import DrumSong
from processing.drum_synthesis import SAMPLE_RATE, drum_sound
from processing.errors import PianoRollError, SoundError, TempoError
from processing.sound import CHOKE_FADE, KNEE, PEAK, render, write_wav

KICK, SNARE, CLOSED_HI_HAT, OPEN_HI_HAT, *_, RIDE = range(len(DRUM_NAMES))
every_drum = pytest.mark.parametrize("drum", range(len(DRUM_NAMES)), ids=DRUM_NAMES)


def roll_of(*hits: tuple[int, int, int], steps: int = 16) -> np.ndarray:
    """A piano roll of hits, each a drum, a step and a velocity."""
    roll = np.zeros((len(DRUM_NAMES), steps), np.uint8)
    for drum, step, velocity in hits:
        roll[drum, step] = velocity
    return roll


def random_timing(roll: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return np.where(roll > 0, rng.uniform(-0.45, 0.45, roll.shape), 0).astype(np.float32)


def spectral_flux_onsets(sound: np.ndarray) -> np.ndarray:
    """The seconds at which a sound's spectrum grows, found from the sound alone.

    Flux is the growth of the amplitude's square root within 5 ms, summed over five bands of equal
    width in octaves. An onset is the largest flux within 25 ms, if it is a fifth of the largest.
    """
    size, hop, growth, reach = 256, 44, 5, 25
    mono = np.pad(sound.mean(axis=0), size)
    frames = np.lib.stride_tricks.sliding_window_view(mono, size)[::hop] * np.hanning(size)
    power = np.abs(np.fft.rfft(frames)) ** 2
    band_starts = np.geomspace(1, size // 2, 6).astype(int)[:-1]
    bands = np.add.reduceat(power, band_starts, axis=1) ** 0.25
    flux = np.maximum(bands[growth:] - bands[:-growth], 0).sum(axis=1)
    around = np.lib.stride_tricks.sliding_window_view(np.pad(flux, reach), 2 * reach + 1)
    (peaks,) = np.nonzero((flux == around.max(axis=1)) & (flux > 0.2 * flux.max()))
    # A frame's time is its centre, and growth lies between two frames.
    return ((peaks + growth / 2) * hop - size / 2) / SAMPLE_RATE


@every_drum
def test_each_onset_is_heard_within_5_ms_of_its_hit_and_no_other(drum):
    rng = np.random.default_rng(drum)
    steps = np.arange(4, 128, 16)
    roll = roll_of(*((drum, step, rng.integers(60, 128)) for step in steps), steps=128)
    timing = random_timing(roll, rng)
    onsets = spectral_flux_onsets(render(roll, timing, bpm=110))
    expected = (steps + timing[drum, steps]) * 60 / 110 / 4
    assert len(onsets) == len(expected)
    assert np.abs(onsets - expected).max() < 0.005


def test_the_onsets_of_a_beat_are_heard_within_5_ms_of_its_hits():
    hits = [(SNARE if step % 8 else KICK, step, 90) for step in range(0, 64, 4)]
    hits += [(CLOSED_HI_HAT, step, 110) for step in range(2, 64, 4)]
    roll = roll_of(*hits, steps=64)
    timing = random_timing(roll, np.random.default_rng(0))
    timing[:, 0] = 0.1
    steps, drums = np.nonzero(roll.T)
    onsets = spectral_flux_onsets(render(roll, timing, bpm=100))
    expected = (steps + timing[drums, steps]) * 60 / 100 / 4
    assert len(onsets) == len(expected)
    assert np.abs(onsets - expected).max() < 0.005


@every_drum
def test_a_higher_velocity_is_louder_and_brighter(drum):
    loudness, brightness = [], []
    for velocity in (1, 20, 45, 64, 90, 110, 127):
        mono = render(roll_of((drum, 0, velocity))).mean(axis=0)
        power = np.abs(np.fft.rfft(mono)) ** 2
        loudness.append(power.sum())
        brightness.append(np.sum(power * np.fft.rfftfreq(len(mono))) / power.sum())
    assert (np.diff(loudness) > 0).all()
    assert (np.diff(brightness) > 0).all()


def test_drums_without_hits_are_exactly_silent_and_as_long_as_their_bars():
    sound = render(roll_of(steps=32), bpm=120)
    assert sound.shape == (2, 4 * SAMPLE_RATE)
    assert not sound.any()


def test_the_sound_is_silent_before_the_first_hit_and_ends_in_silence():
    sound = render(roll_of((SNARE, 15, 127)), bpm=120)
    onset = round(15 / 8 * SAMPLE_RATE)
    assert not sound[:, :onset].any()
    assert sound[:, onset : onset + 100].any()
    assert sound.shape[1] == onset + drum_sound(SNARE).num_samples
    assert not sound[:, -1].any()


def test_a_closed_hi_hat_cuts_the_open_one():
    opened, closed = (OPEN_HI_HAT, 0, 120), (CLOSED_HI_HAT, 4, 60)
    both, rings, alone = (
        render(roll_of(*hits, steps=64)) for hits in ([opened, closed], [opened], [closed])
    )
    onset = SAMPLE_RATE // 2
    np.testing.assert_array_equal(both[:, :onset], rings[:, :onset])
    np.testing.assert_array_equal(both[:, onset + CHOKE_FADE :], alone[:, onset + CHOKE_FADE :])
    assert np.abs(rings[:, onset + CHOKE_FADE :]).max() > 0.01


@pytest.mark.parametrize(
    "hit", [(CLOSED_HI_HAT, 0, 60), (RIDE, 4, 60)], ids=["closed on the same step", "ride"]
)
def test_nothing_else_cuts_the_open_hi_hat(hit):
    opened = (OPEN_HI_HAT, 0, 120)
    both, rings, alone = (
        render(roll_of(*hits, steps=256)) for hits in ([opened, hit], [opened], [hit])
    )
    np.testing.assert_allclose(both, rings + alone, atol=1e-6)


def test_no_sample_lies_beyond_the_peak_however_much_sounds_at_once():
    loudest = np.full((len(DRUM_NAMES), 64), 127, np.uint8)
    sound = render(loudest, bpm=240)
    assert sound.dtype == np.float32
    assert KNEE < np.abs(sound).max() <= PEAK


def test_soft_drums_mix_without_changing_each_other():
    kick, snare = (KICK, 0, 60), (SNARE, 1, 60)
    both, *alone = (render(roll_of(*hits, steps=64)) for hits in ([kick, snare], [kick], [snare]))
    np.testing.assert_allclose(both, sum(alone), atol=1e-6)


def test_the_same_drums_give_the_same_samples():
    rng = np.random.default_rng(0)
    roll = np.where(rng.random((9, 64)) < 0.2, rng.integers(1, 128, (9, 64)), 0).astype(np.uint8)
    timing = random_timing(roll, rng)
    first = render(roll, timing)
    drum_sound.cache_clear()
    np.testing.assert_array_equal(render(roll, timing), first)


def test_windows_sound_one_after_another():
    first, second = roll_of((KICK, 3, 100)), roll_of((SNARE, 5, 100))
    timing = np.full((2, 9, 16), 0.25, np.float32)
    np.testing.assert_array_equal(
        render(np.stack([first, second]), timing),
        render(np.concatenate([first, second], axis=1), np.concatenate(timing, axis=1)),
    )


def test_an_early_hit_on_the_first_step_of_a_loop_sounds_at_its_end():
    roll = roll_of((SNARE, 0, 100))
    sound = render(roll, np.where(roll > 0, -0.4, 0).astype(np.float32), bpm=120)
    assert first_sample(sound) == pytest.approx(15.6 / 8 * SAMPLE_RATE, abs=SAMPLE_RATE / 1000)


def test_a_finer_grid_has_shorter_steps():
    straight, triplets = roll_of((KICK, 8, 100)), roll_of((KICK, 12, 100), steps=24)
    np.testing.assert_array_equal(render(straight), render(triplets, steps_per_bar=24))


def read(*events) -> DrumSong:
    return MusicVAEProcessor(bars=1).read(drum_file(*events))


def first_sample(sound: np.ndarray) -> int:
    return np.flatnonzero(sound[0])[0]


def test_drums_in_the_place_of_a_song_follow_its_tempo_and_end_where_it_ends():
    song = read(tempo(0, 500_000), tempo(960, 1_000_000), note_on(0), ending_at(1920))
    sound = render(roll_of((SNARE, 12, 100)), like=song)
    assert first_sample(sound) == 2 * SAMPLE_RATE
    assert render(roll_of(), like=song).shape == (2, 3 * SAMPLE_RATE)


def test_a_pickup_sounds_from_the_start_of_its_file():
    song = read(time_signature(0, 1, 4), time_signature(480, 4, 4), note_on(480))
    sound = render(roll_of((SNARE, 14, 100), steps=32), like=song)
    assert first_sample(sound) == SAMPLE_RATE // 4


def test_hits_before_a_pickup_are_left_out_with_a_warning():
    song = read(time_signature(0, 1, 4), time_signature(480, 4, 4), note_on(480))
    with pytest.warns(UserWarning, match="1 hit left out, before its pickup"):
        sound = render(roll_of((SNARE, 3, 100), steps=32), like=song)
    assert not sound.any()


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"piano_roll": np.zeros((9, 16))}, PianoRollError, "found float64"),
        ({"timing": np.zeros((9, 8), np.float32)}, PianoRollError, r"timing: .* \(9, 8\)"),
        ({"bpm": 0}, TempoError, "bpm: found 0, expected 20 to 500"),
        ({"bpm": np.nan}, TempoError, "bpm: found nan"),
    ],
    ids=["roll", "timing", "tempo 0", "tempo nan"],
)
def test_a_bad_argument_is_named(arguments, error, message):
    with pytest.raises(error, match=message):
        render(**{"piano_roll": roll_of()} | arguments)


def read_wav(path) -> tuple[int, np.ndarray]:
    with wave.open(str(path)) as file:
        assert file.getsampwidth() == 2
        samples = np.frombuffer(file.readframes(file.getnframes()), "<i2")
        return file.getframerate(), samples.reshape(-1, file.getnchannels()).T


def test_a_wav_file_holds_the_sound_to_half_a_step_of_16_bits(tmp_path):
    sound = render(roll_of((KICK, 0, 127), (SNARE, 4, 90)))
    write_wav(tmp_path / "drums.wav", sound)
    rate, samples = read_wav(tmp_path / "drums.wav")
    assert rate == SAMPLE_RATE
    np.testing.assert_allclose(samples / 32767, sound, atol=0.5001 / 32767)


def test_a_wav_file_is_replaced_and_may_be_mono(tmp_path):
    path = tmp_path / "drums.wav"
    path.write_bytes(b"older")
    write_wav(path, np.array([0, 0.5, -1], np.float32))
    assert read_wav(path)[1].tolist() == [[0, 16384, -32767]]
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("sound", "message"),
    [
        (np.array([[0, 1.01]]), "not within -1 and 1"),
        (np.array([np.nan]), "not within -1 and 1"),
        (np.zeros((3, 8)), r"found shape \(3, 8\), expected \(2, samples\)"),
    ],
    ids=["too loud", "nan", "three channels"],
)
def test_what_cannot_be_written_without_loss_is_refused(tmp_path, sound, message):
    with pytest.raises(SoundError, match=message):
        write_wav(tmp_path / "drums.wav", sound)
    assert not list(tmp_path.iterdir())
