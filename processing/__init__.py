"""MIDI in, piano rolls out, and back, and their sound: the data side of MusicVAE.

What needs another library than NumPy is imported when it is first used: `MusicVAEProcessor` needs
transformers, the `datasets` builders `GrooveMIDI` and `MidiFolder` need that library.
"""

from .midi_processor import MidiProcessor
from .sound import render, write_wav
from .soundfont import render_soundfont

__all__ = [
    "GrooveMIDI",
    "MidiFolder",
    "MidiProcessor",
    "MusicVAEProcessor",
    "render",
    "render_soundfont",
    "write_wav",
]


def __getattr__(name: str):
    if name == "MusicVAEProcessor":
        from transformers import AutoProcessor

        from .processing_musicvae import MusicVAEProcessor

        MusicVAEProcessor.register_for_auto_class()
        AutoProcessor.register("musicvae", MusicVAEProcessor, exist_ok=True)
        return MusicVAEProcessor
    if name == "GrooveMIDI":
        from .groove_midi import GrooveMIDI

        return GrooveMIDI
    if name == "MidiFolder":
        from .midi_folder import MidiFolder

        return MidiFolder
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
