"""Diameter and affinity of a tile on the CPU: the same sums as in torch, in loops over small polytopes."""

import numba
import numpy as np

from mgmlib.graph.lawson_hanson import LENT, VECTOR, WITHIN, padded, subtract


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
    wide = padded(width + 1, VECTOR)
    projectors = np.zeros((groups, n, wide, wide))  # on their spans, by points; their lower half
    ranks = np.zeros((groups, n), np.int64)
    for at in numba.prange(groups * n):
        t, p = at // n, at % n
        near = neighbors[t, p, : counts[t, p]]
        if len(near):
            size, length = len(near), padded(len(near), VECTOR)
            inside, rows = np.zeros((size, length)), np.empty((size, 2 * length))
            _differences(gram[t], near, p, near, inside)
            cuts, work = (relative, rounding[t]), (np.empty(size), rows, np.arange(size))
            ranks[t, p] = _basis(inside, *cuts, *work, bases[t, p])
            rows = np.zeros((padded(size, 4), padded(size + 1, VECTOR)))
            _projector(bases[t, p, : ranks[t, p]], size, rows, projectors[t, p])
    for at in numba.prange(len(queries)):
        t, q = queries[at]
        basis = bases[t, q, : ranks[t, q]]
        out[at] = _mean_affinity(gram[t], neighbors[t], counts[t], basis, projectors[t], ranks[t], q)


@numba.njit(**WITHIN)
def _projector(basis, size, rows, out):
    """Lower half of CᵀC, C the coefficients of the basis on the point itself and its ``size`` neighbours.

    Written onto zeros; C is made in ``rows``, zeros too, and padded.
    """
    for c in range(len(basis)):
        row = rows[c]
        for a in range(size):
            row[0], row[a + 1] = row[0] - basis[c, a], basis[c, a]
    _lower_half(rows, size + 1, out)


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
        overlap = _overlap(projectors[p], products, place, counts[p] + 1)
        total += np.sqrt(min(max(overlap / min(rank, ranks[p]), 0.0), 1.0))
        defined += 1
    return total / defined if defined else np.nan


@numba.njit(**WITHIN)
def _overlap(projector, products, place, size):
    """Σ P_ij M_ij over the first ``size`` places of the products, whose lower half is at hand."""
    overlap = 0.0
    for a in range(size):
        i = place[a]
        overlap += projector[a, a] * products[i, i]
        for b in range(a):
            j = place[b]
            overlap += 2.0 * projector[a, b] * products[max(i, j), min(i, j)]
    return overlap


@numba.njit(cache=True)
def _products(inner, own, q, basis, columns):
    """Lower half of M (u, u) for the points ``columns`` (u,), see `_mean_affinity`; rows are padded."""
    size = len(columns)
    width = padded(size, VECTOR)
    inside, share = np.zeros((padded(len(own), 4), width)), np.zeros(padded(len(own), 4))
    along, products = np.zeros((padded(len(basis), 4), width)), np.zeros((padded(size, 2), width))
    _differences(inner, own, q, columns, inside)
    _coordinates(basis, len(own), inside, share, along)
    _lower_half(along, size, products)
    return products


@numba.njit(**WITHIN)
def _differences(inner, own, q, columns, out):
    """⟨z_i − z_q, z_j − z_q⟩ for the neighbours i of q and the ``columns`` j."""
    of_query = inner[q]
    for i in range(len(own)):
        row, to = inner[own[i]], out[i]
        shift = of_query[q] - row[q]
        for u in range(len(columns)):
            to[u] = row[columns[u]] - of_query[columns[u]] + shift


@numba.njit(**WITHIN)
def _coordinates(basis, size, inside, share, out):
    """Sums of the rows ``inside``, weighed by the first ``size`` coefficients of each basis row, onto zeros.

    Four terms at once; rows are padded, for what a vectorised loop leaves over is slow.
    """
    for c in range(len(basis)):
        for i in range(size):
            share[i] = basis[c, i]
        to = out[c]
        for i in range(0, len(inside), 4):
            x, y, z, w = inside[i], inside[i + 1], inside[i + 2], inside[i + 3]
            of_x, of_y, of_z, of_w = share[i], share[i + 1], share[i + 2], share[i + 3]
            for u in range(len(to)):
                to[u] += of_x * x[u] + of_y * y[u] + of_z * z[u] + of_w * w[u]


@numba.njit(**WITHIN)
def _lower_half(along, size, out):
    """Inner products among the first ``size`` columns, onto zeros: four terms and two rows at once."""
    for u in range(0, size, 2):
        to, next_to, end = out[u], out[u + 1], padded(u + 2, VECTOR)
        for c in range(0, len(along), 4):
            x, y, z, w = along[c], along[c + 1], along[c + 2], along[c + 3]
            of_x, of_y, of_z, of_w = x[u], y[u], z[u], w[u]
            to_x, to_y, to_z, to_w = x[u + 1], y[u + 1], z[u + 1], w[u + 1]
            for v in range(end):
                to[v] += of_x * x[v] + of_y * y[v] + of_z * z[v] + of_w * w[v]
                next_to[v] += to_x * x[v] + to_y * y[v] + to_z * z[v] + to_w * w[v]


@numba.njit(**LENT)
def _basis(inside, relative, rounding, left, rows, order, basis):
    """Gram–Schmidt with pivoting on differences, in coefficients; returns the numerical rank.

    ``inside`` (s, w) holds their inner products, padded by zeros. Row r of ``basis`` gets the coefficients of
    the r-th orthonormal direction. To work in: ``left`` (s,), the squared length of each difference outside
    the span so far; ``rows`` (s, 2w), the components of the differences along each direction beside its own
    coefficients; ``order`` (s,), 0…s − 1.
    """
    size, wide, longest = inside.shape[0], inside.shape[1], 0.0
    for j in range(size):
        left[j] = inside[j, j]
        longest = max(longest, left[j])
    cut = max(relative * longest, rounding)
    for rank in range(size):
        pivot = np.argmax(left)
        if left[pivot] <= cut:
            return rank
        row, inverse = rows[rank], 1.0 / np.sqrt(left[pivot])
        for j in range(wide):
            row[j], row[wide + j] = inside[pivot, j], 0.0
        row[wide + pivot] = 1.0
        subtract(row, rows[:, pivot], rows, order, rank)
        for j in range(2 * wide):
            row[j] *= inverse
        for j in range(size):
            left[j] = max(left[j] - row[j] ** 2, 0.0)
            basis[rank, j] = row[wide + j]
        left[pivot] = 0.0
    return size
