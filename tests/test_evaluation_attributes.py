"""Measured effects of attribute vectors, in models where they are known."""

from types import SimpleNamespace

import pytest
import torch
from factories import GIVEN_HITS, NO_EXPRESSION, nine_drum_model, nine_drum_windows, windows_of

from modeling_musicvae.drum_attributes import ATTRIBUTES
from modeling_musicvae.generation_musicvae import MusicVAEDecoderOutput
from musicvae.evaluation.attributes import measure_attribute_vectors, played_attributes

NAMES = list(ATTRIBUTES)


class KickCounter:
    """Its one latent is the number of kicks in a bar, which it plays from the first step on."""

    config = nine_drum_model(bars=1).config

    def __init__(self):
        self.attribute_vectors = torch.zeros(len(ATTRIBUTES), 1)
        self.attribute_vectors[NAMES.index("density")] = 1.0

    def encode(self, piano_roll, timing):
        return SimpleNamespace(mean=(piano_roll[:, :1] > 0).sum(2).float())

    def add_attribute(self, latents, attribute, strength):
        return latents + strength * self.attribute_vectors[NAMES.index(attribute)]

    def conditioning(self, piano_roll, timing):
        return None, None

    def decode(self, latents, temperature, generator, score=None, conditioning=None):
        steps = torch.arange(self.config.num_steps)
        roll = torch.zeros(len(latents), 9, len(steps), dtype=torch.uint8)
        roll[:, 0] = 100 * (steps < latents)
        return MusicVAEDecoderOutput(piano_roll=roll, timing=torch.zeros(roll.shape))


@pytest.mark.parametrize("strength", ["+1", "-1"])
def test_a_perfect_vector_changes_its_attribute_by_one_standard_deviation(strength):
    model = KickCounter()
    windows = model.decode(torch.tensor([[3.0], [5.0], [3.0], [5.0]]), 0, None)
    windows = windows_of(windows.piano_roll)
    changes = measure_attribute_vectors(model, windows, seed=0)[strength]
    assert set(changes) == {"density"}
    assert changes["density"]["density"] == pytest.approx((float(strength),) * 3)


def test_a_vector_that_is_not_fitted_is_left_out():
    model = nine_drum_model()
    model.attribute_vectors.zero_()
    model.attribute_vectors[NAMES.index("syncopation")] = 1.0
    changes = measure_attribute_vectors(model, nine_drum_windows(), seed=0)
    assert [set(changes[strength]) for strength in ("+1", "-1")] == [{"syncopation"}] * 2


@pytest.mark.parametrize(
    ("settings", "names"),
    [
        pytest.param({}, NAMES, id="all"),
        pytest.param(
            NO_EXPRESSION, ["density", "syncopation", "hihat_density", "swing"], id="hits alone"
        ),
        pytest.param(GIVEN_HITS, ["mean_velocity", "swing"], id="conditioned on hits"),
    ],
)
def test_only_attributes_that_the_model_plays_are_measured(settings, names):
    model, windows = nine_drum_model(**settings), nine_drum_windows()
    model.fit_attribute_vectors([(windows.piano_roll, windows.timing)])
    assert played_attributes(model.config) == names
    changes = measure_attribute_vectors(model, windows, seed=0)
    for matrix in changes.values():
        assert {added: list(changed) for added, changed in matrix.items()} == {
            name: names for name in names
        }
