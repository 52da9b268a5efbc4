"""Places of the files that come with the package."""

import os
import sysconfig
from pathlib import Path

PACKAGE = Path(__file__).parent
RECIPES = PACKAGE / "recipes"
RELEASED = PACKAGE / "released"
MUSICVAE_GROOVE_4BAR = RELEASED / "musicvae-groove-4bar"


def card_template() -> Path:
    """model_card.md: in a checkout at its top, in an install among the shared data."""
    checkout = PACKAGE.parent / "model_card.md"
    if checkout.is_file():
        return checkout
    return Path(sysconfig.get_path("data"), "share/musicvae/model_card.md")


def cache_folder() -> Path:
    """Where what was fetched or exported is kept, $XDG_CACHE_HOME/musicvae or ~/.cache/musicvae."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "musicvae")
