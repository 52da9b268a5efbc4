"""The drum hits among the notes of a MIDI file: which channel, which drum, at which tempo."""

from typing import NamedTuple

import numpy as np

from .bar_lines import QUARTERS_PER_BAR
from .counted import counted
from .drum_kit import NUM_PITCHES, Pitches, drum_of_pitch
from .errors import (
    ChannelError,
    MidiFormatError,
    MidiLengthError,
    NoDrumHitsError,
    TempoError,
)
from .midi_file import DRUM_CHANNEL, MAX_BARS, MAX_BPM, MIN_BPM, MidiContent, Notes

NUM_CHANNELS = 16


class Remark(NamedTuple):
    """Something that was read otherwise than it stands, or not at all.

    Attributes:
        kind: the same words for the same kind in every file.
        text: what it is in this file, with counts.
    """

    kind: str
    text: str


class NoteCounts(NamedTuple):
    """How many notes a file has, and what became of them.

    Attributes:
        notes: notes on the channel that was read, those below included.
        unknown_pitches: notes that the pitch map does not know, by pitch.
        cut_off: notes that start and end together with the file.
        merged: notes that share step and drum with a louder one.
        other_channels: notes on other channels, by channel.
    """

    notes: int
    unknown_pitches: dict[int, int]
    cut_off: int
    merged: int
    other_channels: dict[int, int]


class DrumNotes(NamedTuple):
    """The drum hits of a file, in time order.

    Attributes:
        ticks: int64 (hits,), onsets.
        drums: int64 (hits,), indices into `DRUM_NAMES`.
        pitches: int64 (hits,).
        velocities: int64 (hits,), 1 to 127.
        channel: the channel to write to.
        counts: of the notes; none is merged yet.
        remarks: what a user has to know.
    """

    ticks: np.ndarray
    drums: np.ndarray
    pitches: np.ndarray
    velocities: np.ndarray
    channel: int
    counts: NoteCounts
    remarks: tuple[Remark, ...]


def check_channel(channel: int | str) -> None:
    """Raises `ValueError` unless this is a channel, 1 to 16, "auto" or "any"."""
    if channel not in ("auto", "any") and not (
        type(channel) is int and 1 <= channel <= NUM_CHANNELS
    ):
        raise ValueError(f"channel: found {channel!r}, expected 1 to 16, 'auto' or 'any'")


def find_drum_notes(midi: MidiContent, channel: int | str, pitches: Pitches) -> DrumNotes:
    """The drum hits of a file.

    Args:
        midi: the file's content.
        channel: 1 to 16, "any" for the notes of all channels, or "auto" for channel 10 or, where it
            has no note, the only channel that has.
        pitches: the pitches of each drum.

    Raises:
        MidiError: there is no such note, the last one lies beyond `MAX_BARS` bars, or the tempo is
            not within `MIN_BPM` to `MAX_BPM` while drums sound.
    """
    by_channel = _count(midi.notes.channels)
    chosen, remarks = _choose_channels(by_channel, channel)
    notes = _of_channels(midi.notes, chosen)
    _check_notes(notes, midi.ticks_per_quarter)
    drums = drum_of_pitch(pitches)[notes.pitches]
    is_known = drums >= 0
    if not is_known.any():
        raise NoDrumHitsError(
            f"found {counted(len(drums), 'note')} of pitches {_listed(_count(notes.pitches))}, "
            "expected pitches of the pitch map"
        )
    counts = NoteCounts(
        notes=len(drums),
        unknown_pitches=_count(notes.pitches[~is_known]),
        cut_off=len(_of_channels(midi.cut_off, chosen).ticks),
        merged=0,
        other_channels={c: number for c, number in by_channel.items() if c not in chosen},
    )
    ticks = notes.ticks[is_known]
    _check_tempos(midi, ticks)
    return DrumNotes(
        ticks,
        drums[is_known],
        notes.pitches[is_known],
        notes.velocities[is_known],
        chosen[0] if len(chosen) == 1 else DRUM_CHANNEL,
        counts,
        (*remarks, *_remarks(counts)),
    )


def bpm_at(tempos: list[tuple[int, int]], ticks: np.ndarray) -> np.ndarray:
    """float64 (ticks,): the tempo at each tick, in quarters a minute."""
    starts, microseconds = np.array(tempos, np.int64).T
    return 60e6 / microseconds[np.searchsorted(starts, ticks, side="right") - 1]


def merge_remark(num_merged: int, num_hits: int) -> tuple[Remark, ...]:
    """Says that notes were merged, if any was."""
    if not num_merged:
        return ()
    notes = counted(num_hits, "note")
    text = f"{num_merged} of {notes} merged with a louder one on the same step and drum"
    return (Remark("merged notes", text),)


def _count(values: np.ndarray) -> dict[int, int]:
    return dict(zip(*(a.tolist() for a in np.unique(values, return_counts=True)), strict=True))


def _listed(counts: dict[int, int]) -> str:
    """Values and their counts, the most frequent ten."""
    order = sorted(counts, key=lambda value: (-counts[value], value))
    listed = ", ".join(f"{value} ({counts[value]})" for value in order[:10])
    return listed + (f" and {len(order) - 10} more" if len(order) > 10 else "")


def _choose_channels(
    by_channel: dict[int, int], channel: int | str
) -> tuple[list[int], tuple[Remark, ...]]:
    """The channels to read, of those with notes."""
    if not by_channel:
        raise NoDrumHitsError("found no note, expected drum hits")
    if channel == "any":
        return list(by_channel), ()
    wanted = DRUM_CHANNEL if channel == "auto" else channel
    if wanted in by_channel:
        return [wanted], ()
    if channel == "auto" and len(by_channel) == 1:
        (only,) = by_channel
        text = f"found no note on channel {DRUM_CHANNEL}: channel {only}, the only one, is read"
        return [only], (Remark("channel", text),)
    raise ChannelError(
        f"found notes on channels {_listed(by_channel)}, expected some on channel {wanted}: give "
        "the channel of the drums (--channel)"
    )


def _of_channels(notes: Notes, channels: list[int]) -> Notes:
    chosen = np.isin(notes.channels, channels)
    return Notes(*(column[chosen] for column in notes))


def _check_notes(notes: Notes, ticks_per_quarter: int) -> None:
    """Refuses notes that cannot be: of any others, where drums are is in doubt, too."""
    for name, values in (("pitch", notes.pitches), ("velocity", notes.velocities)):
        (damaged,) = np.nonzero(values >= NUM_PITCHES)
        if len(damaged):
            raise MidiFormatError(
                f"damaged MIDI file: found {name} {values[damaged[0]]} at tick "
                f"{notes.ticks[damaged[0]]}, expected 0 to 127"
            )
    if notes.ticks[-1] >= MAX_BARS * QUARTERS_PER_BAR * ticks_per_quarter:
        raise MidiLengthError(f"found a hit after bar {MAX_BARS}, expected at most {MAX_BARS} bars")


def _check_tempos(midi: MidiContent, ticks: np.ndarray) -> None:
    bpms = bpm_at(midi.tempos, ticks)
    (outside,) = np.nonzero((bpms < MIN_BPM) | (bpms > MAX_BPM))
    if len(outside):
        bar = ticks[outside[0]] // (QUARTERS_PER_BAR * midi.ticks_per_quarter) + 1
        raise TempoError(
            f"bar {bar}: found tempo {bpms[outside[0]]:g} bpm, expected {MIN_BPM:g} to {MAX_BPM:g}"
        )


def _remarks(counts: NoteCounts) -> list[Remark]:
    remarks = []
    if unknown := sum(counts.unknown_pitches.values()):
        notes = counted(counts.notes, "note")
        text = f"{unknown} of {notes} left out, of pitches that the pitch map does not know: "
        text += _listed(counts.unknown_pitches)
        remarks.append(Remark("unknown pitches", text))
    if counts.cut_off:
        text = f"{counted(counts.cut_off, 'note')} left out, of no length at the end of the file"
        remarks.append(Remark("cut off notes", text))
    return remarks
