"""Select, gather and solve in one pass over the inner products of a block, on the CPU."""

import numba
import numpy as np
import torch

from mgmlib.graph.lawson_hanson import solve_one, with_threads


def solve_block(points, block, threads):
    """The exact NNK weights of a block's queries; the twin of `select` and `tableau.solve` for the CPU.

    Parameters
    ----------
    points : Points
    block : Block
    threads : number of numba threads.

    Returns
    -------
    near : (Q, m) int64 columns of each query's nearest others, nearest first, ties by column.
    theta : (Q, m) float64 weights.
    kkt : (Q,) float64 largest violation of the optimality conditions.
    """
    where, gram = block.where.numpy(), block.gram.numpy()
    near = np.empty((len(where), block.m), np.int64)
    theta, kkt = np.zeros((len(where), block.m)), np.empty(len(where))
    decay = 0.0 if points.kernel == "cosine" else 0.5 / points.bandwidth**2
    with_threads(threads, _solve_block, gram, where, decay, near, theta, kkt)
    return tuple(torch.from_numpy(array) for array in (near, theta, kkt))


@numba.njit(parallel=True, cache=True)
def _solve_block(gram, where, decay, near, theta, kkt):
    m = near.shape[1]
    for point in numba.prange(len(where)):
        inner, query = gram[where[point, 0]], where[point, 1]
        chosen, weights = near[point], theta[point]
        _nearest(inner, query, decay > 0, chosen)
        kernel, target = np.empty((m, m)), np.empty(m)
        for a in range(m):
            target[a] = _kernel(inner, chosen[a], query, decay)
            for b in range(a + 1):
                kernel[a, b] = kernel[b, a] = _kernel(inner, chosen[a], chosen[b], decay)
        solve_one(kernel, target, weights)
        kkt[point] = _residual(kernel, target, weights)


@numba.njit(cache=True)
def _kernel(inner, a, b, decay):
    if decay == 0.0:  # cosine
        return 0.5 + 0.5 * inner[a, b]
    return np.exp(-decay * max(inner[a, a] + inner[b, b] - 2 * inner[a, b], 0.0))


@numba.njit(cache=True)
def _nearest(inner, query, by_distance, chosen):
    """The nearest others by insertion: few of the n columns ever enter the list of m."""
    m, filled = len(chosen), 0
    best = np.empty(m)
    for j in range(len(inner)):
        score = inner[query, j] - (0.5 * inner[j, j] if by_distance else 0.0)
        if j == query or (filled == m and score <= best[m - 1]):
            continue
        at = filled if filled < m else m - 1
        while at > 0 and best[at - 1] < score:
            best[at], chosen[at] = best[at - 1], chosen[at - 1]
            at -= 1
        best[at], chosen[at] = score, j
        filled = min(filled + 1, m)


@numba.njit(cache=True)
def _residual(kernel, target, theta):
    worst = 0.0
    for a in range(len(target)):
        gradient = -target[a]
        for b in range(len(target)):
            gradient += kernel[a, b] * theta[b]
        worst = max(worst, abs(gradient) if theta[a] > 0 else -gradient)
    return worst
