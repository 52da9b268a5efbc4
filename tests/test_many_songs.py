"""A hundred and more songs of every shape: reading then writing changes nothing of them.

pytest -m exhaustive -s tests/test_many_songs.py
"""

import random
import warnings
from collections import Counter

import numpy as np
import pytest
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

from processing import MusicVAEProcessor
from processing.drum_kit import PITCH_MAPS
from processing.drum_song import DrumSong
from processing.midi_file import read_midi

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
