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
        "5ce4b80b13ab0f79442083d1a4da202335cd454bf0d354ef2e867caf1358cff7",
    ),
    "musicvae-groove-4bar-humanize": (
        lambda model, generator: model.humanize(score(), generator=generator),
        "d6d34f2ba2ee8543979a27630a2f190a512c0d6edd6bd7f238f66bdf32dead45",
    ),
    "musicvae-groove-4bar-tap": (
        lambda model, generator: model.tap_to_drums(score(), generator=generator),
        "519a0def7f845a401545f05b6d127df0ffe5f1693ba1334fd4a4c3bf5f424d1a",
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
