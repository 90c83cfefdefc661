"""The nearest others of many queries in a large group, ranked in the precision of the products."""

import numba
import numpy as np
import torch

from mgmlib.graph import grams
from mgmlib.graph.lawson_hanson import with_threads
from mgmlib.graph.products import STRIP, mirrored, product
from mgmlib.graph.ranks import merge_row
from mgmlib.graph.screen import screen

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
    few = len(queries) < FEW * n
    screened = None if few else screen(keys, half, own, wide, points.rounding[0], block_bytes, threads)
    if screened:
        return *_by_tiles(keys, half, own, wide, *screened, threads), None
    near, score = _empty(n, wide, half)
    lists = half.numpy(), score, near, threads
    products = _one_way(keys, own, lists) if few else _all_ways(keys, block_bytes, lists)
    chosen = own.numpy()
    return torch.from_numpy(near[chosen]), torch.from_numpy(score[chosen]), products


def _empty(n, wide, half):
    """Lists of the nearest that hold nothing yet: places (n, wide) and scores (n, wide)."""
    return np.full((n, wide), -1), np.full((n, wide), -np.inf, half.numpy().dtype)


def _by_tiles(keys, half, own, wide, tiles, doubt, threads):
    """The nearest of the rows ``own`` and their scores: in their tile; among all where in ``doubt``."""
    near, score = _empty(len(keys), wide, half)
    for members, inside in tiles:
        products = mirrored(keys[torch.from_numpy(members)], strip=grams.STRIP)
        columns, of_tile = np.searchsorted(members, inside), half.numpy()[members]
        with_threads(threads, _merge_tile, products.numpy(), columns, of_tile, members, inside, score, near)
    _one_way(keys, doubt, (half.numpy(), score, near, threads))
    return torch.from_numpy(near[own]), torch.from_numpy(score[own])


@numba.njit(parallel=True, cache=True)
def _merge_tile(products, columns, half, members, inside, score, near):
    """Lists of the rows ``inside``, at ``columns`` of a tile, from the products among its ``members``."""
    for at in numba.prange(len(columns)):
        row, own = inside[at], columns[at]
        merge_row(products[own], 0, half, own, score[row], near[row])
        for i in range(len(near[row])):
            near[row, i] = members[near[row, i]]


def _all_ways(keys, block_bytes, lists):
    """Scan the products of all rows with all others; returns them where they fit into ``block_bytes``."""
    n = len(keys)
    if n * n * keys.element_size() > block_bytes:
        return _both_ways(keys, lists)
    products = mirrored(keys).numpy()
    _scan(products, np.arange(n), 0, *lists)
    return products


def _one_way(keys, own, lists):
    """Scan the products of the rows ``own`` with all rows."""
    rows = np.empty((STRIP, len(keys)), lists[1].dtype)
    for ids in own.split(STRIP):
        _multiply(keys[ids], keys, rows[: len(ids)])
        _scan(rows[: len(ids)], ids.numpy(), 0, *lists)


def _multiply(a, b, out):
    product(a, b, torch.from_numpy(out))


def _both_ways(keys, lists):
    """Scan strips of products for the rows of the strip and, transposed, for the rows after it."""
    n, dtype = len(keys), lists[1].dtype
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
