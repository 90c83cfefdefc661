"""Invariance–equivariance: how far apart the neighbours of a point lie."""

import numpy as np
import torch

from mgmlib.graph.lawson_hanson import with_threads
from mgmlib.graph.tiles import in_chunks
from mgmlib.metrics import loops
from mgmlib.metrics.polytopes import BLOCK_BYTES, by_query, polytopes


def diameter(graph, z):
    """Diameter of each NNK polytope, max over i, j ∈ N(q) of ‖z_i − z_j‖.

    Small: the map contracts, it is invariant. Large: it spreads, it is equivariant.

    Parameters
    ----------
    graph : NNKGraph with Q queries.
    z : (N, d) array or tensor it was made from; normalised here when the kernel is cosine.

    Returns
    -------
    (Q,) float64 array, in [0, 2] for the cosine kernel, in units of ``z`` for RBF; 0 for a single neighbour.
    """
    tiles = polytopes(graph, z, hops=1)
    return by_query(graph, len(z), ((tile.rows, tile.unit * _diameters(tile)) for tile in tiles))


def _diameters(tile):
    if tile.gram.device.type != "cpu":
        return in_torch(tile)
    out = np.empty(len(tile.rows))
    with_threads(torch.get_num_threads(), loops.diameters, *tile.arrays(), out)
    return out


def in_torch(tile):
    """Diameters of a tile's queries on any device, (B,) numpy; the twin of `loops.diameters`."""
    found = []
    width = tile.neighbors.shape[2]
    for part in in_chunks(tile.queries, 32 * width * width, BLOCK_BYTES):
        t, q = part.unbind(1)
        near, present = tile.neighbors[t, q], tile.present[t, q]
        i, j, t = near[:, :, None], near[:, None, :], t[:, None, None]
        squared = tile.gram[t, i, i] + tile.gram[t, j, j] - 2 * tile.gram[t, i, j]
        squared = squared * (present[:, :, None] & present[:, None, :])
        found.append(squared.clamp_min(0).amax((1, 2)).sqrt())
    return torch.cat(found).cpu().numpy()
