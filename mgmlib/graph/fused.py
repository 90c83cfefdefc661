"""Select, gather and solve in one pass over the inner products of a block, on the CPU."""

import numba
import numpy as np
import torch

from mgmlib.graph.lawson_hanson import (
    WITHIN,
    kernel_row,
    solve_one,
    solve_within,
    with_threads,
    workspace,
)
from mgmlib.graph.ranks import merge_row

TOGETHER = 32  # members of groups that share a workspace


def solve_block(points, block, tol, threads):
    """The NNK weights of a block's queries; the twin of `select` and `tableau.solve` for the CPU.

    Parameters
    ----------
    points : Points
    block : Block
    tol : a neighbour is a candidate with θ > tol.
    threads : number of numba threads.

    Returns
    -------
    near : (Q, m) int64 columns of each query's candidates, nearest first, ties by column.
    theta : (Q, m) float64 weights.
    kkt : (Q,) float64 largest violation of the optimality conditions, with the products that were served.
    certain : (Q,) bool, float32 products leave no doubt about the set θ > tol; False with float64 ones.
    """
    where, gram = block.where.numpy(), block.gram.numpy()
    given = block.near is not None
    near = block.near.numpy().copy() if given else np.full((len(where), block.m), -1)
    theta, kkt = np.zeros((len(where), block.m)), np.empty(len(where))
    certain = np.zeros(len(where), bool)
    decay = 0.0 if points.kernel == "cosine" else 0.5 / points.bandwidth**2
    if block.m == gram.shape[1] - 1 and not given:
        square = block.gram.diagonal(dim1=1, dim2=2)
        kernel = points.kernel_values(block.gram, square[:, :, None], square[:, None, :]).numpy()
        with_threads(threads, _solve_groups, gram, kernel, where, decay, near, theta, kkt)
    else:
        rounding = points.rounding[1] if gram.dtype == np.float32 else 0.0
        options = decay, rounding, tol, given
        with_threads(threads, _solve_block, gram, where, *options, near, theta, kkt, certain)
    return tuple(torch.from_numpy(array) for array in (near, theta, kkt, certain))


@numba.njit(parallel=True, cache=True)
def _solve_groups(gram, kernel, where, decay, near, theta, kkt):
    """Blocks in which all others of a tile are candidates: kernel values are made once for all queries."""
    half, n = _halves(gram, decay), gram.shape[1]
    known, columns = np.ones(n, np.bool_), np.arange(n)
    for start in numba.prange((len(where) + TOGETHER - 1) // TOGETHER):
        work, lists = workspace(n), np.empty((3, n))
        for point in range(start * TOGETHER, min((start + 1) * TOGETHER, len(where))):
            tile, query = where[point]
            among = kernel[tile], known, columns, decay
            ranked = gram[tile, query], half[tile], near[point]
            kkt[point] = _solve_member(query, *among, *ranked, theta[point], lists, work)


@numba.njit(**WITHIN)
def _solve_member(query, among, known, columns, decay, inner, half, near, theta, lists, work):
    """Candidates, weights and residual of one member of a group."""
    target, weights, score = lists[0], lists[1], lists[2]
    for i in range(len(target)):
        target[i], weights[i], score[i] = among[query, i], 0.0, inner[i] - half[i]
    target[query] = -np.inf  # no candidate of itself
    worst, _ = solve_within(work, among, known, among, columns, decay, target, 0.0, 0.0, weights)
    _rank(score, query, near)
    for i in range(len(near)):
        theta[i] = weights[near[i]]
    return worst


@numba.njit(**WITHIN)
def _rank(score, query, near):
    """All but the query into places that hold −1, best score first, ties by column."""
    score[query], n = -np.inf, len(score)
    for i in range(0, n, 2):  # two at a time: each score is read once for both
        a, b, above_a, above_b = score[i], score[min(i + 1, n - 1)], 0, 0
        for j in range(n):
            above_a += score[j] > a
            above_b += score[j] > b
        for column, place in ((i, above_a), (i + 1, above_b)):
            if column < n and column != query:
                while near[place] >= 0:  # taken by an equal of an earlier column
                    place += 1
                near[place] = column


@numba.njit(parallel=True, cache=True)
def _solve_block(gram, where, decay, rounding, tol, given, near, theta, kkt, certain):
    half = _halves(gram, decay)
    for point in numba.prange(len(where)):
        tile, query = where[point]
        inner, chosen = gram[tile], near[point]
        m = len(chosen)
        if not given:
            best = np.full(m, -np.inf, gram.dtype)
            merge_row(inner[query], 0, half[tile], query, best, chosen)
        target, kernel, known = np.empty(m + 1), np.empty((m, m)), np.zeros(m, np.bool_)
        kernel_row(inner, np.append(chosen, query), m, decay, target)
        of_query = target[:m], rounding, tol, theta[point]
        kkt[point], certain[point] = solve_one(kernel, known, inner, chosen, decay, *of_query)


@numba.njit(cache=True)
def _halves(gram, decay):
    """(G, n) half the squared norms, which rank by distance what inner products alone rank by angle (RBF)."""
    half = np.zeros(gram.shape[:2], gram.dtype)
    if decay > 0:
        for tile in range(len(gram)):
            for j in range(gram.shape[1]):
                half[tile, j] = gram[tile, j, j] / 2
    return half
