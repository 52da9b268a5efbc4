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
        "0e66126971b1db04c14b7b79ec62a9aacc6c8d17e8c5fd79920b6545a8d38979",
    ),
    "musicvae-groove-4bar-humanize": (
        lambda model, generator: model.humanize(score(), generator=generator),
        "20a52544baa3315ad37902e5e96fe362e6c48100f39fa1a37b7cf8c76e855e2f",
    ),
    "musicvae-groove-4bar-tap": (
        lambda model, generator: model.tap_to_drums(score(), generator=generator),
        "8ea0fe1de829d39238e2952b9b40b8aedb20b991f4a407572c7c4602f5e16bdd",
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
