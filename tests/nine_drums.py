"""Small models of all nine drums, and windows for them."""

from played_windows import random_windows
from tiny_models import random_model

from modeling_musicvae import MusicVAEModel
from musicvae.evaluation.windows import Windows

# Two bars of eight steps.
SIZES = {"bars": 2, "steps_per_bar": 8, "num_drums": 9}
HITS_ALONE = {"velocity_bins": 0, "timing_bins": 0}
TOLD = {"hits_as_controls": True}


def nine_drum_model(**settings) -> MusicVAEModel:
    return random_model(**SIZES | settings)


def nine_drum_windows(number: int = 6) -> Windows:
    return random_windows(number, SIZES["bars"] * SIZES["steps_per_bar"], SIZES["num_drums"])
