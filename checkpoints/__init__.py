"""The released models, which come with the package: each is a folder for `from_pretrained`."""

from pathlib import Path

MUSICVAE_GROOVE_4BAR = Path(__file__).parent / "musicvae-groove-4bar"
