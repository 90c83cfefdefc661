"""Curvature: how well the polytope of a point is aligned with those of its neighbours."""

import numpy as np
import torch

from mgmlib.graph.lawson_hanson import with_threads
from mgmlib.graph.tiles import in_chunks
from mgmlib.metrics import loops
from mgmlib.metrics.polytopes import BLOCK_BYTES, by_query, polytopes

RELATIVE = 1e-10  # directions whose squared length is below RELATIVE · the largest one's are no directions
ABSOLUTE = 1e-13  # … nor those below the rounding of the inner products, relative to the largest of them


def affinity(graph, z):
    """Mean affinity between the subspace of each polytope and those of its neighbours.

    With U_q an orthonormal basis of span{z_i − z_q : i ∈ N(q)} of numerical rank r_q,
    aff(q, p) = ‖U_qᵀ U_p‖_F / √min(r_q, r_p), the normalised affinity of Soltanolkotabi & Candès (2012),
    averaged over p ∈ N(q). High: flat. Low: curved.

    Parameters
    ----------
    graph : NNKGraph with Q queries; neighbours that are no queries get their own neighbourhoods on the way.
    z : (N, d) array or tensor it was made from; normalised here when the kernel is cosine.

    Returns
    -------
    (Q,) float64 array in [0, 1]; NaN where it is undefined: the query's polytope has rank 0, or all of its
    neighbours' have.
    """
    return by_query(graph, len(z), ((tile.rows, _affinities(tile)) for tile in polytopes(graph, z, hops=2)))


def _affinities(tile):
    if tile.gram.device.type != "cpu":
        return in_torch(tile)
    out = np.empty(len(tile.rows))
    rounding = _rounding(tile).numpy()
    with_threads(torch.get_num_threads(), loops.affinities, *tile.arrays(), RELATIVE, rounding, out)
    return out


def _rounding(tile):
    """(G,) squared length that is noise: the rounding of the largest inner product of each tile."""
    return ABSOLUTE * tile.gram.diagonal(dim1=1, dim2=2).amax(1)


def in_torch(tile):
    """Affinities of a tile's queries on any device, (B,) numpy; the twin of `loops.affinities`."""
    basis, rank = _bases(tile)
    width = tile.neighbors.shape[2]
    found = []
    for part in in_chunks(tile.queries, 64 * width**3, BLOCK_BYTES):
        t, q = part.unbind(1)
        p = tile.neighbors[t, q]  # (B, s)
        valid = tile.present[t, q] & (rank[t[:, None], p] > 0) & (rank[t, q] > 0)[:, None]
        at, which = torch.nonzero(valid, as_tuple=True)
        t_, q_, p_ = t[at], q[at], p[at, which]
        overlap = basis[t_, q_] @ tile.differences(t_, q_, p_) @ basis[t_, p_].mT
        smaller = torch.minimum(rank[t_, q_], rank[t_, p_])
        aff = ((overlap * overlap).sum((1, 2)) / smaller).clamp(0, 1).sqrt()
        total = torch.zeros(len(t), dtype=aff.dtype, device=aff.device).index_add_(0, at, aff)
        found.append(total / valid.sum(1))  # 0 / 0 = NaN: undefined
    return torch.cat(found).cpu().numpy()


def _bases(tile):
    """Orthonormal bases as coefficients on the differences, zero rows beyond the rank: (G, n, s, s)."""
    groups, n, width = tile.neighbors.shape
    every = torch.cartesian_prod(*(torch.arange(size, device=tile.gram.device) for size in (groups, n)))
    rounding = _rounding(tile)
    basis, rank = [], []
    for part in in_chunks(every, 64 * width * width, BLOCK_BYTES):
        t, p = part.unbind(1)
        length, direction = torch.linalg.eigh(tile.differences(t, p, p))
        kept = length > torch.maximum(RELATIVE * length[:, -1], rounding[t])[:, None]
        scale = torch.where(kept, length, 1.0).rsqrt() * kept
        basis.append(scale[:, :, None] * direction.mT)
        rank.append(kept.sum(1))
    return torch.cat(basis).view(groups, n, width, width), torch.cat(rank).view(groups, n)
