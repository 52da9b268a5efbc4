"""MusicVAE: four bars of drums, for the Hugging Face ecosystem.

The public names are imported when they are first used, so that `import musicvae` and the
command line start at once.
"""

from importlib import import_module
from importlib.metadata import version

__version__ = version("musicvae")

_MODULES = {
    "MusicVAEConfig": "modeling_musicvae",
    "MusicVAEModel": "modeling_musicvae",
    "MusicVAEProcessor": "processing",
    "GrooveMIDI": "processing",
    "MidiFolder": "processing",
    "audio": "musicvae.sound",
    "load": "musicvae.drummer",
}

__all__ = ["__version__", *_MODULES]


def __getattr__(name: str):
    if name in _MODULES:
        return getattr(import_module(_MODULES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
