"""Float64 inner products of sets of rows with themselves, on the CPU: each pair once, rows widened first.

A matrix product of 50 rows reaches half the speed of a large one. There, three rows meet three at a time, in
registers, some columns of all rows after others: those stay in the cache.
"""

import numba
import numpy as np
import torch

from mgmlib.graph.lawson_hanson import with_threads
from mgmlib.graph.products import mirrored

SMALL = 128  # rows of a set, beyond which matrix products are faster
STRIP = 128  # rows multiplied at once by these
COLUMNS = 512  # of a small set that are widened and multiplied at once


def grams(raw, ids, shift, scale, center):
    """Inner products of the rows (raw − shift) · scale of each set, less their mean on request.

    Parameters
    ----------
    raw : (N, d) float tensor.
    ids : (G, n) int64 rows of the sets.
    shift : (d,) float64 tensor. scale : (N,) float64 tensor.
    center : subtract the mean of the set from its rows.

    Returns
    -------
    (G, n, n) float64 tensor.
    """
    gram = torch.empty(len(ids), ids.shape[1], ids.shape[1], dtype=torch.float64)
    arrays = [tensor.contiguous().numpy() for tensor in (raw, ids, shift, scale)]
    if ids.shape[1] <= SMALL:
        with_threads(torch.get_num_threads(), _in_registers, *arrays, center, gram.numpy())
        return gram
    rows = torch.empty(ids.shape[1], raw.shape[1], dtype=torch.float64)
    for members, out in zip(arrays[1], gram, strict=True):
        _widen(arrays[0], members, *arrays[2:], center, 0, rows.numpy())
        mirrored(rows, out, STRIP)
    return gram


@numba.njit(parallel=True, cache=True)
def _in_registers(raw, ids, shift, scale, center, gram):
    for at in numba.prange(len(ids)):
        n, d, padded = ids.shape[1], raw.shape[1], (ids.shape[1] + 2) // 3 * 3
        rows, products = np.zeros((padded, min(COLUMNS, d))), np.zeros((padded, padded))
        for first in range(0, d, COLUMNS):
            size = min(COLUMNS, d - first)
            _widen(raw, ids[at], shift, scale, center, first, rows)
            for j in range(0, n, 3):
                for i in range(0, j + 3, 3):
                    _nine(rows, i, j, size, products)
        for i in range(n):
            for j in range(i, n):
                gram[at, i, j] = gram[at, j, i] = products[i, j]


@numba.njit(cache=True)
def _widen(raw, members, shift, scale, center, first, out):
    """Columns from ``first`` on of the rows of one set, float64, into ``out`` (at least n, columns)."""
    n, last = len(members), min(first + out.shape[1], raw.shape[1])
    still = shift[first:last]
    for i in range(0, n, 2):  # two rows at a time arrive faster from memory
        j = min(i + 1, n - 1)
        a, b, of_a, of_b = raw[members[i], first:last], raw[members[j], first:last], out[i], out[j]
        by_a, by_b = scale[members[i]], scale[members[j]]
        for t in range(len(still)):
            of_a[t], of_b[t] = (a[t] - still[t]) * by_a, (b[t] - still[t]) * by_b
    if center:
        _centre(out, n, len(still))


@numba.njit(cache=True)
def _centre(rows, n, size):
    """Subtract their mean from the first ``n`` rows, in the first ``size`` columns."""
    mean = np.zeros(size)
    for i in range(n):
        row = rows[i]
        for t in range(size):
            mean[t] += row[t]
    mean /= n
    for i in range(n):
        row = rows[i]
        for t in range(size):
            row[t] -= mean[t]


@numba.njit(cache=True, forceinline=True, fastmath={"reassoc", "contract"})
def _nine(rows, i, j, size, out):
    """Add the nine products of three rows from ``i`` on with three from ``j`` on, their first columns."""
    a, b, c = rows[i, :size], rows[i + 1, :size], rows[i + 2, :size]
    p, q, r = rows[j, :size], rows[j + 1, :size], rows[j + 2, :size]
    ap = aq = ar = bp = bq = br = cp = cq = cr = 0.0
    for t in range(size):
        x, y, z, u, v, w = a[t], b[t], c[t], p[t], q[t], r[t]
        ap, aq, ar = ap + x * u, aq + x * v, ar + x * w
        bp, bq, br = bp + y * u, bq + y * v, br + y * w
        cp, cq, cr = cp + z * u, cq + z * v, cr + z * w
    for s, sums in enumerate(((ap, bp, cp), (aq, bq, cq), (ar, br, cr))):
        for t in range(3):
            out[i + t, j + s] += sums[t]
