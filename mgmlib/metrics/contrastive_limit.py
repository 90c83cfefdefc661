"""What the contrastive loss tends to as the number of negatives grows."""

import math
from functools import partial

import torch

from mgmlib.graph.tiles import in_chunks
from mgmlib.metrics.arguments import as_given, check_pair, check_positive, check_unit_rows
from mgmlib.metrics.recompute import recompute


def contrastive_limit(x, y, tau, *, block_bytes=2**27):
    """Limit of L_contrastive(M) − log M for M → ∞ negatives.

    −E[xᵀy]/τ + E_x log E_y exp(xᵀy/τ) (Wang & Isola 2020, theorem 1 of arXiv 2005.10242): alignment, and
    uniformity by another kernel. The error at finite M is O(M^−½). Convention: the inner mean of row i runs
    over the rows j ≠ i of ``y``, since the positive of a row is no independent draw.

    Parameters
    ----------
    x, y : (N, d) arrays or tensors of unit rows, N ≥ 2; row i of both are views of one image.
    tau : temperature, positive.
    block_bytes : bound on the working memory, with or without gradient; never N × N.

    Returns
    -------
    0-d tensor, differentiable, if ``x`` or ``y`` is a tensor, else float.

    Raises
    ------
    ValueError
        If rows are not unit vectors, are not finite, or the shapes differ.
    """
    check_positive(tau, "tau")
    left, right = check_pair(x, y, check_unit_rows, at_least=2)
    blocks = in_chunks(range(len(left)), 4 * len(left) * left.element_size(), block_bytes)
    potential = [recompute(partial(_log_sums, own.start, own.stop, tau), left, right) for own in blocks]
    potential = torch.cat(potential).mean() - math.log(len(left) - 1)
    return as_given(potential - (left * right).sum(1).mean() / tau, x, y)


def _log_sums(start, stop, tau, left, right):
    """Log of the sum over j ≠ i of exp(x_iᵀ y_j/τ), for i in start…stop."""
    similar = left[start:stop] @ right.T / tau
    own = torch.arange(start, stop, device=left.device)[:, None]
    return similar.masked_fill(own == torch.arange(len(left), device=left.device), -torch.inf).logsumexp(1)
