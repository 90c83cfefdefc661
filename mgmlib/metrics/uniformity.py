"""Uniformity: how evenly embeddings cover the sphere."""

import math
from functools import partial

import torch

from mgmlib.graph.tiles import in_chunks
from mgmlib.metrics.arguments import as_given, check_positive, check_unit_rows
from mgmlib.metrics.recompute import recompute


def uniformity(x, t=2, *, block_bytes=2**27):
    """Logarithm of the mean Gaussian potential, log E_{i<j} exp(−t ‖x_i − x_j‖²).

    Convention: the mean is over the pairs i < j (Wang & Isola 2020, arXiv 2005.10242, section 4.1). The
    minimum belongs to the uniform distribution; in high dimension it is close to −2t.

    Parameters
    ----------
    x : (N, d) array or tensor of unit rows, N ≥ 2.
    t : inverse width of the potential, positive.
    block_bytes : bound on the working memory, with or without gradient; never N × N.

    Returns
    -------
    0-d tensor, differentiable, if ``x`` is a tensor, else float; in [−4t, 0], 0 if all rows coincide.

    Raises
    ------
    ValueError
        If rows are not unit vectors, are not finite, or there is one row only.
    """
    check_positive(t, "t")
    rows = check_unit_rows(x, "x", at_least=2)
    n = len(rows)
    blocks = in_chunks(range(n - 1), 4 * n * rows.element_size(), block_bytes)
    parts = [recompute(partial(_log_sum, own.start, own.stop, t), rows) for own in blocks]
    return as_given(torch.stack(parts).logsumexp(0) - math.log(n * (n - 1) / 2), x)


def _log_sum(start, stop, t, rows):
    """Log of the sum of potentials over the pairs i < j with i in start…stop."""
    left, right = rows[start:stop], rows[start:]
    squared = (left * left).sum(1)[:, None] + (right * right).sum(1) - 2 * left @ right.T
    before = torch.ones_like(squared, dtype=torch.bool).tril()  # j ≤ i
    return (-t * squared.clamp_min(0)).masked_fill(before, -torch.inf).logsumexp((0, 1))
