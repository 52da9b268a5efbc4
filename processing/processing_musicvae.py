"""MusicVAEProcessor: drum MIDI in, tensors for the model out, and back."""

import json
import os
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
from transformers import BatchFeature, ProcessorMixin
from transformers.utils import cached_file

from .drum_kit import PITCH_MAPS
from .errors import PitchMapError, ProcessorConfigError
from .midi_processor import MidiInput, MidiProcessor

CONFIG = "processor_config.json"
MAX_CONFIG_BYTES = 1 << 20
# The arguments of `from_pretrained` that say where the files are.
PLACE_ARGUMENTS = (
    "cache_dir",
    "force_download",
    "local_files_only",
    "proxies",
    "revision",
    "subfolder",
    "token",
)
SETTINGS = ("bars", "steps_per_bar", "hop_bars", "pitch_map", "channel", "adjust_mode")


class MusicVAEProcessor(MidiProcessor, ProcessorMixin):
    """Turns drum MIDI into windows of piano roll and timing, and those back into MIDI.

        song = processor.read("my.mid")
        drums = model.humanize(song.piano_roll, song.timing)
        processor.write("humanized.mid", drums.piano_roll, drums.timing, like=song)

    It is saved and loaded as any processor of transformers, and returns tensors. Its arguments are
    those of `MidiProcessor`.
    """

    # The Trainer of transformers asks every processor for the special tokens of its tokenizer.
    eos_token_id = bos_token_id = pad_token_id = None

    @property
    def tokenizer(self) -> "MusicVAEProcessor":
        """Itself, without special tokens: there is no tokenizer."""
        return self

    @classmethod
    def get_processor_dict(
        cls, pretrained_model_name_or_path: str | os.PathLike, **kwargs: Any
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """The settings for `from_pretrained`, which would take defaults for missing ones.

        Raises:
            ProcessorConfigError: there is no processor_config.json of this class, or it has
                invalid settings. A pitch map that it names is never a file: it may be a stranger's.
        """
        cls._check_size(pretrained_model_name_or_path, **kwargs)
        try:
            settings, unused = super().get_processor_dict(pretrained_model_name_or_path, **kwargs)
            found = settings.get("processor_class")
        except (UnicodeError, AttributeError, TypeError, RecursionError, OSError) as error:
            if isinstance(error, OSError) and not isinstance(
                error.__context__, json.JSONDecodeError
            ):
                raise
            raise ProcessorConfigError(
                f"{pretrained_model_name_or_path}: found a processor_config.json that is no JSON "
                f"object in UTF-8, expected the settings of a {cls.__name__}"
            ) from error
        if found != cls.__name__:
            raise ProcessorConfigError(
                f"{pretrained_model_name_or_path}: found "
                + (f"the settings of a {found!s:.80}" if found else "no processor_config.json")
                + f", expected those of a {cls.__name__}"
            )
        if "pitch_map" not in settings and "pitch_map" not in kwargs:
            warnings.warn(
                f"{pretrained_model_name_or_path}: processor_config.json has no pitch_map: files "
                "are read as general_midi",
                stacklevel=3,
            )
        try:
            pitch_map = settings.get("pitch_map")
            if isinstance(pitch_map, str) and pitch_map not in PITCH_MAPS:
                raise PitchMapError(
                    f"pitch_map: found {pitch_map!r:.80}, expected one of {tuple(PITCH_MAPS)}, or "
                    "the pitches of each drum"
                )
            cls(**{name: settings[name] for name in SETTINGS if name in settings})
        except (TypeError, ValueError) as error:
            raise ProcessorConfigError(
                f"{pretrained_model_name_or_path}: processor_config.json: {error!s:.400}"
            ) from error
        return settings, unused

    @staticmethod
    def _check_size(place: str | os.PathLike, **kwargs: Any) -> None:
        """Refuses a processor_config.json that is too long, before it is read."""
        where = {name: kwargs[name] for name in PLACE_ARGUMENTS if name in kwargs}
        path = cached_file(place, CONFIG, _raise_exceptions_for_missing_entries=False, **where)
        if path is not None and os.path.getsize(path) > MAX_CONFIG_BYTES:
            raise ProcessorConfigError(
                f"{place}: found a {CONFIG} of {os.path.getsize(path)} bytes, expected at most "
                f"{MAX_CONFIG_BYTES}"
            )

    def __call__(
        self, midi: MidiInput | Sequence[MidiInput], return_tensors: str | None = None
    ) -> BatchFeature:
        """The windows of one recording or of several, as the model takes them.

        Args:
            midi: a path, a file object, the bytes of a file, a `pretty_midi.PrettyMIDI`, or a
                list of these.
            return_tensors: "pt" for torch tensors; NumPy arrays by default.

        Returns:
            `piano_roll` uint8 (windows, 9, steps), `timing` float32 (windows, 9, steps) and the
            tempo of each window, `bpm` float32 (windows,). Every bar is in a window, and silence
            pads the last one of a recording.

        Raises:
            MidiError: a recording cannot be used; the message names it and says why.
        """
        recordings = list(midi) if isinstance(midi, list | tuple) else [midi]
        if not recordings:
            raise ValueError("midi: found an empty list, expected at least one recording")
        songs = [self.read(midi, f"midi[{index}]") for index, midi in enumerate(recordings)]
        windows = [self.hopping_windows(song) for song in songs]
        names = ("piano_roll", "timing", "bpm")
        data = {
            name: np.concatenate(columns)
            for name, columns in zip(names, zip(*windows, strict=True), strict=True)
        }
        return BatchFeature(data, tensor_type=return_tensors)
