"""A small synthetic drum dataset in the folder layout of the Groove MIDI Dataset.

A performance is composed as tablature and then played by a drummer. Each bar has one line of 16
steps for each limb, and a limb strikes at most once a step, so that two hands and two feet can play
all of it. The letters of a line are the keys of `STROKES`; besides them

    -  rests,
    ?  is a snare ghost (g) and
    +  a kick (k) that the drummer adds now and then.

Where a style swings its eighths, steps 0, 1 and 2 of a beat fall on its triplet and step 3 rests.
"""

import csv
import itertools
import math
import os
import random
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from .drum_kit import PITCH_MAPS
from .midi_file import DRUM_CHANNEL
from .midi_writer import midi_bytes, note_events, tempo_events

STEPS_PER_BAR = 16
TICKS_PER_BEAT = 480
TICKS_PER_STEP = TICKS_PER_BEAT // 4
NOTE_TICKS = 30  # shorter than any gap between two strokes of one drum

KICK, SNARE, HI_HAT, OPEN_HI_HAT, LOW_TOM, MID_TOM, HIGH_TOM, CRASH, RIDE = (
    pitches[0] for pitches in PITCH_MAPS["roland_td11"]
)
SIDE_STICK, RIM_SHOT, HI_HAT_EDGE, HI_HAT_FOOT, RIDE_BELL = 37, 40, 22, 44, 53

# Letter: pitch, softest and loudest velocity. Capitals are accents.
STROKES = {
    "K": (KICK, 90, 118),
    "k": (KICK, 58, 88),
    "f": (KICK, 18, 42),  # feathered
    "S": (SNARE, 95, 120),
    "s": (SNARE, 52, 86),
    "g": (SNARE, 15, 40),  # ghost
    "C": (SIDE_STICK, 80, 110),
    "c": (SIDE_STICK, 48, 78),
    "H": (HI_HAT_EDGE, 68, 112),
    "h": (HI_HAT, 28, 72),
    "O": (OPEN_HI_HAT, 84, 116),
    "o": (OPEN_HI_HAT, 48, 84),
    "p": (HI_HAT_FOOT, 30, 74),
    "R": (RIDE, 68, 108),
    "r": (RIDE, 34, 72),
    "B": (RIDE_BELL, 78, 108),
    "X": (CRASH, 92, 125),
    "T": (HIGH_TOM, 88, 120),
    "t": (HIGH_TOM, 56, 88),
    "M": (MID_TOM, 88, 120),
    "m": (MID_TOM, 56, 88),
    "L": (LOW_TOM, 88, 120),
    "l": (LOW_TOM, 56, 88),
}
PERHAPS = {"?": "g", "+": "k"}
REST, QUARTERS = "-" * STEPS_PER_BAR, "k---" * 4


class Bar(NamedTuple):
    """The lines of the four limbs, 16 letters each."""

    right_hand: str
    left_hand: str
    kick: str
    foot: str


SILENCE = Bar(REST, REST, REST, REST)


class Hit(NamedTuple):
    tick: int
    pitch: int
    velocity: int


@dataclass(frozen=True)
class Style:
    """The lines to choose from; one of several bars comes round again after its last bar."""

    name: str
    bpm: tuple[int, int]
    right_hand: tuple[str, ...]
    left_hand: tuple[str, ...]
    kick: tuple[str, ...]
    foot: str = "----p-------p---"
    swing: float = 1 / 2  # where the second note of a pair falls in the time of both
    swung_steps: int = 2  # steps of a pair: 2 swings sixteenths, 4 eighths


STYLES = (
    Style(
        name="rock",
        bpm=(98, 140),
        right_hand=("H-h-H-h-H-h-H-h-", "H-h-H-h-H-h-H-O-", "R-r-R-r-R-r-R-r-", "O-o-O-o-O-o-O-o-"),
        left_hand=("----S-------S---", "----S--?----S--?", "----S----?--S---"),
        kick=("K-------K-k-----", "K-----k-K-----+-", "K-k-----K-k---+-", "K------kK-k-----"),
    ),
    Style(
        name="punk",
        bpm=(150, 176),
        right_hand=("H-H-H-H-H-H-H-H-", "O-o-O-o-O-o-O-o-", "R-R-R-R-R-R-R-R-", "L-l-L-l-L-l-L-l-"),
        left_hand=("----S-------S---", "----S-------S-s-", "--S---S---S---S-"),
        kick=("K-------K-k-----", "K-k-----K-----k-", "K-----k-K-k-----", "K-k---k-K-k---+-"),
        foot="p---p---p---p---",
    ),
    Style(
        name="funk",
        bpm=(90, 112),
        right_hand=("H-h-H-h-H-h-H-h-", "H-h-H-O-H-h-H-h-", "HhhhHhhhHhhhHhhh", "B-r-B-r-B-r-B-r-"),
        left_hand=("----S--g-g--S--?", "-?--S--g-g-gS--g", "----S--g?g--S-?-", "--?-S--g----S--g"),
        kick=("K-k-------k--k--", "K--k--k---k--+--", "K-k----k--k-----", "K-----k--kk---+-"),
    ),
    Style(
        name="hiphop",
        bpm=(80, 98),
        right_hand=("H-h-H-h-H-h-H-h-", "H-hhH-h-H-hhH-h-", "HhhhHhhhHhhhHhOh"),
        left_hand=("----S-------S---", "----S--?-?--S---", "----S--g----S--?"),
        kick=("K-k----k--k-----", "K------k-kk-----", "K--k------K----+", "K-k-------K--k--"),
        swing=0.58,
    ),
    Style(
        name="jazz/swing",
        bpm=(120, 176),
        right_hand=("r---R-r-r---R-r-", "r-r-R-r-r---R-r-", "r---R---r---R-r-", "R-r-r---R-r-r---"),
        left_hand=(
            "------g-----?---" + "--s-----?-----s-",
            "--?---s-------g-" + "------s---?-----",
            "------------c---",
            "--g-----?-s---?-" + "----?-------s---",
        ),
        kick=("f---f---f---f---", "f---f---f-----k-", "f-----k-f---f---", "f---f---f---f-+-"),
        swing=2 / 3,
        swung_steps=4,
    ),
    Style(
        name="latin/brazilian-bossa",
        bpm=(116, 144),
        right_hand=("h-h-h-h-h-h-h-h-", "H-h-h-h-H-h-h-h-", "r-r-r-r-r-r-r-r-", "R-r-r-r-R-r-r-r-"),
        left_hand=("c-----c-----c-------c-----c-----", "----c-----c-----c-----c-----c---"),
        kick=("k-----k-k-----k-", "k-----f-k-----f-", "k-----k-k-----+-"),
    ),
    Style(
        name="latin/brazilian-samba",
        bpm=(94, 114),
        right_hand=("R-rrR-rrR-rrR-rr", "r-r-R-r-r-r-R-r-", "B-r-BrrBr-B-Br-r"),
        left_hand=("c-c--c-c-c--c-c-", "-c--c-c--c-c-c--", "g-sg-sg-s-gs-g-s"),
        kick=("k--fK--fk--fK--f", "f--kK--kf--kK--k", "k--kK--kk--kK--k"),
        foot="--p---p---p---p-",
    ),
    Style(
        name="blues/shuffle",
        bpm=(94, 132),
        right_hand=("H-h-H-h-H-h-H-h-", "R-r-R-r-R-r-R-r-", "h-h-H-h-h-h-H-O-"),
        left_hand=("----S-------S---", "g-g-S-g-g-g-S-g-", "--?-S-----?-S-g-"),
        kick=("K-------K-----k-", "K---k---K---k---", "K-----k-K-----+-"),
        swing=2 / 3,
        swung_steps=4,
    ),
    Style(
        name="funk/purdieshuffle",
        bpm=(108, 134),
        right_hand=("H-h-H-h-H-h-H-h-", "H-h-h-h-H-h-h-h-", "H-h-H-h-H-h-H-O-", "R-r-R-r-R-r-R-r-"),
        left_hand=("-g---g--Sg---g--", "-g---g--S?---g--", "-g---?--Sg---g--"),
        kick=("K-----k-------k-", "K-------------k-", "K-----k---k---+-", "K-k-----------k-"),
        swing=2 / 3,
        swung_steps=4,
    ),
    Style(
        name="dance/disco",
        bpm=(110, 128),
        right_hand=("h-O-h-O-h-O-h-O-", "--O---O---O---O-", "H-hhH-hhH-hhH-hh", "R-B-R-B-R-B-R-B-"),
        left_hand=("----S-------S---", "----S--?----S---", "----S-------S--s"),
        kick=("K---K---K---K---", "K---K---K---K-k-", "K---K---K--kK---"),
    ),
    Style(
        name="reggae",
        bpm=(68, 84),
        right_hand=("h-H-h-H-h-H-h-H-", "hhHhhhHhhhHhhhHh", "h-H-h-HhhhH-h-O-"),
        left_hand=("----C-------C---", "----C--c----C---", "----C----c--C-c-", "----C-c-----C--c"),
        kick=("----K-------K---", "----K------+K---", "----K--+----K---"),
        swing=0.57,
    ),
    Style(
        name="neworleans/secondline",
        bpm=(92, 116),
        right_hand=(REST, "----H-------H---", "B-------B-------"),
        left_hand=("s-gSg-gsg-SgS-gg", "S-gSg-S-g-SgS-gg", "S-gsg-Sgg-gSg-S-"),
        kick=("K-----k-----K-k-", "K--k--k---k-K---", "K-----K---k-K-+-"),
        swing=0.56,
    ),
)

# Fills by their length in beats: both hands on one line, and in some the kick between them.
STRAIGHT_FILLS = {
    1: ("S-ss", "gssS", "sSml", "S-LL", "MmLl", "kSkS"),
    2: ("ssttmmll", "S-ssT-ml", "SsTtMmLl", "-sS-tTlL", "SttkMllk", "S--T--L-", "sgSgsgSS"),
}
SWUNG_FILLS = {
    1: ("Sss-", "S-l-", "Stl-", "s-S-"),
    2: ("Sss-Ttt-", "S-t-M-l-", "Stl-Stl-", "S-s-Sst-", "Skt-Lkl-", "sgS-tmL-", "--S-M-L-"),
}


@dataclass(frozen=True)
class Drummer:
    """A feel: lags and spreads of time in ms (negative is early), the others between -1 and 1."""

    right_hand: float
    left_hand: float
    kick: float
    foot: float
    jitter: float
    drift: float
    touch: float  # softer or harder than the middle of a stroke's velocities
    additions: float  # the share of ? and + that are played
    rim_shots: float  # the share of snare accents


DRUMMERS = (
    Drummer(-5, 3, -1, 0, jitter=4, drift=6, touch=0.0, additions=0.3, rim_shots=0.0),
    Drummer(-2, 15, 5, 4, jitter=6, drift=9, touch=-0.05, additions=0.7, rim_shots=0.1),
    Drummer(-13, -6, -9, -5, jitter=5, drift=7, touch=0.2, additions=0.2, rim_shots=0.8),
    Drummer(-8, 8, -4, 6, jitter=9, drift=13, touch=-0.2, additions=0.5, rim_shots=0.0),
)
MAX_DEVIATION = 0.16  # steps; keeps a swung stroke on its side of the half step

SPLIT_OF_TAKE = ("train",) * 5 + ("validation", "test")


def write_demo_grooves(output_dir: str | os.PathLike, seed: int = 0) -> Path:
    """Write 84 drum performances in 4/4: 60 train, 12 validation, 12 test, in twelve styles.

    Args:
        output_dir: The folder to make; it gets `info.csv` and `drummer*/session*/*.mid`, type 0,
            480 ticks a quarter, pitches of the Roland TD-11. There is no audio.
        seed: Any integer; the same seed gives the same bytes.

    Returns:
        The folder, as a path.

    Raises:
        FileExistsError: If `output_dir` is a file or a folder that is not empty.
    """
    target = Path(output_dir).resolve()
    if target.exists() and not (target.is_dir() and not any(target.iterdir())):
        raise FileExistsError(f"output_dir {target} exists; expected a new or an empty folder")
    target.parent.mkdir(parents=True, exist_ok=True)
    rng = random.Random(str(seed))
    folder = target.with_name(f".{target.name}.tmp")  # where a process that was killed has left it
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    try:
        rows = [
            _record(folder, take, style, split, rng)
            for take, (style, split) in enumerate(itertools.product(STYLES, SPLIT_OF_TAKE))
        ]
        with open(folder / "info.csv", "w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, rows[0])
            writer.writeheader()
            writer.writerows(rows)
        folder.rename(target)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return Path(output_dir)


def _record(
    folder: Path, take: int, style: Style, split: str, rng: random.Random
) -> dict[str, str | int]:
    """Have a drummer play one performance; write it and return its row of info.csv."""
    index = take % len(DRUMMERS)
    bpm = rng.randint(*style.bpm)
    beat_type = "fill" if take % 5 == 4 else "beat"
    bars = _compose_beat(style, rng) if beat_type == "beat" else _compose_fill(style, rng)
    hits = _play(bars, style, DRUMMERS[index], bpm, rng)

    drummer = f"drummer{index + 1}"
    session = f"{drummer}/session{1 if beat_type == 'beat' else 2}"
    take_id = f"{session}/{take + 1}"
    filename = f"{take_id}_{style.name.replace('/', '-')}_{bpm}_{beat_type}_4-4.mid"
    (folder / session).mkdir(parents=True, exist_ok=True)
    duration = _write_midi(folder / filename, hits, bpm)
    return {
        "drummer": drummer,
        "session": session,
        "id": take_id,
        "style": style.name,
        "bpm": bpm,
        "beat_type": beat_type,
        "time_signature": "4-4",
        "midi_filename": filename,
        "audio_filename": "",
        "duration": f"{duration:.6f}",
        "split": split,
    }


def _compose_beat(style: Style, rng: random.Random) -> list[Bar]:
    """Two sections of four-bar phrases, most of which end in a fill that leads to a crash."""
    num_phrases = rng.randint(2, 4)
    sections = rng.sample(style.right_hand, 2)
    left_hand = rng.choice(style.left_hand)
    kick = "".join(rng.sample(style.kick, 2))
    bars, fill = _compose_entry(style, rng), ""
    for phrase in range(num_phrases):
        right_hand = sections[phrase * 2 // num_phrases]
        # The foot keeps time only on a hi-hat that no stick is playing.
        foot = REST if set(right_hand) & set("HhOo") else style.foot
        lines = (right_hand, left_hand, kick, foot)
        groove = [Bar(*(_turn(line, index) for line in lines)) for index in range(4)]
        if fill:
            groove[0] = _land(groove[0])
        fill = _draw_fill(style, rng.choice((1, 2, 2, 4)), rng) if rng.random() < 0.85 else ""
        groove[-1] = _fill_in(groove[-1], fill, style)
        bars += groove
    return bars + [_land(SILENCE)] if fill and rng.random() < 0.5 else bars


def _compose_entry(style: Style, rng: random.Random) -> list[Bar]:
    """The bars before bar one: mostly none, at times a pickup or silence."""
    chance = rng.random()
    if chance < 0.2:
        return [_fill_in(SILENCE, _draw_fill(style, 1, rng), style)]
    return [SILENCE] * rng.randint(1, 2) if chance < 0.3 else []


def _compose_fill(style: Style, rng: random.Random) -> list[Bar]:
    """One or two bars, and mostly the crash that they lead to."""
    fills = [_draw_fill(style, 4, rng) for _ in range(rng.randint(1, 2))]
    bars = [_fill_in(SILENCE, fill, style) for fill in fills]
    return bars + [_land(SILENCE)] if rng.random() < 0.7 else bars


def _draw_fill(style: Style, beats: int, rng: random.Random) -> str:
    fills = SWUNG_FILLS if style.swung_steps == 4 else STRAIGHT_FILLS
    if beats == 4:
        return "".join(rng.sample(fills[1], 2)) + rng.choice(fills[2])
    return rng.choice(fills[beats])


def _turn(line: str, index: int) -> str:
    """The bar of a line that comes round at this bar of the groove."""
    start = index * STEPS_PER_BAR % len(line)
    return line[start : start + STEPS_PER_BAR]


def _fill_in(bar: Bar, fill: str, style: Style) -> Bar:
    """End the bar in a fill; one without kicks of its own goes over quarter notes."""
    start = STEPS_PER_BAR - len(fill)
    kicks = "".join(letter if letter == "k" else "-" for letter in fill)
    return Bar(
        right_hand=bar.right_hand[:start] + REST[start:],
        left_hand=bar.left_hand[:start] + fill.replace("k", "-"),
        kick=bar.kick[:start] + (kicks if "k" in kicks else QUARTERS[start:]),
        foot=bar.foot[:start] + style.foot[start:],
    )


def _land(bar: Bar) -> Bar:
    """Start the bar with a crash and a kick."""
    return bar._replace(right_hand="X" + bar.right_hand[1:], kick="K" + bar.kick[1:])


def _play(
    bars: list[Bar], style: Style, drummer: Drummer, bpm: int, rng: random.Random
) -> list[Hit]:
    """Turn tablature into hits: swing, the limbs' lags and a slowly drifting, human hand."""
    ms_per_step = 60_000 / bpm / 4
    lags = (drummer.right_hand, drummer.left_hand, drummer.kick, drummer.foot)
    timing, dynamics = _wander(drummer.drift, rng), _wander(0.15, rng)
    parts = ["".join(lines) for lines in zip(*bars, strict=True)]
    hits = []
    for step, strokes in enumerate(zip(*parts, strict=True)):
        late, loud = next(timing), next(dynamics)
        for letter, lag in zip(strokes, lags, strict=True):
            if letter in PERHAPS:
                letter = PERHAPS[letter] if rng.random() < drummer.additions else "-"
            if letter == "-":
                continue
            pitch, softest, loudest = STROKES[letter]
            if letter == "S" and rng.random() < drummer.rim_shots:
                pitch = RIM_SHOT
            deviation = (late + lag + rng.gauss(0, drummer.jitter)) / ms_per_step
            onset = _swing(step, style) + MAX_DEVIATION * math.tanh(deviation / MAX_DEVIATION)
            strength = 0.5 + drummer.touch + loud + rng.gauss(0, 0.15)
            strength = min(max(strength, 0), 1)
            velocity = round(softest + strength * (loudest - softest))
            hits.append(Hit(max(0, round(onset * TICKS_PER_STEP)), pitch, velocity))
    return hits


def _swing(step: int, style: Style) -> float:
    """Where a step of the tablature lies in time, in steps."""
    pair, position = divmod(step, style.swung_steps)
    half = style.swung_steps / 2
    if position <= half:
        share = position / half * style.swing
    else:
        share = style.swing + (position / half - 1) * (1 - style.swing)
    return (pair + share) * style.swung_steps


def _wander(spread: float, rng: random.Random) -> Iterator[float]:
    """A value for each step that drifts around 0, forgetting itself over about two bars."""
    memory = math.exp(-1 / (2 * STEPS_PER_BAR))
    value = rng.gauss(0, spread)
    while True:
        yield value
        value = memory * value + rng.gauss(0, spread * math.sqrt(1 - memory**2))


def _write_midi(path: Path, hits: list[Hit], bpm: int) -> float:
    """Write a file and return its duration in seconds."""
    ticks, pitches, velocities = np.array(sorted(hits)).T
    end_tick = int(ticks[-1]) + NOTE_TICKS
    notes = note_events(ticks, pitches, velocities, DRUM_CHANNEL, NOTE_TICKS, end_tick)
    microseconds = round(60e6 / bpm)
    tracks = {"tempo": tempo_events([(0, microseconds)], [(0, 4, 4)]), "drums": notes}
    path.write_bytes(midi_bytes(tracks, TICKS_PER_BEAT, end_tick))
    return end_tick * microseconds / TICKS_PER_BEAT / 1e6
