"""The nearest others of many queries in a large group, ranked in the precision of the products."""

import numba
import numpy as np
import torch

from mgmlib.graph.lawson_hanson import with_threads
from mgmlib.graph.products import product

STRIP = 256  # rows multiplied at once; fixed, so that no number depends on how much memory there is
CHUNK, FOLD = 8, 8  # scores that have a peak in common; at most so many peaks are looked at together
FEW = 0.5  # share of the group's rows below which the queries alone are multiplied


def nearest(points, group, queries, wide, dtype, block_bytes, threads):
    """The ``wide`` nearest others of each query, nearest first, ties by row.

    When most rows are queries, each pair is multiplied once and serves both of its ends.

    Parameters
    ----------
    points : Points
    group : (n,) int64 rows, sorted: the candidates.
    queries : (Q,) int64 rows among them, sorted.
    wide : number of others, at most n − 1.
    dtype : precision of the products.
    block_bytes : bound on the working memory; also decides whether all products are kept.
    threads : CPU threads.

    Returns
    -------
    near : (Q, wide) int64 places in ``group``.
    score : (Q, wide) their scores, inner product less half the squared norm of the candidate (RBF).
    products : (n, n) inner products where they were computed and fit into ``block_bytes``, else None.
    """
    n, device = len(group), points.device
    keys = points.keys(group, dtype)
    half = torch.zeros(n, dtype=dtype, device=device)
    if points.kernel != "cosine":
        half = (keys * keys).sum(1) / 2
    rank = torch.full((len(points),), -1, device=device)
    rank[group] = torch.arange(n, device=device)
    own = rank[queries]
    if device.type != "cpu":
        return *_by_topk(keys, half, own, wide, block_bytes), None
    near = np.full((n, wide), -1)
    score = np.full((n, wide), -np.inf, half.numpy().dtype)
    lists = half.numpy(), score, near, threads
    if len(queries) < FEW * n:
        rows = np.empty((STRIP, n), score.dtype)
        for start in range(0, len(own), STRIP):
            ids = own[start : start + STRIP]
            _multiply(keys[ids], keys, rows[: len(ids)])
            _scan(rows[: len(ids)], ids.numpy(), 0, *lists)
        products = None
    elif n * n * keys.element_size() <= block_bytes:
        products = _all_products(keys)
        _scan(products, np.arange(n), 0, *lists)
    else:
        products = None
        _both_ways(keys, lists)
    chosen = own.numpy()
    return torch.from_numpy(near[chosen]), torch.from_numpy(score[chosen]), products


def _multiply(a, b, out):
    product(a, b, torch.from_numpy(out))


def _all_products(keys):
    """(n, n) inner products of all rows; half of them are computed, the rest are their mirror."""
    n = len(keys)
    products = np.empty((n, n), keys.numpy().dtype)
    whole = torch.from_numpy(products)
    for start in range(0, n, STRIP):
        end = start + STRIP
        product(keys[start:end], keys[start:], whole[start:end, start:])
        whole[end:, start:end] = whole[start:end, end:].T
    return products


def _both_ways(keys, lists):
    """Scan strips of products for the rows of the strip and, transposed, for the rows after it."""
    n, dtype = len(keys), keys.numpy().dtype
    strip, turned = np.empty((STRIP, n), dtype), np.empty(STRIP * n, dtype)
    for start in range(0, n, STRIP):
        size, after = min(STRIP, n - start), max(n - start - STRIP, 0)
        rows = strip[:size, start:]
        _multiply(keys[start : start + size], keys[start:], rows)
        _scan(rows, np.arange(start, start + size), start, *lists)
        if after:
            back = turned[: after * size].reshape(after, size)
            torch.from_numpy(back).copy_(torch.from_numpy(rows[:, size:]).T)
            _scan(back, np.arange(start + size, n), start, *lists)


def _scan(rows, ids, first, half, score, near, threads):
    """Merge the products of the keys ``ids`` with the keys from ``first`` on into their lists."""
    with_threads(threads, _merge, rows, ids, first, half, score, near)


@numba.njit(parallel=True, cache=True)
def _merge(rows, ids, first, half, score, near):
    for at in numba.prange(len(rows)):
        merge_row(rows[at], first, half, ids[at], score[ids[at]], near[ids[at]])


@numba.njit(cache=True)
def merge_row(row, first, half, own, best, places):
    """Merge the scores ``row − half`` of keys ``first`` … into a list ``best``, ``places`` of the largest.

    The list descends, equal scores in order of their keys, and does not hold ``own``.
    """
    n, m = len(row), len(best)
    width = max(1, n // CHUNK)  # scores width apart have their peak in common
    peaks = np.full(width, -np.inf, row.dtype)
    for start in range(0, n, width):
        _raise(peaks, row[start : start + width], half[first + start : first + start + width])
    enough = best[m - 1]  # a score below it cannot enter
    coarse = peaks[: width // max(1, min(FOLD, width // (2 * m + 1)))].copy()
    if width > 2 * m:  # as many peaks as the list is long (and one, for ``own``) reach this
        for c in range(len(coarse), width):
            coarse[c % len(coarse)] = max(coarse[c % len(coarse)], peaks[c])
        rank = len(coarse) - m - 1
        enough = max(enough, np.partition(coarse, rank)[rank])
    for c in range(width):
        if peaks[c] < enough:
            continue
        for j in range(c, n, width):
            if row[j] - half[first + j] >= enough and first + j != own:
                _insert(row[j] - half[first + j], first + j, best, places)


@numba.njit(cache=True)
def _raise(peaks, row, half):
    for c in range(len(row)):
        value, peak = row[c] - half[c], peaks[c]
        peaks[c] = value if value > peak else peak


@numba.njit(cache=True)
def _insert(value, key, best, places):
    at = len(best)
    while at > 0 and (best[at - 1] < value or (best[at - 1] == value and places[at - 1] > key)):
        at -= 1
        if at + 1 < len(best):
            best[at + 1], places[at + 1] = best[at], places[at]
    if at < len(best):
        best[at], places[at] = value, key


def _by_topk(keys, half, own, wide, block_bytes):
    """The same on any device."""
    near, score = [], []
    step = max(1, block_bytes // (2 * len(keys) * keys.element_size()))
    for ids in own.split(step):
        part = keys[ids] @ keys.T - half
        part[torch.arange(len(ids), device=ids.device), ids] = -torch.inf
        top = part.topk(wide, dim=1)
        by_row = top.indices.sort(1)
        value, order = top.values.gather(1, by_row.indices).sort(dim=1, descending=True, stable=True)
        near.append(by_row.values.gather(1, order))
        score.append(value)
    return torch.cat(near), torch.cat(score)
