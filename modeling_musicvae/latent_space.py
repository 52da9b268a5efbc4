"""Arithmetic on latents."""

import torch


def spherical_interpolation(start: torch.Tensor, end: torch.Tensor, num_steps: int) -> torch.Tensor:
    """Points evenly spaced along the great arc from one latent to another (Shoemake 1985).

    Latents of a Gaussian prior lie near a sphere; a straight line would cut through its empty
    inside. The norm changes evenly from the start's to the end's.

    Args:
        start: float (latent_size,).
        end: float (latent_size,).
        num_steps: points, both ends included; at least 2.

    Returns:
        float (num_steps, latent_size).
    """
    if num_steps < 2:
        raise ValueError(f"num_steps: found {num_steps}, expected at least 2")
    fraction = torch.linspace(0, 1, num_steps, dtype=start.dtype, device=start.device)[:, None]
    norms = torch.lerp(start.norm(), end.norm(), fraction)
    start, end = (torch.nn.functional.normalize(latent, dim=0) for latent in (start, end))
    angle = torch.arccos((start @ end).clamp(-1, 1))
    if angle.sin() < 1e-4:  # (nearly) parallel: the arc is a line, or no arc is shorter than others
        return norms * torch.lerp(start, end, fraction)
    return (
        norms
        * (torch.sin((1 - fraction) * angle) * start + torch.sin(fraction * angle) * end)
        / angle.sin()
    )
