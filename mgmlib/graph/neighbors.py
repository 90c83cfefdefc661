"""Each query's nearest candidates, and the inner products that NNK needs between them."""

from dataclasses import dataclass

import numpy as np
import torch

from mgmlib.graph.nearest import nearest
from mgmlib.graph.tiles import in_chunks, split_by_size, surroundings

SPARE = 8  # candidates kept beyond k while ranks come from the input's precision, then ranked in float64


@dataclass(frozen=True)
class Block:
    """Queries whose candidates are other rows of their tile, with all inner products of the tiles."""

    ids: torch.Tensor  # (G, n) int64 rows of each tile
    gram: torch.Tensor  # (G, n, n) float64, or float32 where rows are to be certified
    where: torch.Tensor  # (Q, 2) int64: tile and column of each query
    m: int  # candidates of each query, at most n − 1
    near: torch.Tensor | None = (
        None  # (Q, m) int64 columns of the candidates; the nearest of the tile if None
    )
    settled: torch.Tensor | None = None  # (Q,) bool: float32 leaves no doubt about the candidates
    pool: torch.Tensor | None = None  # (Q, wide) rows among which the candidates are beyond doubt

    @property
    def queries(self):
        """(Q,) int64 rows of the queries."""
        return self.ids[self.where[:, 0], self.where[:, 1]]

    def rows(self, near):
        """Rows of the columns ``near`` (Q, m) of each query's tile."""
        return self.ids[self.where[:, 0]].gather(1, near)


def blocks(points, codes, queries, k, block_bytes, threads, single=False, search=nearest):
    """Yield `Block`s that hold, among their tiles, the k nearest others of each query in its group.

    Parameters
    ----------
    points : Points, N rows.
    codes : (N,) int group of each row; rows with code −1 are nobody's candidates.
    queries : (Q,) int rows, sorted, none with code −1.
    k : number of candidates.
    block_bytes : bound on the working memory of a block.
    threads : CPU threads.
    single : large groups get float32 inner products, and candidates ranked by them.
    search : `nearest`, or another function of the same arguments.
    """
    small, large = split_by_size(codes, queries)
    asked = torch.zeros(len(points), dtype=torch.bool, device=points.device)
    asked[torch.as_tensor(queries, device=points.device)] = True
    for groups in small:
        n = groups.shape[1]
        for ids in in_chunks(groups, 8 * n * n, block_bytes):
            ids = torch.as_tensor(ids, device=points.device)
            yield Block(ids, points.gram(ids), torch.nonzero(asked[ids]), min(k, n - 1))
    for group in large:
        group = torch.as_tensor(group, device=points.device)
        search_of = (points, group, group[asked[group]], min(k, len(group) - 1), block_bytes, threads, search)
        yield from _in_single(*search_of) if single else _in_double(*search_of)


def _in_single(points, group, queries, m, block_bytes, threads, search):
    """Large groups in float32: candidates as the search ranks them, its products where it kept them."""
    wide = min(m + SPARE, len(group) - 1)
    near, score, products = search(points, group, queries, wide, torch.float32, block_bytes, threads)
    settled = torch.ones(len(near), dtype=torch.bool, device=near.device)
    if wide > m:  # the first of those left out must be farther by more than rounding
        settled = score[:, m - 1] - score[:, m] > points.rounding[0]
    pool, near = group[near], near[:, :m]
    if products is not None:
        own = torch.searchsorted(group, queries)
        where = torch.stack([torch.zeros_like(own), own], 1)
        yield Block(group[None], torch.from_numpy(products)[None], where, m, near, settled, pool)
        return
    for ids, where, own in _tiles(points, queries, pool, block_bytes):
        found = torch.searchsorted(ids[where[:, 0]], pool[own, :m].contiguous())
        yield Block(ids, points.gram(ids, torch.float32), where, m, found, settled[own], pool[own])


def _in_double(points, group, queries, m, block_bytes, threads, search):
    """Large groups in float64, searched in the precision of the input."""
    wide = min(m + SPARE, len(group) - 1)
    near = search(points, group, queries, wide, points.raw.dtype, block_bytes, threads)[0]
    return in_double(points, queries, group[near], m, block_bytes)


def in_double(points, queries, pool, m, block_bytes):
    """Yield float64 `Block`s that hold each query (Q,) and its ``pool`` (Q, wide) of possible candidates."""
    for ids, where, _ in _tiles(points, queries, pool, block_bytes):
        yield Block(ids, points.gram(ids), where, m)


def _tiles(points, queries, pool, block_bytes):
    """Tiles that hold each query (Q,) with its pool (Q, wide): shared, or one a query where it is less work.

    Yields
    ------
    ids : (G, n) rows of the tiles, sorted. where : (B, 2) tile and column of the queries. own : (B,) which.
    """
    table, size, start = np.full((len(points), pool.shape[1]), -1), pool.shape[1] + 1, 0
    table[queries.cpu().numpy()] = pool.cpu().numpy()
    shared = surroundings(queries.cpu().numpy(), table, hops=1)
    if sum(len(members) ** 2 for members, _ in shared) <= len(queries) * size**2:
        for tile in shared:
            ids, inside = (torch.as_tensor(rows, device=points.device) for rows in tile)
            column = torch.searchsorted(ids, inside)
            own = torch.searchsorted(queries, inside)
            yield ids[None], torch.stack([torch.zeros_like(column), column], 1), own
        return
    every = torch.cat([queries[:, None], pool], 1)
    for part in in_chunks(every, 8 * size**2, block_bytes):
        ids = part.sort(1).values  # ties go to the earlier row
        own = torch.arange(start, start + len(part), device=points.device)
        start += len(part)
        yield ids, torch.nonzero(ids == part[:, :1]), own


def select(points, block, rows):
    """Candidates and kernels of the queries ``rows`` (slice) of a block, in torch on any device.

    Returns
    -------
    near : (B, m) int64 columns, nearest first, ties by column.
    kernel : (B, m, m) float64, K among the candidates. target : (B, m) float64, K with the query.
    """
    tile, i = block.where[rows].unbind(1)
    gram, t = block.gram, tile[:, None]
    square = gram.diagonal(dim1=1, dim2=2)
    near = _of_tile(points, block, tile, i, square) if block.near is None else block.near[rows]
    own, other = square[tile, i][:, None].double(), square[t, near].double()
    among = gram[t[:, :, None], near[:, :, None], near[:, None, :]].double()
    kernel = points.kernel_values(among, other[:, :, None], other[:, None, :])
    return near, kernel, points.kernel_values(gram[t, i[:, None], near].double(), own, other)


def _of_tile(points, block, tile, i, square):
    """(B, m) columns of the nearest others in the tile."""
    score = block.gram[tile, i]
    if points.kernel != "cosine":
        score = score - square[tile] / 2
    score[torch.arange(len(i), device=i.device), i] = -torch.inf
    near = score.topk(block.m, dim=1, sorted=False).indices.sort(1).values
    return near.gather(1, score.gather(1, near).argsort(dim=1, descending=True, stable=True))


def as_rows(queries, n):
    """Validate ``queries``: (Q,) distinct-or-not row numbers of an n-row array; every row when None."""
    if queries is None:
        return np.arange(n)
    queries = np.asarray(queries.cpu() if isinstance(queries, torch.Tensor) else queries)
    if queries.ndim != 1 or not len(queries) or queries.dtype.kind not in "iu":
        raise ValueError(
            f"queries: expected a non-empty list of row numbers, got {queries.dtype} {queries.shape}"
        )
    if queries.min() < 0 or queries.max() >= n:
        raise ValueError(f"queries: rows lie in 0…{n - 1}, got {queries.min()}…{queries.max()}")
    return queries.astype(np.int64)
