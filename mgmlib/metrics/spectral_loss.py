"""The spectral contrastive loss, whose minimiser is a spectral embedding of the augmentation graph."""

import math

from mgmlib.metrics.arguments import as_given, check_pair, check_positive, check_rows


def spectral_contrastive_loss(z1, z2, mu=1.0):
    """−2 E[f(x)ᵀf(x⁺)] + E[(f(x)ᵀf(x'))²] over a batch of positive pairs (HaoChen et al. 2021).

    Convention of the reference implementation of arXiv 2106.04156: features beyond the ball of radius √μ are
    drawn back to it, the negatives of row i are the rows j ≠ i of the other view, and the sum is divided
    by μ. The minimum over all maps into R^k spans the top k eigenvectors of the normalised adjacency.

    Parameters
    ----------
    z1, z2 : (N, d) arrays or tensors, N ≥ 2, not normalised; row i of both are views of one image.
    mu : squared radius of the ball, positive (the authors: 1 on CIFAR, 10 on ImageNet).

    Returns
    -------
    0-d tensor, differentiable, if ``z1`` or ``z2`` is a tensor, else float.

    Raises
    ------
    ValueError
        If the shapes differ or rows are not finite.
    """
    check_positive(mu, "mu")
    a, b = (_into_ball(z, math.sqrt(mu)) for z in check_pair(z1, z2, check_rows, ("z1", "z2")))
    n, d = a.shape
    positive = (a * b).sum(1)
    if n <= d:
        squares = (a @ b.T).square().sum()
    else:  # the same number, from d × d
        squares = ((a.T @ a) * (b.T @ b)).sum()
    negative = (squares - positive.square().sum()) / (n * (n - 1))
    return as_given((negative - 2 * positive.mean()) / mu, z1, z2)


def _into_ball(z, radius):
    return z * (radius / z.norm(dim=1, keepdim=True).clamp_min(radius))
