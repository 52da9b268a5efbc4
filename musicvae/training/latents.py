"""What is fitted to the latents of the training windows, once the weights are final."""

from collections.abc import Iterator

import numpy as np
import torch

from modeling_musicvae import MusicVAEModel

from ..data.windows import WindowDataset, some_windows

NUM_WINDOWS = 4096  # enough for the directions of a few attributes
BATCH_SIZE = 64


def fit_latents(model: MusicVAEModel, windows: WindowDataset) -> None:
    """Fits the model's attribute vectors and its latent distribution.

    No random number of training is used up.

    Args:
        model: in evaluation mode.
        windows: of the training split; up to `NUM_WINDOWS` of them are used.
    """
    model.fit_attribute_vectors(batches(windows))
    model.fit_latent_distribution(batches(windows))


def batches(windows: WindowDataset) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Piano rolls and timings of windows that are spread evenly."""
    for batch in some_windows(windows, NUM_WINDOWS).iter(BATCH_SIZE):
        yield (
            torch.from_numpy(batch["piano_roll"].astype(np.uint8)),
            torch.from_numpy(batch["timing"]),
        )
