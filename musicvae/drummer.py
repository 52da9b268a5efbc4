"""A model and its processor, with the model's verbs on MIDI files."""

import importlib.util
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from processing import MidiProcessor, render, render_soundfont, write_wav
from processing.drum_kit import DRUM_NAMES, NUM_PITCHES, pitches_of
from processing.drum_song import DrumSong
from processing.errors import MissingLibraryError
from processing.midi_file import DRUM_CHANNEL, microseconds_per_quarter
from processing.piano_roll import join_windows
from processing.picture import draw_piano_rolls

from .exporting import exported_folder
from .finding import find_model
from .onnx_model import OnnxModel, read_description
from .paths import cache_folder
from .random_numbers import SeededDraws
from .tasks import RELEASES, SAMPLE_BPM, SAMPLE_TEMPERATURE, TAP_TEMPERATURE

if TYPE_CHECKING:
    from modeling_musicvae import MusicVAEModel

BACKENDS = {"torch": "torch", "onnx": "onnxruntime"}  # and the library that each needs
READING = ("pitch_map", "channel", "adjust_mode")  # arguments of a processor that a user may set
TORCH_ALTERNATIVE = ', or pip install -e ".[onnx]" and choose the backend onnx (--backend onnx)'

Midi = str | os.PathLike | DrumSong


@dataclass(frozen=True, eq=False)
class Drums:
    """Drums that a model made.

    Attributes:
        piano_roll: uint8 (9, steps), MIDI velocities.
        timing: float32 (9, steps), microtiming in steps.
        processor: writes them.
        bpm: tempo of a new groove in quarters a minute.
        song: the song whose place they take, if they are made of one.
    """

    piano_roll: np.ndarray
    timing: np.ndarray
    processor: MidiProcessor
    bpm: float | None = None
    song: DrumSong | None = None

    @property
    def num_bars(self) -> int:
        return self.piano_roll.shape[1] // self.processor.steps_per_bar

    @property
    def num_hits(self) -> int:
        return int(np.count_nonzero(self.piano_roll))

    def write(self, path: str | os.PathLike) -> None:
        """Writes a MIDI file, replacing it where it exists."""
        self.processor.write(path, self.piano_roll, self.timing, self.bpm, like=self.song)

    def write_wav(
        self, path: str | os.PathLike, soundfont: str | os.PathLike | None = None
    ) -> None:
        """Writes a WAV file, on the kit of a SoundFont or on a synthesised one.

        It ends when the last hit has died away: as a rule after the end of the MIDI file.
        """
        drums = self.piano_roll, self.timing, self.bpm, self.processor.steps_per_bar, self.song
        write_wav(
            path, render(*drums) if soundfont is None else render_soundfont(soundfont, *drums)
        )

    def draw(self, path: str | os.PathLike, title: str = "") -> None:
        """Draws a picture."""
        grids = self.piano_roll[None], self.timing[None]
        draw_piano_rolls(*grids, Path(path), [title], self.processor.steps_per_bar)


class TorchBackend:
    """Runs the verbs of a `MusicVAEModel` on NumPy arrays.

    Attributes:
        model: in evaluation mode.
        is_conditioned: whether it needs drums to make drums.
    """

    def __init__(self, model):
        self.model = model
        self.is_conditioned = model.config.is_conditioned

    @classmethod
    def load(cls, place: str | os.PathLike, device: str) -> "TorchBackend":
        """The model of a folder or of a repository on the Hub."""
        from modeling_musicvae import MusicVAEModel

        return cls(MusicVAEModel.from_pretrained(place).eval().to(usable_device(device)))

    def run(self, verb: str, *arguments, seed: int, **options) -> tuple[np.ndarray, np.ndarray]:
        """Calls a method of the model.

        Args:
            verb: the method's name.
            arguments: of the method; arrays become tensors.
            seed: of all that is random, drawn as `OnnxModel` draws it.
            options: of the method.

        Returns:
            piano_roll uint8 and timing float32, (batch, 9, steps).
        """
        import torch

        def tensor(value):
            if not isinstance(value, np.ndarray):
                return value
            return torch.from_numpy(np.ascontiguousarray(value)).to(self.model.device)

        first_window = 0
        if verb == "continue_drums":
            first_window = arguments[0].shape[-1] // self.model.config.num_steps
        elif verb != "sample":
            options["consecutive"] = True  # the windows are those of one song
        draws = SeededDraws(seed, verb != "sample", first_window)
        options = {name: tensor(value) for name, value in options.items()}
        drums = getattr(self.model, verb)(*map(tensor, arguments), generator=draws, **options)
        return drums.piano_roll.cpu().numpy(), drums.timing.cpu().numpy()


class Drummer:
    """A model and its processor, with the model's verbs on MIDI files.

        drummer = musicvae.load("humanize")
        drummer.humanize("my.mid").write("humanized.mid")

    A file is given by its path, or as what `processor.read` returns. Every bar keeps its place, and
    silent windows stay silent. The same seed gives the same drums. Temperature and other options
    are those of the model's methods of the same names.

    Attributes:
        backend: runs the model.
        processor: reads and writes.
    """

    def __init__(self, backend: "TorchBackend | OnnxBackend", processor: MidiProcessor):
        self.backend = backend
        self.processor = processor

    @property
    def model(self) -> "MusicVAEModel | OnnxModel":
        """The model itself, whose verbs are on tensors."""
        return self.backend.model

    def sample(
        self,
        num_samples: int = 1,
        bars: int | None = None,
        temperature: float = SAMPLE_TEMPERATURE,
        seed: int = 0,
        attributes: Mapping[str, float] | None = None,
        style: str | None = None,
        bpm: float = SAMPLE_BPM,
    ) -> list[Drums]:
        """New grooves, the first of them of the seed, the others of those that follow it.

        Raises:
            ValueError: the model is conditioned on drums, or an argument is out of range.
        """
        microseconds_per_quarter(bpm)
        if self.backend.is_conditioned:
            raise ValueError(
                "model: found one that is conditioned on drums, expected an unconditional one, as "
                f"the recipe {RELEASES['sample'].recipe} trains it"
            )
        rolls, timings = self.backend.run(
            "sample",
            num_samples,
            temperature,
            bars=bars,
            attributes=attributes,
            style=style,
            seed=seed,
        )
        return [
            Drums(roll, timing, self.processor, bpm)
            for roll, timing in zip(rolls, timings, strict=True)
        ]

    def reconstruct(
        self,
        midi: Midi,
        temperature: float = 1.0,
        seed: int = 0,
        attributes: Mapping[str, float] | None = None,
    ) -> Drums:
        """Drums as the model understands them, with more or less of some attributes."""
        song = self._song(midi)
        drums = self.backend.run(
            "reconstruct",
            song.piano_roll,
            song.timing,
            temperature,
            attributes=attributes,
            seed=seed,
        )
        return self._in_place(song, *_silenced(song, *drums))

    def humanize(
        self, midi: Midi, temperature: float = 1.0, seed: int = 0, strength: float = 1.0
    ) -> Drums:
        """All hits, with the velocity and timing of a drummer.

        Args:
            strength: 0 leaves velocity and timing as they are, 1 takes those of the model, and what
                lies between is a blend.
        """
        song = self._song(midi)
        drums = self.backend.run("humanize", song.piano_roll, temperature, seed=seed)
        return self._in_place(song, *_blended(song, *drums, strength))

    def tap_to_drums(
        self, midi: Midi, temperature: float = TAP_TEMPERATURE, seed: int = 0
    ) -> Drums:
        """Drums for a tapped rhythm, on whichever pitches it was tapped."""
        if not isinstance(midi, DrumSong):
            midi = reader_for("tap_to_drums", self.processor).read(midi)
        song = _with_kit_of(midi, self.processor)
        drums = self.backend.run(
            "tap_to_drums", song.piano_roll, song.timing, temperature, seed=seed
        )
        return self._in_place(song, *_silenced(song, *drums))

    def add_drums(self, midi: Midi, temperature: float = 1.0, seed: int = 0) -> Drums:
        """The drums as they are, and those that the model adds."""
        song = self._song(midi)
        drums = self.backend.run("add_drums", song.piano_roll, song.timing, temperature, seed=seed)
        return self._in_place(song, *_silenced(song, *drums))

    def transfer_groove(
        self,
        midi: Midi,
        groove: Midi,
        temperature: float = 1.0,
        seed: int = 0,
        strength: float = 1.0,
    ) -> Drums:
        """All hits of a file, with the feel of another, whose windows are repeated.

        Args:
            midi: gives the hits.
            groove: gives the feel.
            strength: see `humanize`.
        """
        song, groove = self._song(midi), self._song(groove)
        sounding = np.flatnonzero(groove.piano_roll.any((1, 2)))
        windows = np.resize(sounding, len(song.piano_roll))
        drums = self.backend.run(
            "transfer_groove",
            song.piano_roll,
            groove.piano_roll[windows],
            groove.timing[windows],
            temperature,
            seed=seed,
        )
        return self._in_place(song, *_blended(song, *drums, strength))

    def interpolate(
        self,
        start: Midi,
        end: Midi,
        num_points: int = 4,
        temperature: float = 1.0,
        seed: int = 0,
    ) -> Drums:
        """A new groove of several windows, from the first that sounds of one file to another's."""
        ends, bpm = [], None
        for song in map(self._song, (start, end)):
            window = np.flatnonzero(song.piano_roll.any((1, 2)))[0]
            ends.append((song.piano_roll[window], song.timing[window]))
            bpm = bpm or float(song.bpm[window])
        (start_roll, start_timing), (end_roll, end_timing) = ends
        rolls, timings = self.backend.run(
            "interpolate",
            start_roll,
            end_roll,
            num_points,
            temperature,
            start_timing=start_timing,
            end_timing=end_timing,
            seed=seed,
        )
        return Drums(join_windows(rolls), join_windows(timings), self.processor, bpm)

    def continue_drums(
        self, midi: Midi, bars: int | None = None, temperature: float = 1.0, seed: int = 0
    ) -> Drums:
        """The drums as they are, and new bars that follow them."""
        song = self._song(midi)
        num_steps = song.num_bars * self.processor.steps_per_bar
        given = (join_windows(grid)[None, :, :num_steps] for grid in (song.piano_roll, song.timing))
        rolls, timings = self.backend.run("continue_drums", *given, bars, temperature, seed=seed)
        return Drums(rolls[0], timings[0], self.processor, song=song)

    def _song(self, midi: Midi) -> DrumSong:
        return midi if isinstance(midi, DrumSong) else self.processor.read(midi)

    def _in_place(self, song: DrumSong, rolls: np.ndarray, timings: np.ndarray) -> Drums:
        num_steps = song.num_bars * self.processor.steps_per_bar
        roll, timing = (join_windows(windows)[:, :num_steps] for windows in (rolls, timings))
        return Drums(roll, timing, self.processor, song=song)


class OnnxBackend:
    """Runs the verbs of an exported model with onnxruntime, as `TorchBackend` does with torch."""

    def __init__(self, model: OnnxModel):
        self.model = model
        self.is_conditioned = model.description["task"] != "groove"

    def run(self, verb: str, *arguments, seed: int, **options) -> tuple[np.ndarray, np.ndarray]:
        """See `TorchBackend.run`."""
        drums = getattr(self.model, verb)(*arguments, seed=seed, **options)
        return drums.piano_roll, drums.timing


def load(
    name: str | os.PathLike = "sample",
    device: str = "cpu",
    backend: str = "torch",
    **reading: Any,
) -> Drummer:
    """A model, ready for the verbs.

    Args:
        name: sample, humanize, tap or add, for the released model of this verb; a model's folder;
            or its name on the Hub.
        device: where torch runs the model.
        backend: "torch", or "onnx", which runs exported models with onnxruntime; another model is
            exported into the user's cache first, which takes torch once.
        reading: how files are read instead of as the model's processor says: `pitch_map`,
            `channel` or `adjust_mode`, see `MidiProcessor`.

    Raises:
        OSError: there is no such model.
        ValueError: the model is damaged, or there is no such device or backend.
        MissingLibraryError: the backend's library is not installed.
    """
    check_backend(backend)
    place = find_model(name)
    if backend == "torch":
        return Drummer(TorchBackend.load(place, device), load_processor(place, **reading))
    model = OnnxModel(exported_folder(place, cache_folder()))
    return Drummer(OnnxBackend(model), exported_processor(model.description, reading))


def check_backend(name: str) -> None:
    """Raises an error unless a backend is known and its library installed, see `load`."""
    if name not in BACKENDS:
        raise ValueError(f"backend: found {name!r}, expected 'torch' or 'onnx'")
    library = BACKENDS[name]
    if importlib.util.find_spec(library) is None:
        raise MissingLibraryError(
            f'{library}: found none, expected it for the backend {name}: pip install -e ".[{name}]"'
            + TORCH_ALTERNATIVE * (name == "torch")
        )


def load_processor(
    name: str | os.PathLike, backend: str = "torch", **reading: Any
) -> MidiProcessor:
    """The processor of a model, see `load`."""
    check_backend(backend)
    if unknown := sorted(set(reading) - set(READING)):  # which from_pretrained would ignore
        raise TypeError(f"load: found {', '.join(unknown)}, expected {', '.join(READING)} or none")
    place = find_model(name)
    if backend == "onnx":
        folder = exported_folder(place, cache_folder())
        return exported_processor(read_description(folder), reading)
    from processing import MusicVAEProcessor

    return MusicVAEProcessor.from_pretrained(place, **reading)


def exported_processor(description: dict[str, Any], reading: dict[str, Any]) -> MidiProcessor:
    config, reading = description["config"], {"pitch_map": description["pitch_map"]} | reading
    return MidiProcessor(bars=config["bars"], steps_per_bar=config["steps_per_bar"], **reading)


def usable_device(name: str):
    """The `torch.device` of this name.

    Raises:
        ValueError: there is none on this machine.
    """
    import torch

    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise ValueError(f"device: found {name}, expected one of this machine: {error}") from error
    return device


def reader_for(verb: str, processor: MidiProcessor) -> MidiProcessor:
    """The processor that reads files for a verb; for a tap it takes every pitch and, unless one is
    chosen, every channel."""
    if verb != "tap_to_drums":
        return processor
    pitch_map = dict(zip(DRUM_NAMES, map(list, pitches_of(processor.pitch_map)), strict=True))
    known = {pitch for pitches in pitch_map.values() for pitch in pitches}
    pitch_map[DRUM_NAMES[0]] += [pitch for pitch in range(NUM_PITCHES) if pitch not in known]
    return MidiProcessor(
        bars=processor.bars,
        steps_per_bar=processor.steps_per_bar,
        pitch_map=pitch_map,
        channel="any" if processor.channel == "auto" else processor.channel,
        adjust_mode=processor.adjust_mode,
    )


def _with_kit_of(song: DrumSong, processor: MidiProcessor) -> DrumSong:
    """A song to be written with the pitches of a processor, on its channel or on the drums'."""
    pitches = tuple(group[0] for group in pitches_of(processor.pitch_map))
    channel = processor.channel if isinstance(processor.channel, int) else DRUM_CHANNEL
    return replace(song, layout=song.layout._replace(pitches=pitches, channel=channel))


def _silenced(
    song: DrumSong, rolls: np.ndarray, timings: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Windows, silent where those of a song are."""
    sounding = song.piano_roll.any((1, 2), keepdims=True)
    return np.where(sounding, rolls, np.uint8(0)), np.where(sounding, timings, np.float32(0))


def _blended(
    song: DrumSong, rolls: np.ndarray, timings: np.ndarray, strength: float
) -> tuple[np.ndarray, np.ndarray]:
    """The hits of a song, with velocity and timing between its own and those of a model.

    Raises:
        ValueError: `strength` is out of range.
    """
    if not 0 <= strength <= 1:
        raise ValueError(f"strength: found {strength}, expected 0 to 1")
    # In float64, so that no rounding takes a timing out of its range.
    velocities, timings = (
        (1 - strength) * own.astype(np.float64) + strength * made
        for own, made in ((song.piano_roll, rolls), (song.timing, timings))
    )
    return np.rint(velocities).astype(np.uint8), timings.astype(np.float32)
