"""The latents of windows."""

import torch

from modeling_musicvae import MusicVAEModel

from .windows import Windows

BATCH_SIZE = 256


@torch.no_grad()
def posterior_means(model: MusicVAEModel, windows: Windows) -> torch.Tensor:
    """Where the encoder sees each window: float32 (windows, latent_size)."""
    batches = windows.batches(BATCH_SIZE)
    return torch.cat([model.encode(batch.piano_roll, batch.timing).mean for batch in batches])
