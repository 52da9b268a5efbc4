"""A hundred and more songs of every shape: reading then writing changes nothing of them.

pytest -m exhaustive -s tests/test_many_songs.py
"""

import random
import warnings
from collections import Counter

import numpy as np
import pytest
import torch
from factories import (
    Event,
    chunk,
    ending_at,
    midi_file,
    note_off,
    note_on,
    riff,
    tempo,
    time_signature,
    track,
)
from training_runs import tiny_model

from musicvae.drummer import Drummer, Drums, TorchBackend
from processing import MusicVAEProcessor
from processing.drum_kit import PITCH_MAPS
from processing.drum_song import DrumSong
from processing.midi_file import read_midi
from processing.piano_roll import join_windows

FEW, MANY = 12, 240


class Song:
    """A song made at random: its file, and what has to stay.

    Attributes:
        data: the file.
        pitch_map, channel: settings to read it with.
        num_bars, start, end: in bars and ticks.
        tempos, metres: (tick, ...).
        hits: (tick, pitch, velocity), one of each drum a step.
    """

    def __init__(self, seed: int):
        rng = random.Random(seed)
        self.division = rng.choice((24, 48, 96, 120, 192, 384, 480, 960, 15_360))
        self.pitch_map = rng.choice(list(PITCH_MAPS))
        self.channel = rng.choice((10, 10, 10, 1, 4, 16))
        bar = 4 * self.division
        pickup = rng.choice((0, 0, 0, 1, 2, 3)) * self.division
        self.num_bars = rng.randint(1, 40) + (pickup > 0)
        self.start = pickup - bar if pickup else 0
        self.end = self.start + self.num_bars * bar
        metre = rng.choice(((4, 4), (4, 4), (2, 2), (8, 8)))
        self.metres = (
            [(0, pickup // self.division, 4), (pickup, *metre)] if pickup else [(0, *metre)]
        )
        self.tempos = [(0, rng.randint(200_000, 1_500_000))]
        for tick in sorted(rng.sample(range(1, self.end), rng.choice((0, 0, 1, 5, 40)))):
            self.tempos.append((tick, rng.randint(200_000, 1_500_000)))
        self.hits = self._draw_hits(rng, bar, pickup)
        self.data = self._file(rng)

    def _draw_hits(self, rng: random.Random, bar: int, pickup: int) -> list[tuple[int, int, int]]:
        """Hits in some bars, in the middle half of a step, or anywhere of its half that is late."""
        pitches = [rng.choice(group) for group in PITCH_MAPS[self.pitch_map]]
        step, hits = bar / 16, []
        sounding = [number for number in range(self.num_bars) if rng.random() < 0.7] or [0]
        for number in sounding:
            for position in range(16):
                for pitch in rng.sample(pitches, rng.choice((0, 0, 1, 1, 2, 3))):
                    offset = rng.choice((0, 0, rng.uniform(-0.4, 0.4)))
                    tick = self.start + number * bar + round((position + offset) * step)
                    if 0 <= tick < self.end:
                        hits.append((tick, pitch, rng.randint(1, 127)))
        if not hits:
            hits = [(max(0, self.start), pitches[0], 100)]
        return sorted(hits)

    def _file(self, rng: random.Random) -> bytes:
        notes: list[Event] = []
        for tick, pitch, velocity in self.hits:
            notes.append(note_on(tick, pitch, velocity, self.channel - 1))
            notes.append(note_off(tick + rng.randint(1, self.division), pitch, self.channel - 1))
        tempos = [tempo(*event) for event in self.tempos]
        metres = [time_signature(*event) for event in self.metres]
        others = [(0, b"\xff\x03\x04caf\xe9"), (0, b"\xff\x59\x02\x00\x00"), (0, b"\xb0\x07\xc8")]
        others += [note_on(self.division * beat, 40, 80, 6) for beat in range(self.num_bars)]
        end = ending_at(max(self.end, 1))
        match rng.randrange(3):
            case 0:
                tracks = [track(*tempos, *metres, *others, *notes, end)]
            case 1:
                tracks = [track(*tempos, *metres, end), track(*notes), track(*others)]
            case _:
                half = len(notes) // 4 * 2
                tracks = [track(*notes[half:], end), track(*notes[:half], *metres), track(*tempos)]
                tracks += [chunk(b"XFIH", b"\0"), track(*others)]
        data = midi_file(*tracks, division=self.division)
        data = data.replace(b"\0\1\0\5", b"\0\1\0\4") if len(tracks) == 5 else data
        return riff(b"RMID", (b"data", data)) if rng.random() < 0.1 else data


def read(data: bytes, **settings) -> DrumSong:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return MusicVAEProcessor(**settings).read(data)


def check(song: Song) -> str:
    """Checks one song; returns what kind it is."""
    settings = {"pitch_map": song.pitch_map, "channel": song.channel}
    first = read(song.data, **settings)
    assert first.num_bars == song.num_bars
    assert first.layout.tempos == song.tempos
    assert first.layout.time_signatures == song.metres
    assert (first.layout.start_tick, first.layout.end_tick) == (song.start, song.end)
    processor = MusicVAEProcessor(**settings)
    written = processor.decode(first.piano_roll, first.timing, like=first).data
    content = read_midi(written)
    scale = content.ticks_per_quarter // song.division
    assert content.end_tick == scale * song.end
    assert content.tempos == [(scale * tick, *rest) for tick, *rest in song.tempos]
    assert content.time_signatures == [(scale * tick, *rest) for tick, *rest in song.metres]
    assert set(content.notes.channels.tolist()) == {song.channel}
    # Hits of one drum have one pitch in these songs, so that each has to come back as it was.
    expected = {}
    for tick, pitch, velocity in song.hits:
        place = pitch, (2 * 16 * (tick - song.start) + 4 * song.division) // (8 * song.division)
        best = expected.get(place)
        if best is None or velocity > best[1]:
            expected[place] = scale * tick, velocity
    found = zip(*(column.tolist() for column in content.notes[:3]), strict=True)
    kept = sorted((tick, pitch, velocity) for (pitch, _), (tick, velocity) in expected.items())
    assert sorted(found) == kept
    second = read(written, **settings)
    assert np.array_equal(second.piano_roll, first.piano_roll)
    assert np.array_equal(second.timing, first.timing)
    return (
        f"{'pickup' if song.start else 'no pickup'}, {'loop' if first.layout.is_loop else 'song'}"
    )


@pytest.mark.parametrize("number", [FEW, pytest.param(MANY, marks=pytest.mark.exhaustive)])
def test_bars_tempo_map_metres_channel_and_every_hit_are_kept(number):
    kinds, hits = Counter(), 0
    for seed in range(number):
        song = Song(seed)
        kinds[check(song)] += 1
        hits += len(song.hits)
    print(f"\n{number} songs with {hits} hits: {dict(kinds)}")
    assert kinds.total() == number


MODELS = {
    "sample": {},
    "humanize": {"input_transform": "humanize", "hits_as_controls": True},
    "tap": {"input_transform": "tap", "input_as_controls": True},
    "add": {"input_transform": "remove_drums", "removed_drums": [2]},
}


@pytest.fixture(scope="module")
def backends() -> dict[str, TorchBackend]:
    """A lively model for each task."""
    torch.manual_seed(0)
    models = {name: tiny_model(decoder="flat", **settings) for name, settings in MODELS.items()}
    for model in models.values():
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter, std=0.7)
    return {name: TorchBackend(model.eval()) for name, model in models.items()}


def rewritten(drums: Drums, song: DrumSong, processor: MusicVAEProcessor) -> DrumSong:
    """Drums in the place of a song, as a file that is read again."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        written = processor.decode(drums.piano_roll, drums.timing, like=song).data
        return processor.read(written)


def check_verbs(song: Song, backends: dict[str, TorchBackend]) -> None:
    """Checks for one song what the verbs promise."""
    settings = {"pitch_map": song.pitch_map, "channel": song.channel}
    first, processor = read(song.data, **settings), MusicVAEProcessor(**settings)
    drummers = {name: Drummer(backend, processor) for name, backend in backends.items()}
    made = {
        "humanize": drummers["humanize"].humanize(first),
        "transfer": drummers["sample"].transfer_groove(first, first),
        "add": drummers["add"].add_drums(first),
        "tap": drummers["tap"].tap_to_drums(first),
        "reconstruct": drummers["sample"].reconstruct(first),
        "continue": drummers["sample"].continue_drums(first, bars=2),
    }
    drums = {verb: rewritten(each, first, processor) for verb, each in made.items()}
    scale = drums["tap"].layout.ticks_per_quarter // song.division
    for verb, each in drums.items():
        more = 2 if verb == "continue" else 0
        assert each.num_bars == song.num_bars + more, verb
        assert each.layout.end_tick == scale * (song.end + more * 4 * song.division), verb
        assert each.layout.tempos == [(scale * tick, *rest) for tick, *rest in song.tempos], verb
        assert each.layout.channel == song.channel
    for verb in ("humanize", "transfer"):
        assert np.array_equal(drums[verb].piano_roll > 0, first.piano_roll > 0), verb
    others = [drum for drum in range(9) if drum != 2]
    assert np.array_equal(drums["add"].piano_roll[:, others], first.piano_roll[:, others])
    assert np.array_equal(drums["add"].timing[:, others], first.timing[:, others])
    silent = ~first.piano_roll.any((1, 2))
    assert not any(drums[verb].piano_roll[silent].any() for verb in ("add", "tap", "reconstruct"))
    steps = 16 * song.num_bars
    assert np.array_equal(
        join_windows(drums["continue"].piano_roll)[:, :steps],
        join_windows(first.piano_roll)[:, :steps],
    )


@pytest.mark.parametrize("number", [3, pytest.param(MANY, marks=pytest.mark.exhaustive)])
def test_verbs_keep_bars_tempo_map_channel_and_the_hits_that_they_promise(number, backends):
    for seed in range(number):
        check_verbs(Song(seed), backends)
