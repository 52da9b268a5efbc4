"""Distributions and vectors that are fitted to the latents once the weights are final."""

from collections.abc import Iterator

import datasets
import numpy as np
import torch

from modeling_musicvae import MusicVAEModel

from ..data.windows import WindowDataset, main_style, some_windows

NUM_WINDOWS = 4096  # enough for the directions of a few attributes
BATCH_SIZE = 64
# Of a style that the model gets a distribution of, at least and at most.
MIN_STYLE_WINDOWS, MAX_STYLE_WINDOWS = 50, 512


def fit_latents(model: MusicVAEModel, windows: WindowDataset) -> None:
    """Fits the model's attribute vectors, its latent distribution and those of styles.

    No random number of training is used up.

    Args:
        model: in evaluation mode.
        windows: of the training split; up to `NUM_WINDOWS` of them are used, and up to
            `MAX_STYLE_WINDOWS` of each style.
    """
    model.fit_attribute_vectors(batches(windows))
    model.fit_latent_distribution(batches(windows))
    learns_styles = model.config.latent_kernels and not model.config.is_conditioned
    if learns_styles and (styles := windows_by_style(windows)):
        model.fit_style_distributions(style_batches(windows, styles), list(styles))


def batches(windows: WindowDataset) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Piano rolls and timings of windows that are spread evenly."""
    for batch in some_windows(windows, NUM_WINDOWS).iter(BATCH_SIZE):
        yield as_tensors(batch)


def windows_by_style(windows: WindowDataset) -> dict[str, np.ndarray]:
    """For each style with enough windows, in the order of names, the places of some of its windows,
    spread evenly; {} for a stream, and where styles are not known."""
    if not isinstance(windows, datasets.Dataset) or "style" not in windows.column_names:
        return {}
    labels = windows.with_format(None)["style"][:]
    names = np.array([main_style(label) for label in labels])
    places = {str(name): np.flatnonzero(names == name) for name in np.unique(names) if name}
    return {
        name: found[:: -(-len(found) // MAX_STYLE_WINDOWS)]
        for name, found in places.items()
        if len(found) >= MIN_STYLE_WINDOWS
    }


def style_batches(
    windows: WindowDataset, styles: dict[str, np.ndarray]
) -> Iterator[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
    """Piano rolls, timings and the numbers of the styles of their windows."""
    for number, places in enumerate(styles.values()):
        for batch in windows.select(places).iter(BATCH_SIZE):
            piano_roll, timing = as_tensors(batch)
            yield piano_roll, timing, torch.full((len(piano_roll),), number)


def as_tensors(batch: dict[str, np.ndarray]) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.from_numpy(batch["piano_roll"].astype(np.uint8)), torch.from_numpy(batch["timing"])
