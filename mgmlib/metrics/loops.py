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
        own, total, defined = neighbors[t, q, : counts[t, q]], 0.0, 0
        for p in own:
            if ranks[t, q] and ranks[t, p]:
                other = neighbors[t, p, : counts[t, p]]
                u, v = bases[t, q, : ranks[t, q]], bases[t, p, : ranks[t, p]]
                overlap = _overlap(gram[t], own, q, u, other, p, v)
                total += np.sqrt(min(overlap / min(ranks[t, q], ranks[t, p]), 1.0))
                defined += 1
        out[at] = total / defined if defined else np.nan


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
            for c in range(size):
                basis[rank, c] -= along[r, pivot] * basis[r, c]
        for c in range(size):
            basis[rank, c] /= length
        for j in range(size):
            value = _difference(inner, near[pivot], p, near[j], p)
            for r in range(rank):
                value -= along[r, pivot] * along[r, j]
            along[rank, j] = value / length
            left[j] = max(left[j] - along[rank, j] ** 2, 0.0)
        left[pivot] = 0.0
    return size


@numba.njit(cache=True)
def _overlap(inner, near_p, p, u, near_q, q, v):
    """‖UᵀV‖_F² of two bases given as coefficients u (r, s) and v (r', s')."""
    size_p, size_q = len(near_p), len(near_q)
    cross = np.empty((size_p, size_q))
    for a in range(size_p):
        for b in range(size_q):
            cross[a, b] = _difference(inner, near_p[a], p, near_q[b], q)
    total, row = 0.0, np.empty(size_q)
    for r in range(len(u)):
        row[:] = 0.0
        for a in range(size_p):
            for b in range(size_q):
                row[b] += u[r, a] * cross[a, b]
        for r_ in range(len(v)):
            value = 0.0
            for b in range(size_q):
                value += row[b] * v[r_, b]
            total += value * value
    return total
