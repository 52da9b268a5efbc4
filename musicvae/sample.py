"""New drums of any length."""

import numpy as np
import torch

from modeling_musicvae import MusicVAEModel, spherical_interpolation
from processing.piano_roll import join_windows

# A path from one draw to another has at least as many windows, or neighbours would have little in
# common.
MIN_PATH_WINDOWS = 5


def draw_grooves(
    model: MusicVAEModel,
    num_samples: int,
    bars: int,
    temperature: float,
    attributes: dict[str, float],
    seed: int,
) -> tuple[np.ndarray, np.ndarray]:
    """New drums of any length.

    Each groove wanders from one draw of the model's latents toward another, a step with each of
    its windows: the noise that they are made of goes along the sphere near which it lies. A longer
    groove begins as a shorter one does.

    Args:
        model: one that plays by itself, without controls.
        num_samples: grooves to draw.
        bars: of each of them.
        temperature: see `MusicVAEModel.decode`.
        attributes: what is added to all latents: see `MusicVAEModel.add_attribute`.
        seed: of all that is random.

    Returns:
        piano rolls uint8 and timings float32, (num_samples, drums, bars * steps_per_bar).

    Raises:
        ValueError: `temperature` is out of range, or there is no vector for an attribute.
    """
    generator = torch.Generator().manual_seed(seed)
    shape = (num_samples, model.config.latent_size)
    starts, ends = (torch.randn(shape, generator=generator) for _ in range(2))
    num_windows = -(-bars // model.config.bars)
    num_points = max(num_windows, MIN_PATH_WINDOWS)
    paths = [
        spherical_interpolation(start, end, num_points)
        for start, end in zip(starts, ends, strict=True)
    ]
    windows = []
    for noise in torch.stack(paths, 1)[:num_windows]:
        latents = model.latents_of(noise)
        for attribute, strength in attributes.items():
            latents = model.add_attribute(latents, attribute, strength)
        windows.append(model.decode(latents, temperature, generator))
    rolls, timings = (
        torch.stack([window[name] for window in windows], 1).numpy()
        for name in ("piano_roll", "timing")
    )
    rolls, timings = (
        np.stack([join_windows(groove) for groove in grooves]) for grooves in (rolls, timings)
    )
    num_steps = bars * model.config.steps_per_bar
    return rolls[..., :num_steps], timings[..., :num_steps]
