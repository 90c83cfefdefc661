"""Distances to the nearest distinct rows: what the local estimators of dimension read."""

import numpy as np
import torch

from mgmlib.graph.duplicates import representatives
from mgmlib.graph.points import check_points
from mgmlib.graph.tiles import in_chunks
from mgmlib.metrics.arguments import check_rows

BLOCK_BYTES = 2**27


def nearest_distances(z, k, block_bytes=BLOCK_BYTES):
    """Euclidean distances of each distinct row to its k nearest others.

    Rows that repeat one another, up to the rounding of their type, are one point (`representatives`): at
    distance 0 they would make every estimate 0 or NaN.

    Parameters
    ----------
    z : (N, d) array or tensor.
    k : number of neighbours.
    block_bytes : bound on the working memory of a block.

    Returns
    -------
    (M, k) float64 tensor, ascending, all positive, in units of the largest coordinate; M ≤ N distinct rows.

    Raises
    ------
    ValueError
        If fewer than k + 1 rows are distinct, or rows are not finite.
    """
    rows = check_rows(z, at_least=1).detach()
    peak = rows.abs().max().double().clamp_min(torch.finfo(rows.dtype).tiny)
    scale = torch.exp2(torch.floor(torch.log2(peak))).to(rows.dtype)  # exact: a power of two
    points = check_points(rows / scale, "rbf", 1.0)
    first = representatives(points, np.zeros(len(points), dtype=np.int64))
    distinct = torch.as_tensor(np.unique(first), device=points.device)
    if len(distinct) <= k:
        raise ValueError(f"z: {k} neighbours need {k + 1} distinct rows, got {len(distinct)} of {len(first)}")
    keys = points.rows(distinct)
    half, found = keys.square().sum(1) / 2, []
    every, bytes_each = torch.arange(len(keys), device=keys.device), 16 * (len(keys) + k * keys.shape[1])
    for own in in_chunks(every, bytes_each, block_bytes):
        score = (keys[own] @ keys.T - half).scatter_(1, own[:, None], -torch.inf)
        near = keys[score.topk(k, dim=1).indices]
        found.append((near - keys[own, None]).norm(dim=2).sort(1).values)  # exact where the score rounds
    return torch.cat(found)
