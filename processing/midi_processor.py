"""Drum MIDI as windows of piano roll and timing, and back, with NumPy alone."""

import io
import os
import warnings
from typing import IO, Any

import numpy as np

from .bar_lines import QUARTERS_PER_BAR
from .drum_kit import pitches_of, resolve_pitch_map
from .drum_notes import DrumNotes, check_channel, find_drum_notes
from .drum_song import DrumSong, bpm_of_bars, read_song
from .errors import MidiError, MidiFormatError, PianoRollError
from .midi_file import (
    DEFAULT_BPM,
    DEFAULT_TEMPO,
    MAX_BARS,
    MAX_BYTES,
    MidiContent,
    microseconds_per_quarter,
    read_midi,
)
from .midi_writer import DrumMidi
from .piano_roll import ADJUST_MODES, cut_windows, join_windows
from .regular_files import read_regular_file
from .song_writer import TICKS_PER_QUARTER, drums_in_place, write_song
from .training_windows import TrainingWindows, read_training_windows

# Or an object that writes itself to a binary file, as `pretty_midi.PrettyMIDI` does.
MidiInput = str | os.PathLike | bytes | IO[bytes] | DrumMidi | Any


class MidiProcessor:
    """Reads drum MIDI as windows of piano roll and timing, and writes those as MIDI.

    Args:
        bars: bars in a window.
        steps_per_bar: steps in a bar of 4/4; 16 makes a step a sixteenth, 24 a sixteenth triplet.
        hop_bars: bars from the start of one of its `hopping_windows` to the start of the next; as
            many as there are in a window, if not given.
        pitch_map: which pitches play which drum: a name such as "general_midi", a dictionary, or
            the path of a JSON file, see `resolve_pitch_map`.
        channel: of the drums, 1 to 16; "any" for the notes of all channels; "auto" for channel 10
            or, where that has no note, the only channel that has.
        adjust_mode: what becomes of silence before the music, see `adjust_time`: "none", "bars" or
            "first_onset".

    Raises:
        ValueError: an argument is out of range or unknown.
    """

    def __init__(
        self,
        bars: int = 4,
        steps_per_bar: int = 16,
        hop_bars: int | None = None,
        pitch_map: str | os.PathLike | dict = "general_midi",
        channel: int | str = "auto",
        adjust_mode: str = "none",
        **kwargs,
    ):
        hop_bars = bars if hop_bars is None else hop_bars
        for name, count, most in (
            ("bars", bars, MAX_BARS),
            ("steps_per_bar", steps_per_bar, QUARTERS_PER_BAR * TICKS_PER_QUARTER),
            ("hop_bars", hop_bars, MAX_BARS),
        ):
            if type(count) is not int or not 1 <= count <= most:
                raise ValueError(f"{name}: found {count!r}, expected a whole number, 1 to {most}")
        if adjust_mode not in ADJUST_MODES:
            raise ValueError(f"adjust_mode: found {adjust_mode!r}, expected one of {ADJUST_MODES}")
        check_channel(channel)
        super().__init__(**kwargs)
        self.bars = bars
        self.steps_per_bar = steps_per_bar
        self.hop_bars = hop_bars
        self.pitch_map = resolve_pitch_map(pitch_map)
        self.channel = channel
        self.adjust_mode = adjust_mode

    def read(self, midi: MidiInput, name: str = "midi", bpm: float = DEFAULT_BPM) -> DrumSong:
        """A recording with every bar in its place, and what it takes to write it back.

        What is read otherwise than it stands, or left out, is said in warnings.

        Args:
            midi: a path, a file object, the bytes of a file or a `pretty_midi.PrettyMIDI`.
            name: what messages call a recording that has no path.
            bpm: tempo where the recording names none, in quarters a minute.

        Raises:
            MidiError: the recording cannot be used; the message names it and says why.
            TempoError: `bpm` is out of range.
        """
        name, default_tempo = _name(midi, name), microseconds_per_quarter(bpm)
        try:
            content, notes = self._drum_notes(midi, name, default_tempo)
            pitches = pitches_of(self.pitch_map)
            song = read_song(
                content, notes, pitches, self.bars, self.steps_per_bar, self.adjust_mode, name
            )
        except MidiError as error:
            raise type(error)(f"{name}: {error}") from error
        for remark in song.remarks:
            warnings.warn(f"{name}: {remark.text}", stacklevel=2)
        return song

    def training_windows(self, midi: MidiInput, name: str = "midi") -> TrainingWindows:
        """The windows of a recording for training, every `hop_bars` bars.

        A window holds only bars in 4/4 and at least one hit; a recording that is shorter than a
        window has none.

        Args:
            midi: see `read`.
            name: what messages call a recording that has no path.

        Raises:
            MidiError: the recording cannot be used; the message names it and says why.
        """
        name = _name(midi, name)
        try:
            return read_training_windows(
                *self._drum_notes(midi, name),
                self.bars,
                self.hop_bars,
                self.steps_per_bar,
                self.adjust_mode,
            )
        except MidiError as error:
            raise type(error)(f"{name}: {error}") from error

    def _drum_notes(
        self, midi: MidiInput, name: str, default_tempo: int = DEFAULT_TEMPO
    ) -> tuple[MidiContent, DrumNotes]:
        content = read_midi(_bytes(midi, name), default_tempo)
        return content, find_drum_notes(content, self.channel, pitches_of(self.pitch_map))

    def hopping_windows(self, song: DrumSong) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Piano roll, timing and tempo of windows that start every `hop_bars` bars."""
        if self.hop_bars == self.bars:
            return song.piano_roll, song.timing, song.bpm
        window, hop = (bars * self.steps_per_bar for bars in (self.bars, self.hop_bars))
        num_hops = max(0, -(-(song.num_bars - self.bars) // self.hop_bars))

        def cut(windows: np.ndarray) -> np.ndarray:
            grid = join_windows(windows)[:, : song.num_bars * self.steps_per_bar]
            padding = max(0, window + num_hops * hop - grid.shape[1])
            return cut_windows(np.pad(grid, ((0, 0), (0, padding))), window, hop)

        rolls = cut(song.piano_roll)
        bpm = bpm_of_bars(song.layout, self.hop_bars * np.arange(len(rolls)))
        return rolls, cut(song.timing), bpm

    def decode(
        self,
        piano_roll: np.ndarray,
        timing: np.ndarray | None = None,
        bpm: float | None = None,
        lead_in_bars: int = 0,
        like: DrumSong | None = None,
    ) -> DrumMidi:
        """Drums as a MIDI file of whole bars.

        A new groove is a loop on channel 10: an early hit on the first step is written at the end
        of the last bar, unless a lead-in gives it room. Drums in the place of a song that was read
        have its channel, pitches, tempo map and time signatures, and end where it ends.

        Args:
            piano_roll: uint8 (9, steps), MIDI velocities; an array or a CPU tensor. Windows
                (windows, 9, steps) are played one after another; of as many windows as the song
                has, the padding is cut off again.
            timing: float32 of the same shape, microtiming in steps; on the grid if not given.
            bpm: tempo of a new groove in quarters a minute; 120 if not given.
            lead_in_bars: silent bars before the music.
            like: the song to take the place of.

        Raises:
            PianoRollError: roll or timing has the wrong shape, dtype or range, or is shorter than
                the song.
            TempoError: `bpm` is out of range.
            ValueError: the other arguments do not go together.
        """
        if type(lead_in_bars) is not int or lead_in_bars < 0:
            raise ValueError(f"lead_in_bars: found {lead_in_bars!r}, expected 0 or more")
        pitches = tuple(group[0] for group in pitches_of(self.pitch_map))
        roll, timing, layout = drums_in_place(
            piano_roll, timing, bpm, like, self.steps_per_bar, pitches, lead_in_bars
        )
        name = "piano_roll" if like is None else like.name
        return write_song(roll, timing, layout, self.steps_per_bar, lead_in_bars, name)

    def write(
        self,
        file: str | os.PathLike | IO[bytes],
        piano_roll: np.ndarray,
        timing: np.ndarray | None = None,
        bpm: float | None = None,
        lead_in_bars: int = 0,
        like: DrumSong | None = None,
    ) -> None:
        """Writes drums as a MIDI file, see `decode`."""
        self.decode(piano_roll, timing, bpm, lead_in_bars, like).write(file)

    def batch_decode(
        self,
        piano_rolls: np.ndarray,
        timings: np.ndarray | None = None,
        bpm: float | None = None,
        lead_in_bars: int = 0,
    ) -> list[DrumMidi]:
        """Several piano rolls (rolls, 9, steps) as one new groove each, see `decode`."""
        rolls = np.asarray(piano_rolls)
        if rolls.ndim != 3:
            raise PianoRollError(f"piano_rolls: found {rolls.shape}, expected (rolls, 9, steps)")
        if timings is None:
            timings = np.zeros(rolls.shape, np.float32)
        if len(timings) != len(rolls):
            raise PianoRollError(f"timings: found {len(timings)}, expected {len(rolls)}")
        return [
            self.decode(roll, timing, bpm, lead_in_bars)
            for roll, timing in zip(rolls, np.asarray(timings), strict=True)
        ]


def _name(midi: MidiInput, name: str) -> str:
    if isinstance(midi, str | os.PathLike):
        return os.fspath(midi)
    return str(getattr(midi, "name", name))


def _bytes(midi: MidiInput, name: str) -> bytes:
    """The bytes of a recording, or enough of them to see that they are too many."""
    if isinstance(midi, str | os.PathLike):
        return read_regular_file(midi, MAX_BYTES)
    if hasattr(midi, "read") and not isinstance(midi, io.TextIOBase):
        midi = midi.read(MAX_BYTES + 1)
    elif hasattr(midi, "write") and not hasattr(midi, "read"):
        midi = _written(midi, name)
    if not isinstance(midi, bytes):
        raise TypeError(
            f"{name}: found {type(midi).__name__}, expected a path, a binary file, bytes or a "
            "PrettyMIDI"
        )
    return midi


def _written(midi: Any, name: str) -> bytes:
    """The MIDI file that an object such as a `pretty_midi.PrettyMIDI` writes."""
    file = io.BytesIO()
    try:
        midi.write(file)
    except Exception as error:  # neither pretty_midi nor mido names its errors
        kind = type(midi).__name__
        raise MidiFormatError(f"found a {kind} that cannot be written: {error}") from error
    return file.getvalue()
