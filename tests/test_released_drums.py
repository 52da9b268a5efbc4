"""Released models make the drums that they made when they were released, bit for bit."""

import hashlib

import pytest
import torch

from modeling_musicvae import MusicVAEModel
from modeling_musicvae.generation_musicvae import MusicVAEDecoderOutput
from musicvae.paths import RELEASED


def score() -> torch.Tensor:
    """Two windows: kick and snare, hi-hats, and a few hits of other drums."""
    piano_roll = torch.zeros(2, 9, 64, dtype=torch.uint8)
    piano_roll[:, 0, ::8] = 100
    piano_roll[:, 1, 4::8] = 90
    piano_roll[:, 2, ::2] = 70
    piano_roll[1, 8, ::4] = 80
    piano_roll[0, 3, 14::16] = 60
    return piano_roll


MAKERS = {
    "musicvae-groove-4bar": (
        lambda model, generator: model.sample(4, generator=generator),
        "23c15c5039192b4638501d0f0d539e16715462bb377052b7fe337e724217c30b",
    ),
    "musicvae-groove-4bar-humanize": (
        lambda model, generator: model.humanize(score(), generator=generator),
        "20a52544baa3315ad37902e5e96fe362e6c48100f39fa1a37b7cf8c76e855e2f",
    ),
    "musicvae-groove-4bar-tap": (
        lambda model, generator: model.tap_to_drums(score(), generator=generator),
        "bdc4da8664f9dd1022a36c1e2b90dd1c1e8a125db5c5a97fb82694740e24eeee",
    ),
    "musicvae-groove-4bar-add-hihat": (
        lambda model, generator: model.add_drums(score(), generator=generator),
        "d9cf42d660cdeb6ec782b046ffee6ffee3c921fb82376f03e53d8c388fc765e9",
    ),
}


def digest(drums: MusicVAEDecoderOutput) -> str:
    parts = (drums.piano_roll, drums.timing)
    return hashlib.sha256(b"".join(part.numpy().tobytes() for part in parts)).hexdigest()


@pytest.mark.usefixtures("one_cpu_thread")
@pytest.mark.parametrize("name", MAKERS)
def test_a_released_model_makes_the_same_drums_for_the_same_seed(name):
    make, expected = MAKERS[name]
    model = MusicVAEModel.from_pretrained(RELEASED / name)
    assert digest(make(model, torch.Generator().manual_seed(0))) == expected
