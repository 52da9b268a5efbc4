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
    return (hits.long() << torch.arange(hits.shape[-1], device=hits.device)).sum(-1)


def to_piano_roll(patterns: torch.Tensor, num_drums: int) -> torch.Tensor:
    """patterns int64 (batch, steps) -> piano_roll uint8 (batch, drums, steps)."""
    drums = torch.arange(num_drums, device=patterns.device)
    hits = (patterns[:, None, :] >> drums[:, None]) & 1
    return (hits * DEFAULT_VELOCITY).to(torch.uint8)


def sample_patterns(
    logits: torch.Tensor, temperature: float, uniform: torch.Tensor
) -> torch.Tensor:
    """One pattern from each row of logits, by inverting the cumulative distribution.

    Args:
        logits: float32 (batch, patterns).
        temperature: logits are divided by it; 0 takes the most likely pattern.
        uniform: float32 (batch,), in [0, 1): what decides each draw.

    Returns:
        int64 (batch,).
    """
    if temperature == 0:
        return logits.argmax(-1)
    cumulative = torch.softmax(logits / temperature, -1).cumsum_(-1)
    threshold = uniform[:, None] * cumulative[:, -1:]
    drawn = torch.searchsorted(cumulative, threshold, right=True).squeeze(-1)
    return drawn.clamp_(max=logits.shape[-1] - 1)
