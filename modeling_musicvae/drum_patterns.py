"""Drum patterns: the hits of one step as one number, and back.

The pattern of a step is the sum of 2 ** drum over the drums that are hit.
"""

import torch

# The velocity of a hit whose velocity is not modelled: a firm stroke, short of an accent.
DEFAULT_VELOCITY = 100


def to_hits(piano_roll: torch.Tensor) -> torch.Tensor:
    """piano_roll uint8 (batch, drums, steps) -> hits bool (batch, steps, drums)."""
    return piano_roll.transpose(1, 2) > 0


def to_patterns(hits: torch.Tensor) -> torch.Tensor:
    """hits bool (..., drums) -> patterns int64 (...)."""
    return (hits.long() * _bits(hits.shape[-1], hits.device)).sum(-1)


def from_patterns(patterns: torch.Tensor, num_drums: int) -> torch.Tensor:
    """patterns int64 (...) -> hits bool (..., drums): the inverse of `to_patterns`."""
    return patterns[..., None] & _bits(num_drums, patterns.device) != 0


def _bits(num_drums: int, device: torch.device) -> torch.Tensor:
    return 2 ** torch.arange(num_drums, device=device)  # ONNX has no shift of int64
