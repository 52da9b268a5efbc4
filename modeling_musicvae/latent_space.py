"""Arithmetic on latents."""

import math
from collections.abc import Iterable

import torch

# Of the kernels of a latent distribution: how far their centers are from the mean of all, compared
# with posterior means, and how wide they are, compared with the one Gaussian. The squares add to 1.
CENTER_SPREAD, KERNEL_WIDTH = math.sqrt(0.75), 0.5
STYLE_KERNELS = 64  # of each style


def spherical_interpolation(
    start: torch.Tensor, end: torch.Tensor, num_points: int
) -> torch.Tensor:
    """Points evenly spaced along the great arc from one latent to another (Shoemake 1985).

    Latents of a Gaussian prior lie near a sphere; a straight line would cut through its empty
    inside. The norm changes evenly from the start's to the end's.

    Args:
        start: float (latent_size,).
        end: float (latent_size,).
        num_points: both ends included; at least 2.

    Returns:
        float (num_points, latent_size).
    """
    if num_points < 2:
        raise ValueError(f"num_points: found {num_points}, expected at least 2")
    fraction = torch.linspace(0, 1, num_points, dtype=start.dtype, device=start.device)[:, None]
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


@torch.no_grad()
def aggregate_gaussian(
    posteriors: Iterable[tuple[torch.Tensor, torch.Tensor]],
) -> tuple[torch.Tensor, torch.Tensor]:
    """The Gaussian that has the mean and the covariance of all posteriors together.

    Drawing latents from a distribution that is fitted when training is over, instead of from the
    prior, is ex-post density estimation (Ghosh, Sajjadi, Vergari, Black, Schölkopf: From
    Variational to Deterministic Autoencoders, 2020, arXiv 1903.12436).

    One pass, with sums in float64 of what is left when the first mean is subtracted.

    Args:
        posteriors: batches of means and standard deviations, each float (batch, latent_size).

    Returns:
        The mean, float32 (latent_size,), and the scale, float32 (latent_size, latent_size), lower
        triangular: the covariance is scale @ scale.T.
    """
    count = 0
    for mean, std in posteriors:
        mean, std = (each.to("cpu", torch.float64) for each in (mean, std))
        if count == 0:
            origin, total, products = mean[0], 0, 0
        rows = mean - origin
        count += len(rows)
        total += rows.sum(0)
        products += rows.T @ rows + (std**2).sum(0).diag()
    if count == 0:
        raise ValueError("posteriors: found none, expected at least one")
    covariance = products / count - total.outer(total) / count**2
    return (origin + total / count).float(), torch.linalg.cholesky(covariance).float()


def kernel_centers(means: torch.Tensor, number: int, origin: torch.Tensor) -> torch.Tensor:
    """The centers of kernels, equal in weight and shape, that latents are drawn around.

    Latents of drums lie in clusters, and one Gaussian covers what is between them too. Centers are
    posterior means, shrunk toward the mean of all: with a kernel as much narrower as the centers
    are shrunk, both together spread as the means do (West: Approximating posterior distributions by
    mixtures, 1993).

    Args:
        means: of posteriors, float (n, latent_size). Kernels are around some that are spread
            evenly; with fewer means than kernels, several kernels are around the same.
        number: of kernels.
        origin: the mean of all posteriors, float (latent_size,).

    Returns:
        float (number, latent_size), relative to the origin.
    """
    places = torch.linspace(0, len(means) - 1, number).round().long()
    return CENTER_SPREAD * (means[places.to(means.device)] - origin)


@torch.no_grad()
def attribute_vectors(pairs: Iterable[tuple[torch.Tensor, torch.Tensor]]) -> torch.Tensor:
    """The direction in latent space in which each attribute grows while the others stay.

    As far as attributes are linear in the latents, adding one vector raises its attribute by one
    standard deviation of the data and leaves the others as they are. The vectors are those of
    the regression of latents on all attributes at once, cov(z, a) cov(a, a)^-1 std(a); a mean
    difference (Roberts et al. 2018) or a regression on one attribute alone would move with it
    what comes along with it in the data: denser drums are softer ones. Attributes that are
    linear in each other share what they have in common.

    One pass, with sums in float64 of what is left when the first pair is subtracted.

    Args:
        pairs: batches of latents, float (batch, latent_size), and the attributes of what they
            stand for, float (batch, num_attributes).

    Returns:
        float32 (num_attributes, latent_size); zero for an attribute that is constant.
    """
    count = 0
    for latents, attributes in pairs:
        rows = torch.cat([latents, attributes], 1).to("cpu", torch.float64)
        if count == 0:
            latent_size, origin = latents.shape[1], rows[0]
            total, products = 0, 0
        rows = rows - origin
        count += len(rows)
        total += rows.sum(0)
        products += rows.T @ rows[:, latent_size:]
    if count == 0:
        raise ValueError("pairs: found none, expected at least one")
    covariance = products / count - total.outer(total[latent_size:]) / count**2
    std = covariance[latent_size:].diag().sqrt()
    per_std = torch.where(std > 0, 1 / std, 0)
    slopes, correlation = (covariance * per_std).split([latent_size, len(std)])
    # The tolerance keeps differences by rounding alone from counting.
    inverse = torch.linalg.pinv(per_std[:, None] * correlation, rtol=1e-6, hermitian=True)
    return (slopes @ inverse).T.float()
