"""Each query's k nearest candidates, with the inner products that NNK needs between them."""

from dataclasses import dataclass

import numpy as np
import torch

from mgmlib.graph.tiles import in_chunks, split_by_size

SPARE = 8  # candidates kept beyond k while ranks come from the input's precision, then ranked in float64


@dataclass(frozen=True)
class Neighborhoods:
    """A block of queries; candidates are sorted nearest first, ties by row."""

    queries: torch.Tensor  # (B,) int64 rows
    candidates: torch.Tensor  # (B, m) int64 rows
    kernel: torch.Tensor  # (B, m, m) float64, K among the candidates
    target: torch.Tensor  # (B, m) float64, K between query and candidates


def neighborhoods(points, codes, queries, k, block_bytes):
    """Yield `Neighborhoods` of the queries: the min(k, n−1) nearest others of the same group, exactly.

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
            yield from _from_tile(points, ids, asked[ids], min(k, n - 1), block_bytes)
    for group in large:
        group = torch.as_tensor(group, device=points.device)
        yield from _one_by_one(points, group, group[asked[group]], min(k, len(group) - 1), block_bytes)


def _from_tile(points, ids, asked, m, block_bytes):
    """Small groups: every inner product once, everything else by look-up."""
    gram = points.gram(ids)
    half = _half_squares(points, gram.diagonal(dim1=1, dim2=2))
    for where in in_chunks(torch.nonzero(asked), 16 * m * m + 32 * ids.shape[1], block_bytes):
        tile, i = where.unbind(1)
        score = gram[tile, i] - half[tile]
        score[torch.arange(len(i), device=i.device), i] = -torch.inf
        near = score.topk(m, dim=1, sorted=False).indices
        yield _look_up(points, ids, gram, tile, i, near, m)


def _one_by_one(points, group, queries, m, block_bytes):
    """Large groups: ranked in the input's precision first, then each query's best again in float64."""
    wide = min(m + SPARE, len(group) - 1)
    near = _nearest_roughly(points, group, queries, wide, block_bytes)
    every = torch.cat([queries[:, None], near], 1)  # each query is a tile of its own, itself in front
    columns = torch.arange(wide + 1, device=points.device)
    for ids in in_chunks(every, 8 * (wide + 1) * (points.raw.shape[1] + 3 * wide), block_bytes):
        tile = torch.arange(len(ids), device=points.device)
        yield _look_up(points, ids, points.gram(ids), tile, tile * 0, columns[1:].expand(len(ids), -1), m)


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


def _look_up(points, ids, gram, tile, i, near, m):
    """Rank the candidates ``near`` of each query ``i``, ties by row, and collect the best m."""
    square = gram.diagonal(dim1=1, dim2=2)
    near, t = near.sort(1).values, tile[:, None]
    score = gram[t, i[:, None], near] - _half_squares(points, square)[t, near]
    near = near.gather(1, score.argsort(dim=1, descending=True, stable=True)[:, :m])
    row, column = near[:, :, None], near[:, None, :]
    own, other = square[tile, i][:, None], square[t, near]
    kernel = points.kernel_values(gram[t[:, :, None], row, column], other[:, :, None], other[:, None, :])
    target = points.kernel_values(gram[t, i[:, None], near], own, other)
    return Neighborhoods(ids[tile, i], ids[t, near], kernel, target)


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
