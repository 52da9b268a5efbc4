"""The effect of attribute vectors on decoded drums."""

import numpy as np
import torch

from modeling_musicvae import MusicVAEConfig, MusicVAEModel
from modeling_musicvae.drum_attributes import ATTRIBUTES, measure_attributes
from modeling_musicvae.generation_musicvae import MusicVAEDecoderOutput

from .bootstrap import Estimate, interval
from .latents import posterior_means
from .windows import Windows

ATTRIBUTES_OF_HITS = ("density", "syncopation", "hihat_density")
STRENGTHS = {"+1": 1.0, "-1": -1.0}


def measure_attribute_vectors(
    model: MusicVAEModel, windows: Windows, seed: int
) -> dict[str, dict[str, dict[str, Estimate]]]:
    """How much adding each attribute vector to posterior means changes each attribute.

    Args:
        model: its vectors may be fitted or not.
        windows: of a split.
        seed: of the bootstrap.

    Returns:
        For the strengths "+1" and "-1", for each attribute that was added, for each that was
        measured: the mean change of greedily decoded drums, in standard deviations of the windows.
        Only attributes that the model plays are in it, that have a vector and that differ between
        the windows. A perfect vector changes its own attribute by its strength and no other.
    """
    score, conditioning = model.conditioning(windows.piano_roll, windows.timing)

    def attributes_of(drums: Windows | MusicVAEDecoderOutput) -> dict[str, np.ndarray]:
        values = measure_attributes(drums.piano_roll, drums.timing, model.config.steps_per_bar)
        return dict(zip(ATTRIBUTES, values.double().numpy().T, strict=True))

    def decoded(latents: torch.Tensor) -> dict[str, np.ndarray]:
        return attributes_of(model.decode(latents, 0, None, score, conditioning))

    spread = {name: values.std() for name, values in attributes_of(windows).items()}
    has_vector = dict(zip(ATTRIBUTES, model.attribute_vectors.any(1).tolist(), strict=True))
    names = [
        name for name in played_attributes(model.config) if has_vector[name] and spread[name] > 0
    ]
    means, files = posterior_means(model, windows), windows.file.numpy()
    unchanged = decoded(means)
    changes: dict[str, dict[str, dict[str, Estimate]]] = {}
    for label, strength in STRENGTHS.items():
        changes[label] = {}
        for added in names:
            changed = decoded(model.add_attribute(means, added, strength))
            changes[label][added] = {
                name: interval((changed[name] - unchanged[name]) / spread[name], None, files, seed)
                for name in names
            }
    return changes


def played_attributes(config: MusicVAEConfig) -> list[str]:
    """The attributes whose value the model decides."""
    left_out = set(ATTRIBUTES_OF_HITS) if config.hits_as_controls else set()
    if not config.models_expression:
        left_out.add("mean_velocity")
    return [name for name in ATTRIBUTES if name not in left_out]
