"""MusicVAEProcessor: MIDI in, piano rolls out; piano rolls in, MIDI out."""

import io
import os
from collections.abc import Sequence
from typing import IO, Any, NamedTuple

import numpy as np
import pretty_midi
from transformers import BatchFeature, ProcessorMixin

from .drum_kit import PITCH_MAPS
from .errors import (
    MidiError,
    NoDrumHitsError,
    PianoRollError,
    ProcessorConfigError,
    TempoError,
)
from .midi_file import (
    DEFAULT_BPM,
    MAX_BARS,
    MAX_BPM,
    MAX_BYTES,
    MIN_BPM,
    WRITTEN_TICKS_PER_QUARTER,
    pretty_midi_bytes,
    read_drum_hits,
    write_drum_hits,
)
from .piano_roll import (
    ADJUST_MODES,
    QUARTERS_PER_BAR,
    adjust_time,
    check_piano_roll,
    join_windows,
    onset_ticks,
    piano_roll,
    quantize,
    split_sequence,
)

WRITTEN_TICKS_PER_BAR = QUARTERS_PER_BAR * WRITTEN_TICKS_PER_QUARTER

MidiInput = str | os.PathLike | bytes | IO[bytes] | pretty_midi.PrettyMIDI


class Performance(NamedTuple):
    """One whole recording on the grid.

    Attributes:
        piano_roll: uint8 (9, steps), whole bars, MIDI velocities.
        timing: float32 (9, steps), microtiming in steps.
        bpm: tempo in quarters a minute.
    """

    piano_roll: np.ndarray
    timing: np.ndarray
    bpm: float


class MusicVAEProcessor(ProcessorMixin):
    """Turns drum MIDI into windows of piano roll and timing, and those back into MIDI.

    Args:
        bars: bars in a window.
        steps_per_bar: steps in a bar of 4/4; 16 makes a step a sixteenth, 24 a sixteenth triplet.
        hop_bars: bars from the start of one window to the start of the next.
        pitch_map: "general_midi" for most files, "roland_td11" for the Groove MIDI Dataset.
        adjust_mode: what becomes of silence before the music, see `adjust_time`: "bars",
            "first_onset" or "none".

    Raises:
        ValueError: an argument is out of range or unknown.
    """

    def __init__(
        self,
        bars: int = 4,
        steps_per_bar: int = 16,
        hop_bars: int = 1,
        pitch_map: str = "general_midi",
        adjust_mode: str = "bars",
        **kwargs,
    ):
        for name, count, most in (
            ("bars", bars, MAX_BARS),
            ("steps_per_bar", steps_per_bar, WRITTEN_TICKS_PER_BAR),
            ("hop_bars", hop_bars, MAX_BARS),
        ):
            if type(count) is not int or not 1 <= count <= most:
                raise ValueError(f"{name}: found {count!r}, expected a whole number, 1 to {most}")
        for name, choice, choices in (
            ("pitch_map", pitch_map, tuple(PITCH_MAPS)),
            ("adjust_mode", adjust_mode, ADJUST_MODES),
        ):
            if choice not in choices:
                raise ValueError(f"{name}: found {choice!r}, expected one of {choices}")
        super().__init__(**kwargs)
        self.bars = bars
        self.steps_per_bar = steps_per_bar
        self.hop_bars = hop_bars
        self.pitch_map = pitch_map
        self.adjust_mode = adjust_mode

    @classmethod
    def get_processor_dict(
        cls, pretrained_model_name_or_path: str | os.PathLike, **kwargs: Any
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """What `from_pretrained` makes a processor of; transformers would take defaults for it.

        Raises:
            ProcessorConfigError: there is no processor_config.json of this class.
        """
        settings, kwargs = super().get_processor_dict(pretrained_model_name_or_path, **kwargs)
        found = settings.get("processor_class")
        if found != cls.__name__:
            raise ProcessorConfigError(
                f"{pretrained_model_name_or_path}: found "
                + (f"the settings of a {found}" if found else "no processor_config.json")
                + f", expected those of a {cls.__name__}"
            )
        return settings, kwargs

    def __call__(
        self, midi: MidiInput | Sequence[MidiInput], return_tensors: str | None = None
    ) -> BatchFeature:
        """Windows of one recording or of several.

        Args:
            midi: a path, a file object, the bytes of a file, a `pretty_midi.PrettyMIDI`, or a
                list of these.
            return_tensors: "pt" for torch tensors; NumPy arrays by default.

        Returns:
            `piano_roll` uint8 (windows, 9, steps), `timing` float32 (windows, 9, steps), and for
            each window the index of its recording, `file_index` int64 (windows,), the bar in which
            it starts, counted from 0 after `adjust_mode`, `start_bar` int64 (windows,), and its
            tempo, `bpm` float32 (windows,). Where the last window reaches beyond the recording, it
            is padded with silence.

        Raises:
            MidiError: a recording cannot be used; the message names it and says why.
        """
        recordings = list(midi) if isinstance(midi, list | tuple) else [midi]
        if not recordings:
            raise ValueError("midi: found an empty list, expected at least one recording")
        names = ("piano_roll", "timing", "start_bar", "bpm", "file_index")
        columns = {name: [] for name in names}
        for index, recording in enumerate(recordings):
            performance = self._padded(self.read(recording, name=f"midi[{index}]"))
            rolls, timings, start_bars = self.split(performance)
            bpms = np.full(len(rolls), performance.bpm, np.float32)
            file_indices = np.full(len(rolls), index)
            for name, values in zip(
                names, (rolls, timings, start_bars, bpms, file_indices), strict=True
            ):
                columns[name].append(values)
        data = {name: np.concatenate(parts) for name, parts in columns.items()}
        return BatchFeature(data, tensor_type=return_tensors)

    def read(self, midi: MidiInput, name: str = "midi") -> Performance:
        """One whole recording on the grid, after `adjust_mode`.

        Args:
            midi: a path, a file object, the bytes of a file or a `pretty_midi.PrettyMIDI`.
            name: what an error calls a recording that has no path.

        Raises:
            MidiError: the recording cannot be used; the message names it and says why.
        """
        name = _name(midi, name)
        try:
            return self._performance(_bytes(midi, name))
        except MidiError as error:
            raise type(error)(f"{name}: {error}") from error

    def _performance(self, data: bytes) -> Performance:
        hits = read_drum_hits(data)
        drums = _drum_of_pitch(self.pitch_map)[hits.pitches]
        known = drums >= 0
        if not known.any():
            raise NoDrumHitsError(f"found no pitch of the {self.pitch_map} kit on channel 10")
        grid = (hits.ticks_per_quarter, self.steps_per_bar)
        ticks = adjust_time(hits.ticks[known], *grid, self.adjust_mode)
        steps, timing = quantize(ticks, *grid)
        num_steps = (int(steps.max()) // self.steps_per_bar + 1) * self.steps_per_bar
        roll, timing = piano_roll(steps, drums[known], hits.velocities[known], timing, num_steps)
        return Performance(roll, timing, hits.bpm)

    def split(self, performance: Performance) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The windows of a recording, see `split_sequence`; none where it is too short."""
        return split_sequence(
            performance.piano_roll,
            performance.timing,
            self.bars,
            self.steps_per_bar,
            self.hop_bars,
        )

    def _padded(self, performance: Performance) -> Performance:
        """Silence after the recording, so that every bar of it is in a window."""
        window, hop = (bars * self.steps_per_bar for bars in (self.bars, self.hop_bars))
        num_steps = performance.piano_roll.shape[1]
        num_hops = max(0, -(-(num_steps - window) // hop))
        silence = ((0, 0), (0, max(0, window + num_hops * hop - num_steps)))
        return Performance(
            np.pad(performance.piano_roll, silence),
            np.pad(performance.timing, silence),
            performance.bpm,
        )

    def decode(
        self,
        piano_roll: np.ndarray,
        timing: np.ndarray | None = None,
        bpm: float = DEFAULT_BPM,
        lead_in_bars: int = 0,
    ) -> pretty_midi.PrettyMIDI:
        """Drums as MIDI, on the drum channel, 480 ticks a quarter.

        A note is one step long, or shorter if its drum is struck again sooner.

        Args:
            piano_roll: uint8 (9, steps), MIDI velocities; an array or a CPU tensor. Windows
                (windows, 9, steps) are played one after another, see `join_windows`.
            timing: float32 of the same shape, microtiming in steps; on the grid if not given.
            bpm: tempo in quarters a minute.
            lead_in_bars: silent bars before the music. A hit that is early on the first step needs
                one to keep its timing: without it, it is written at 0 s.

        Raises:
            PianoRollError: roll or timing has the wrong shape, dtype or range.
            TempoError: `bpm` is out of range.
        """
        roll = np.asarray(piano_roll)
        timing = np.zeros(roll.shape, np.float32) if timing is None else np.asarray(timing)
        if roll.ndim == 3 and len(roll) and roll.shape == timing.shape:
            roll, timing = join_windows(roll, timing)
        check_piano_roll(roll, timing)
        if not MIN_BPM <= bpm <= MAX_BPM:
            raise TempoError(f"bpm: found {bpm!r}, expected {MIN_BPM:g} to {MAX_BPM:g}")
        if type(lead_in_bars) is not int or lead_in_bars < 0:
            raise ValueError(f"lead_in_bars: found {lead_in_bars!r}, expected 0 or more")
        num_bars = lead_in_bars + -(-roll.shape[1] // self.steps_per_bar)
        if num_bars > MAX_BARS:
            raise PianoRollError(f"piano_roll: found {num_bars} bars, expected at most {MAX_BARS}")
        ticks, drums, velocities = onset_ticks(
            roll, timing, WRITTEN_TICKS_PER_QUARTER, self.steps_per_bar
        )
        ticks = np.maximum(ticks + lead_in_bars * WRITTEN_TICKS_PER_BAR, 0)
        first_pitches = np.array([pitches[0] for pitches in PITCH_MAPS[self.pitch_map]])
        step_ticks = WRITTEN_TICKS_PER_BAR // self.steps_per_bar
        return write_drum_hits(ticks, first_pitches[drums], velocities, step_ticks, bpm)

    def batch_decode(
        self,
        piano_rolls: np.ndarray,
        timings: np.ndarray | None = None,
        bpm: float = DEFAULT_BPM,
        lead_in_bars: int = 0,
    ) -> list[pretty_midi.PrettyMIDI]:
        """Several piano rolls (rolls, 9, steps) as one MIDI each, see `decode`."""
        rolls = np.asarray(piano_rolls)
        if rolls.ndim != 3:
            raise PianoRollError(f"piano_rolls: found {rolls.shape}, expected (rolls, 9, steps)")
        timings = [None] * len(rolls) if timings is None else np.asarray(timings)
        if len(timings) != len(rolls):
            raise PianoRollError(f"timings: found {len(timings)}, expected {len(rolls)}")
        return [
            self.decode(roll, timing, bpm, lead_in_bars)
            for roll, timing in zip(rolls, timings, strict=True)
        ]


def _name(midi: MidiInput, name: str) -> str:
    if isinstance(midi, str | os.PathLike):
        return os.fspath(midi)
    return str(getattr(midi, "name", name))


def _bytes(midi: MidiInput, name: str) -> bytes:
    """The bytes of a recording, or enough of them to see that they are too many."""
    if isinstance(midi, str | os.PathLike):
        with open(midi, "rb") as file:
            return file.read(MAX_BYTES + 1)
    if isinstance(midi, pretty_midi.PrettyMIDI):
        return pretty_midi_bytes(midi)
    is_binary_file = hasattr(midi, "read") and not isinstance(midi, io.TextIOBase)
    data = midi.read(MAX_BYTES + 1) if is_binary_file else midi
    if not isinstance(data, bytes):
        raise TypeError(
            f"{name}: found {type(data).__name__}, expected a path, a binary file, bytes or a "
            "PrettyMIDI"
        )
    return data


def _drum_of_pitch(pitch_map: str) -> np.ndarray:
    """int64 (128,): the drum that each MIDI pitch plays, -1 for none."""
    drum_of_pitch = np.full(128, -1)
    for drum, pitches in enumerate(PITCH_MAPS[pitch_map]):
        drum_of_pitch[list(pitches)] = drum
    return drum_of_pitch
