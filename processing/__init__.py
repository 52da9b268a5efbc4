"""MIDI in, piano rolls out, and back, and their sound: the data side of MusicVAE.

`GrooveMIDI` and `MidiFolder` are `datasets` builders; they are imported when first used, so that
the processor alone does not need that library.
"""

from transformers import AutoProcessor

from .processing_musicvae import MusicVAEProcessor
from .sound import render, write_wav
from .soundfont import render_soundfont

MusicVAEProcessor.register_for_auto_class()
AutoProcessor.register("musicvae", MusicVAEProcessor, exist_ok=True)

__all__ = [
    "GrooveMIDI",
    "MidiFolder",
    "MusicVAEProcessor",
    "render",
    "render_soundfont",
    "write_wav",
]


def __getattr__(name: str):
    if name == "GrooveMIDI":
        from .groove_midi import GrooveMIDI

        return GrooveMIDI
    if name == "MidiFolder":
        from .midi_folder import MidiFolder

        return MidiFolder
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
