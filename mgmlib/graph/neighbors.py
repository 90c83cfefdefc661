"""Each query's nearest candidates, and the inner products that NNK needs between them."""

from dataclasses import dataclass

import numpy as np
import torch

from mgmlib.graph.tiles import in_chunks, split_by_size

SPARE = 8  # candidates kept beyond k while ranks come from the input's precision, then ranked in float64


@dataclass(frozen=True)
class Block:
    """Queries whose candidates are the other rows of their tile, with all inner products of the tiles."""

    ids: torch.Tensor  # (G, n) int64 rows of each tile
    gram: torch.Tensor  # (G, n, n) float64 inner products
    where: torch.Tensor  # (Q, 2) int64: tile and column of each query
    m: int  # candidates of each query, at most n − 1

    @property
    def queries(self):
        """(Q,) int64 rows of the queries."""
        return self.ids[self.where[:, 0], self.where[:, 1]]

    def rows(self, near):
        """Rows of the columns ``near`` (Q, m) of each query's tile."""
        return self.ids[self.where[:, :1], near]


def blocks(points, codes, queries, k, block_bytes):
    """Yield `Block`s that hold, among their tiles, the k nearest others of each query in its group.

    Parameters
    ----------
    points : Points, N rows.
    codes : (N,) int group of each row; rows with code −1 are nobody's candidates.
    queries : (Q,) int rows, none with code −1.
    k : number of candidates.
    block_bytes : bound on the working memory of a block.
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
        yield from _one_by_one(points, group, group[asked[group]], min(k, len(group) - 1), block_bytes)


def _one_by_one(points, group, queries, m, block_bytes):
    """Large groups: a tile for each query, of those that are nearest in the input's precision."""
    wide = min(m + SPARE, len(group) - 1)
    near = _nearest_roughly(points, group, queries, wide, block_bytes)
    every = torch.cat([queries[:, None], near], 1)
    for ids in in_chunks(every, 8 * (wide + 1) * (points.raw.shape[1] + 3 * wide), block_bytes):
        tile = torch.arange(len(ids), device=points.device)
        yield Block(ids, points.gram(ids), torch.stack([tile, tile * 0], 1), m)


def _nearest_roughly(points, group, queries, wide, block_bytes):
    """Rows of the ``wide`` nearest others of each query, ranked in the input's precision, sorted by row."""
    keys = torch.cat([points.rows(part).to(points.raw.dtype) for part in group.split(8192)])
    half = _half_squares(points, (keys * keys).sum(1))
    rank = torch.full((len(points),), -1, device=points.device)
    rank[group] = torch.arange(len(group), device=points.device)
    near = []
    for own in in_chunks(rank[queries], 2 * len(group) * keys.element_size(), block_bytes):
        score = keys[own] @ keys.T - half
        score[torch.arange(len(own), device=own.device), own] = -torch.inf
        near.append(group[score.topk(wide, dim=1, sorted=False).indices])
    return torch.cat(near).sort(1).values


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
    score = gram[tile, i] - _half_squares(points, square)[tile]
    score[torch.arange(len(i), device=i.device), i] = -torch.inf
    near = score.topk(block.m, dim=1, sorted=False).indices.sort(1).values
    near = near.gather(1, score.gather(1, near).argsort(dim=1, descending=True, stable=True))
    own, other = square[tile, i][:, None], square[t, near]
    among = gram[t[:, :, None], near[:, :, None], near[:, None, :]]
    kernel = points.kernel_values(among, other[:, :, None], other[:, None, :])
    return near, kernel, points.kernel_values(gram[t, i[:, None], near], own, other)


def _half_squares(points, square):
    """What turns inner products into an order by distance: nothing on the sphere, ½‖·‖² elsewhere."""
    return torch.zeros_like(square) if points.kernel == "cosine" else square / 2


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
