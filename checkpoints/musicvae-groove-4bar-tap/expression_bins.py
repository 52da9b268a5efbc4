"""Expression as classes: the velocity and the timing of a hit as bins of equal width, and back."""

import torch

MAX_VELOCITY = 127


def velocity_to_bin(velocity: torch.Tensor, num_bins: int) -> torch.Tensor:
    """MIDI velocities 1 to 127 -> bins int64, 0 (soft) to num_bins - 1 (loud)."""
    return (velocity.long() - 1) * num_bins // MAX_VELOCITY


def bin_to_velocity(bins: torch.Tensor, num_bins: int) -> torch.Tensor:
    """Bins -> int64, the whole MIDI velocity nearest to the middle of each, which lies in it."""
    return 1 - (num_bins - (2 * bins + 1) * MAX_VELOCITY) // (2 * num_bins)


def timing_to_bin(timing: torch.Tensor, num_bins: int) -> torch.Tensor:
    """Timing in [-0.5, 0.5) steps -> bins int64, 0 (early) to num_bins - 1 (late)."""
    return ((timing + 0.5) * num_bins).long().clamp_(0, num_bins - 1)


def bin_to_timing(bins: torch.Tensor, num_bins: int) -> torch.Tensor:
    """Bins -> float32, the middle of each in steps; 0 for the middle one of an odd number."""
    return (2 * bins + 1 - num_bins).float() / (2 * num_bins)
