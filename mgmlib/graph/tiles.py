"""Tiles: sets of rows small enough that all their inner products fit in a block."""

from collections import deque

import numpy as np

LARGEST = 8192  # rows of a tile: 512 MiB of float64 inner products


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

    Parameters
    ----------
    queries : (Q,) int rows.
    neighbors : (N, s) int rows, −1 pads.
    hops : 1 (neighbours) or 2 (also theirs).

    Yields
    ------
    members : (n,) int64 rows of the tile, sorted; n ≤ `LARGEST`, unless one query alone needs more.
    inside : (B,) int64 queries that the tile serves.
    """
    members, inside = set(), []
    for query in _breadth_first(queries, neighbors):
        reach = {query, *_valid(neighbors[query])}
        if hops == 2:
            reach.update(*(_valid(neighbors[p]) for p in tuple(reach)))
        if inside and len(members) + len(reach - members) > LARGEST:
            yield np.array(sorted(members)), np.array(inside)
            members, inside = set(), []
        members |= reach
        inside.append(query)
    if inside:
        yield np.array(sorted(members)), np.array(inside)


def _valid(row):
    return row[row >= 0].tolist()


def _breadth_first(queries, neighbors):
    waiting, queue = dict.fromkeys(np.asarray(queries).tolist()), deque()
    while waiting or queue:
        if not queue:
            queue.append(next(iter(waiting)))
            del waiting[queue[0]]
        query = queue.popleft()
        yield query
        for p in _valid(neighbors[query]):
            if p in waiting:
                del waiting[p]
                queue.append(p)
