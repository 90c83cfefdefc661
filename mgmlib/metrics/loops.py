"""Diameter and affinity of a tile on the CPU: the same sums as in torch, in loops over small polytopes."""

import numba
import numpy as np


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
    ranks = np.zeros((groups, n), np.int64)
    for at in numba.prange(groups * n):
        t, p = at // n, at % n
        if counts[t, p]:
            ranks[t, p] = _basis(
                gram[t], neighbors[t, p, : counts[t, p]], p, relative, rounding[t], bases[t, p]
            )
    for at in numba.prange(len(queries)):
        t, q = queries[at]
        out[at] = _mean_affinity(gram[t], neighbors[t], counts[t], bases[t], ranks[t], q)


@numba.njit(cache=True)
def _mean_affinity(inner, neighbors, counts, bases, ranks, q):
    """Mean affinity of the polytope at ``q`` with those of its neighbours."""
    width, rank = neighbors.shape[1], ranks[q]
    own = neighbors[q, : counts[q]]
    basis = bases[q, :rank, : len(own)].T.copy()
    slot, filled = np.full(len(inner), -1), 0
    along = np.empty((min(len(inner), width * (width + 1)), width))  # [slot of j]: ⟨u, z_j⟩, u the basis at q
    cross = np.empty((width, width))
    total, defined = 0.0, 0
    for p in own:
        if rank == 0 or ranks[p] == 0:
            continue
        near = neighbors[p, : counts[p]]
        for b in range(-1, len(near)):
            j = near[b] if b >= 0 else p
            if slot[j] < 0:
                _project(inner, own, q, basis, j, along[filled])
                slot[j], filled = filled, filled + 1
            if b >= 0:
                for c in range(rank):
                    cross[b, c] = along[slot[j], c] - along[slot[p], c]
        overlap = _overlap(bases[p, : ranks[p]], cross[: len(near), :rank])
        total += np.sqrt(min(overlap / min(rank, ranks[p]), 1.0))
        defined += 1
    return total / defined if defined else np.nan


@numba.njit(cache=True)
def _project(inner, near, q, coefficients, j, out):
    """⟨u, z_j⟩ for each direction u at ``q``, whose ``coefficients`` (s, r) stand by neighbours."""
    row, rank = inner[j], coefficients.shape[1]
    out[:rank] = 0.0
    for i in range(len(near)):
        share, of_neighbor = row[near[i]] - row[q], coefficients[i]
        for c in range(rank):
            out[c] += share * of_neighbor[c]


@numba.njit(cache=True)
def _overlap(basis, cross):
    """‖V Xᵀ‖_F² of coefficients V (r', s') and cross products X (s', r)."""
    size, rank = cross.shape
    total, image = 0.0, np.empty(rank)
    for c in range(len(basis)):
        image[:] = 0.0
        for b in range(size):
            share, row = basis[c, b], cross[b]
            for a in range(rank):
                image[a] += share * row[a]
        for a in range(rank):
            total += image[a] * image[a]
    return total


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
