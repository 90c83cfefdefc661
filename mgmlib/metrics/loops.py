"""Diameter and affinity of a tile on the CPU: the same sums as in torch, in loops over small polytopes."""

import numba
import numpy as np

LANES = 8  # numbers that a vectorised loop takes at once


@numba.njit(parallel=True, cache=True)
def diameters(gram, neighbors, counts, queries, out):
    """Diameter of each query's polytope.

    gram (G, n, n) float64; neighbors (G, n, s) int64, the first ``counts`` (G, n) of each row valid;
    queries (B, 2) int64, tile and number; out (B,) float64.
    """
    for at in numba.prange(len(queries)):
        t, q = queries[at]
        inner, near = gram[t], neighbors[t, q]
        largest = 0.0
        for a in range(counts[t, q]):
            for b in range(a):
                i, j = near[a], near[b]
                largest = max(largest, inner[i, i] + inner[j, j] - 2 * inner[i, j])
        out[at] = np.sqrt(largest)


@numba.njit(parallel=True, cache=True)
def affinities(gram, neighbors, counts, queries, relative, rounding, out):
    """Mean affinity of each query's polytope with its neighbours', NaN where undefined.

    As `diameters`, and: ``rounding`` (G,) float64, squared lengths below it are noise; ``relative``, the cut
    against the polytope's own largest squared length.
    """
    groups, n, width = neighbors.shape
    bases = np.zeros((groups, n, width, width))  # orthonormal bases as coefficients on the differences
    projectors = np.empty((groups, n, width + 1, width + 1))  # on their spans, as coefficients on the points
    ranks = np.zeros((groups, n), np.int64)
    for at in numba.prange(groups * n):
        t, p = at // n, at % n
        near = neighbors[t, p, : counts[t, p]]
        if len(near):
            ranks[t, p] = _basis(gram[t], near, p, relative, rounding[t], bases[t, p])
            _projector(bases[t, p, : ranks[t, p]], len(near), projectors[t, p])
    for at in numba.prange(len(queries)):
        t, q = queries[at]
        basis = bases[t, q, : ranks[t, q]]
        out[at] = _mean_affinity(gram[t], neighbors[t], counts[t], basis, projectors[t], ranks[t], q)


@numba.njit(cache=True)
def _projector(basis, size, out):
    """CᵀC into ``out``, C the coefficients of the basis on the point itself and its ``size`` neighbours."""
    row = np.empty(size + 1)
    out[: size + 1, : size + 1] = 0.0
    for coefficients in basis:
        row[0], row[1:] = -coefficients[:size].sum(), coefficients[:size]
        for a in range(size + 1):
            share, to = row[a], out[a]
            for b in range(size + 1):
                to[b] += share * row[b]


@numba.njit(cache=True)
def _mean_affinity(inner, neighbors, counts, basis, projectors, ranks, q):
    """Mean affinity of the polytope at ``q`` with those of its neighbours.

    With x_j the coordinates of z_j − z_q along the basis at q, and M_ij = ⟨x_i, x_j⟩ over all neighbours of
    neighbours, ‖U_qᵀU_p‖² = Σ P_ij M_ij, P the projector at p: a few hundred products a pair.
    """
    own, rank = neighbors[q, : counts[q]], ranks[q]
    slot, filled = np.full(len(inner), -1), 0
    columns = np.empty(min(len(inner), len(own) * (1 + neighbors.shape[1])), np.int64)
    for p in own:
        for b in range(-1, counts[p]):
            j = neighbors[p, b] if b >= 0 else p
            if slot[j] < 0:
                slot[j], columns[filled], filled = filled, j, filled + 1
    products = _products(inner, own, q, basis, columns[:filled])
    total, defined, place = 0.0, 0, np.empty(neighbors.shape[1] + 1, np.int64)
    for p in own:
        if rank == 0 or ranks[p] == 0:
            continue
        place[0] = slot[p]
        for b in range(counts[p]):
            place[b + 1] = slot[neighbors[p, b]]
        overlap, projector = 0.0, projectors[p]
        for a in range(counts[p] + 1):
            i = place[a]
            overlap += projector[a, a] * products[i, i]
            for b in range(a):
                j = place[b]
                overlap += 2.0 * projector[a, b] * products[max(i, j), min(i, j)]
        total += np.sqrt(min(max(overlap / min(rank, ranks[p]), 0.0), 1.0))
        defined += 1
    return total / defined if defined else np.nan


@numba.njit(cache=True)
def _products(inner, own, q, basis, columns):
    """Lower half of M (u, u) for the points ``columns`` (u,), see `_mean_affinity`.

    Four terms and two rows at once; rows are padded, for what a vectorised loop leaves over is slow.
    """
    size, of_query = len(columns), inner[q]
    width = _padded(size, LANES)
    inside = np.zeros((_padded(len(own), 4), width))  # ⟨z_i − z_q, z_j − z_q⟩ for the neighbours i
    for i in range(len(own)):
        row, to = inner[own[i]], inside[i]
        shift = of_query[q] - row[q]
        for u in range(size):
            to[u] = row[columns[u]] - of_query[columns[u]] + shift
    along, share = np.zeros((_padded(len(basis), 4), width)), np.zeros(len(inside))
    for c in range(len(basis)):
        share[: len(own)], to = basis[c, : len(own)], along[c]
        for i in range(0, len(inside), 4):
            x, y, z, w = inside[i], inside[i + 1], inside[i + 2], inside[i + 3]
            of_x, of_y, of_z, of_w = share[i], share[i + 1], share[i + 2], share[i + 3]
            for u in range(width):
                to[u] += of_x * x[u] + of_y * y[u] + of_z * z[u] + of_w * w[u]
    products = np.zeros((_padded(size, 2), width))
    for u in range(0, size, 2):
        to, next_to, end = products[u], products[u + 1], _padded(u + 2, LANES)
        for c in range(0, len(along), 4):
            x, y, z, w = along[c], along[c + 1], along[c + 2], along[c + 3]
            of_x, of_y, of_z, of_w = x[u], y[u], z[u], w[u]
            to_x, to_y, to_z, to_w = x[u + 1], y[u + 1], z[u + 1], w[u + 1]
            for v in range(end):
                to[v] += of_x * x[v] + of_y * y[v] + of_z * z[v] + of_w * w[v]
                next_to[v] += to_x * x[v] + to_y * y[v] + to_z * z[v] + to_w * w[v]
    return products


@numba.njit(cache=True)
def _padded(size, multiple):
    """The next multiple of ``multiple``."""
    return (size + multiple - 1) // multiple * multiple


@numba.njit(cache=True)
def _difference(inner, i, p, j, q):
    """⟨z_i − z_p, z_j − z_q⟩."""
    return inner[i, j] - inner[i, q] - inner[p, j] + inner[p, q]


@numba.njit(cache=True)
def _basis(inner, near, p, relative, rounding, basis):
    """Gram–Schmidt with pivoting on the differences z_i − z_p, in coefficients; returns the numerical rank.

    Row r of ``basis`` holds the coefficients of the r-th orthonormal direction.
    """
    size = len(near)
    left = np.empty(size)  # squared length of each difference outside the span so far
    along = np.zeros((size, size))  # along[r, j]: component of difference j along direction r
    for j in range(size):
        left[j] = _difference(inner, near[j], p, near[j], p)
    cut = max(relative * left.max(), rounding)
    for rank in range(size):
        pivot = np.argmax(left)
        if left[pivot] <= cut:
            return rank
        length = np.sqrt(left[pivot])
        for c in range(size):
            basis[rank, c] = 0.0
        basis[rank, pivot] = 1.0
        for r in range(rank):
            share, above = along[r, pivot], basis[r]
            for c in range(size):
                basis[rank, c] -= share * above[c]
        for c in range(size):
            basis[rank, c] /= length
        new = along[rank]
        for j in range(size):
            new[j] = _difference(inner, near[pivot], p, near[j], p)
        for r in range(rank):
            share, above = along[r, pivot], along[r]
            for j in range(size):
                new[j] -= share * above[j]
        for j in range(size):
            new[j] /= length
            left[j] = max(left[j] - new[j] ** 2, 0.0)
        left[pivot] = 0.0
    return size
