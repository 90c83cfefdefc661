"""Tiles: sets of rows small enough that all their inner products fit in a block."""

import numba
import numpy as np

LARGEST = 512  # rows of a group that is one tile outright
SIZES = (
    256,
    512,
    1024,
    2048,
    4096,
)  # rows of the tiles that cover a larger group, at most 128 MiB of products


def split_by_size(codes, rows):
    """Members of the groups that hold ``rows``, small groups apart from large ones.

    Parameters
    ----------
    codes : (N,) int group of each row, −1 for rows that take no part.
    rows : (Q,) int rows of interest.

    Returns
    -------
    small : list of (G, n) int64 arrays, the groups of n ≤ `LARGEST` rows, one array per n.
    large : list of (n,) int64 arrays, the groups of more rows.
    """
    order = np.argsort(codes, kind="stable")
    wanted, sizes = np.unique(codes, return_counts=True)
    ends = np.cumsum(sizes)
    touched = np.isin(wanted, np.unique(codes[rows])) & (wanted >= 0)
    groups = [order[end - size : end] for end, size in zip(ends[touched], sizes[touched], strict=True)]
    by_size = {}
    for group in groups:
        by_size.setdefault(len(group), []).append(group)
    small = [np.stack(members) for size, members in sorted(by_size.items()) if size <= LARGEST]
    return small, [group for group in groups if len(group) > LARGEST]


def in_chunks(array, bytes_each, block_bytes):
    """Slices of ``array`` along its first axis whose work stays within ``block_bytes``."""
    step = max(1, int(block_bytes // max(bytes_each, 1)))
    return [array[start : start + step] for start in range(0, len(array), step)]


def surroundings(queries, neighbors, hops):
    """Cover the queries of a large group by tiles that hold all points up to ``hops`` steps away.

    Queries are visited along the graph, breadth first, so that a tile's queries share their surroundings.
    Tiles grow through the `SIZES` as long as that leaves fewer inner products: they stay small where
    neighbourhoods overlap.

    Parameters
    ----------
    queries : (Q,) int rows, each once.
    neighbors : (N, s) int rows, −1 pads.
    hops : 1 (neighbours) or 2 (also theirs).

    Returns
    -------
    list of (members, inside): (n,) int64 rows of a tile, sorted, and the (B,) int64 queries that it serves. A
        tile is larger than its size where one query alone needs more.
    """
    best, least = [], np.inf
    for size in SIZES:
        tiles = _cover(queries, neighbors, hops, size)
        work = sum(len(members) ** 2 for members, _ in tiles)
        if work >= least:
            break
        best, least = tiles, work
    return best


def _cover(queries, neighbors, hops, size):
    n, width = neighbors.shape
    members = np.empty(min(n, size + 1 + width + (hops - 1) * width**2), np.int64)
    queue, waiting, seen = np.empty(len(queries), np.int64), np.zeros(n, np.bool_), np.full(n, -1)
    waiting[queries] = True
    enough = SIZES[0] // 2  # rows that are worth a tile of their own
    at, tiles = np.zeros(3, np.int64), []  # queue: next to serve, its end; next query to start from
    while at[0] < len(queries):
        first = at[0]
        filled = _fill(queries, neighbors, hops, size, enough, len(tiles), queue, waiting, seen, at, members)
        tiles.append((np.sort(members[:filled]), queue[first : at[0]]))
    return tiles


@numba.njit(cache=True)
def _fill(queries, neighbors, hops, size, enough, tile, queue, waiting, seen, at, members):
    """Serve queries in breadth-first order while their surroundings fit; returns the number of members."""
    filled, first = 0, at[0]
    while at[0] < len(queries) and filled <= size:  # more than that only if one query alone needs it
        if at[0] == at[1]:  # this part of the graph is done: the next one shares nothing with it
            if filled >= enough:
                return filled
            while not waiting[queries[at[2]]]:
                at[2] += 1
            waiting[queries[at[2]]] = False
            queue[at[1]] = queries[at[2]]
            at[1] += 1
        query = queue[at[0]]
        before, filled = filled, _join(neighbors, query, hops, tile, seen, members, filled)
        if filled > size and at[0] > first:
            for row in members[before:filled]:
                seen[row] = -1
            return before
        at[0] += 1
        for p in neighbors[query]:
            if p >= 0 and waiting[p]:
                waiting[p] = False
                queue[at[1]] = p
                at[1] += 1
    return filled


@numba.njit(cache=True)
def _join(neighbors, query, hops, tile, seen, members, filled):
    """Add what lies within ``hops`` of the query to the members of the tile."""
    if seen[query] != tile:
        seen[query], members[filled] = tile, query
        filled += 1
    for p in neighbors[query]:
        if p >= 0:
            if seen[p] != tile:
                seen[p], members[filled] = tile, p
                filled += 1
            if hops == 2:
                for r in neighbors[p]:
                    if r >= 0 and seen[r] != tile:
                        seen[r], members[filled] = tile, r
                        filled += 1
    return filled
