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
    if name in ("GrooveMIDI", "MidiFolder"):
        from . import groove_midi

        return getattr(groove_midi, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
