"""The NNK polytope of each point: its neighbours, in tiles whose inner products are at hand."""

from dataclasses import dataclass

import numpy as np
import torch

from mgmlib.graph.nnk import nnk
from mgmlib.graph.points import check_points
from mgmlib.graph.tiles import in_chunks, split_by_size, surroundings

BLOCK_BYTES = 2**28
CACHED = 2**25  # of groups that are done at once on the CPU: they stay in its cache, and memory is used again


@dataclass(frozen=True)
class Tile:
    """Points of one group (or part of it), several groups of one size at once, in local numbers."""

    gram: torch.Tensor  # (G, n, n) float64 inner products of centred rows
    neighbors: torch.Tensor  # (G, n, s) int64 local number of each neighbour, 0 where ``present`` is False
    present: torch.Tensor  # (G, n, s) bool
    queries: torch.Tensor  # (B, 2) int64: tile, local number
    rows: np.ndarray  # (B,) int64 rows of z of the queries
    unit: float = 1.0  # length of 1 in ``gram``, in units of z

    def arrays(self):
        """What the CPU loops take: gram, neighbors, counts (G, n) of neighbours, queries; numpy."""
        tensors = (self.gram, self.neighbors, self.present.sum(2), self.queries)
        return tuple(tensor.numpy() for tensor in tensors)

    def differences(self, tile, p, q):
        """⟨z_i − z_p, z_j − z_q⟩ for i ∈ N(p), j ∈ N(q), zero where absent: (B,), (B,), (B,) → (B, s, s)."""
        i, j = self.neighbors[tile, p][:, :, None], self.neighbors[tile, q][:, None, :]
        t, p_, q_ = tile[:, None, None], p[:, None, None], q[:, None, None]
        inner = self.gram[t, i, j] - self.gram[t, i, q_] - self.gram[t, p_, j] + self.gram[t, p_, q_]
        return inner * (self.present[tile, p][:, :, None] & self.present[tile, q][:, None, :])


def polytopes(graph, z, hops):
    """Yield `Tile` after `Tile` until every query of ``graph`` was served once.

    Parameters
    ----------
    graph : NNKGraph made from ``z``.
    z : (N, d) array or tensor.
    hops : 1, neighbours only; 2, also the polytopes of the neighbours (a query subset is completed for that).
    """
    settings = graph.settings
    points = check_points(z, settings["kernel"], settings["bandwidth"])
    if len(points) != graph.n_points:
        raise ValueError(f"z: the graph was made from {graph.n_points} rows, got {len(points)}")
    table = _neighbor_table(graph, z, len(points), hops)
    codes = np.zeros(len(points), dtype=np.int64) if graph.groups is None else graph.groups
    queries = np.unique(graph.queries)
    asked = np.zeros(len(points), dtype=bool)
    asked[queries] = True
    small, large = split_by_size(codes, queries)
    room = CACHED if points.device.type == "cpu" else BLOCK_BYTES
    for groups in small:
        n, width = groups.shape[1], table.shape[1]
        for ids in in_chunks(groups, 8 * n * (n + 2 * (width + 1) ** 2), room):
            yield _tile(points, ids, table, asked[ids])
    for group in large:
        for members, inside in surroundings(group[asked[group]], table, hops):
            served = np.zeros(len(points), dtype=bool)
            served[inside] = True
            yield _tile(points, members[None], table, served[members][None])


def _neighbor_table(graph, z, n, hops):
    """(N, s) neighbours of every point that matters, −1 pads."""
    pairs = [(graph.queries, graph.indices, graph.support)]
    needed = np.zeros(n, dtype=bool)
    needed[graph.indices[graph.support]] = hops == 2
    needed[graph.queries] = False
    missing = np.flatnonzero(needed)
    if len(missing):
        more = nnk(z, queries=missing, groups=graph.groups, **graph.settings)
        pairs.append((more.queries, more.indices, more.support))
    width = max(int(support.sum(1).max()) for _, _, support in pairs)
    table = np.full((n, width), -1)
    for rows, indices, support in pairs:
        (at, column), counts = np.nonzero(support), support.sum(1)
        place = np.arange(len(at)) - np.repeat(np.cumsum(counts) - counts, counts)
        table[rows[at], place] = indices[at, column]
    return table


def _tile(points, ids, table, asked):
    """Gather one tile: rows ``ids`` (G, n), of which ``asked`` are queries."""
    local = np.full(len(points), -1)
    local[ids] = np.arange(ids.shape[1])  # groups are disjoint: one number a row is enough
    near = table[ids]
    width = max(1, int((near >= 0).sum(2).max()))
    near = near[:, :, :width]
    number = np.where(near >= 0, local[near], -1)
    present = number >= 0
    # In a part of a large group, only points whose neighbours are all inside have a polytope here.
    present &= (present == (near >= 0)).all(2, keepdims=True)
    queries = np.argwhere(asked)
    move = lambda array: torch.as_tensor(array, device=points.device)  # noqa: E731
    return Tile(
        gram=points.gram(move(ids), center=True),
        neighbors=move(np.where(present, number, 0)),
        present=move(present),
        queries=move(queries),
        rows=ids[queries[:, 0], queries[:, 1]],
        unit=points.unit,
    )


def by_query(graph, n, values):
    """Pairs of rows and their values, in any order → (Q,) values in the order of the queries."""
    table = np.full(n, np.nan)
    for rows, value in values:
        table[rows] = value
    return table[graph.queries]
