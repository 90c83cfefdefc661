"""Diameter and affinity where a group is spread over tasks: each query among its neighbours, and theirs."""

from dataclasses import replace

import numpy as np

from mgmlib import metrics
from mgmlib.cluster.shards import as_tensor

SIZE = 128  # queries of a task: their stars together are a copy of some 10,000 rows


def task(block, part, on_gpu, polytopes, shape):
    """Diameter and affinity of some rows of a block.

    Each query gets a group of its own, its star: itself and its neighbours, all with their polytopes, and
    the neighbours of those, without. What is measured at a query depends on nothing else.

    Parameters
    ----------
    block, part, on_gpu : as `Shards.run` gives them.
    polytopes : what `polytopes` returned.
    shape : NNKGraph without queries, for its settings.

    Returns
    -------
    (2, len(part)) float64 array.
    """
    z, _, rows = block
    found = [_star(query, *polytopes) for query in rows[part]]
    sizes = np.array([len(members) for members, _ in found])
    heads = np.cumsum(sizes) - sizes
    near = np.concatenate([near for _, near in found])
    indices = np.where(near >= 0, near + np.repeat(heads, sizes)[:, None], -1)
    graph = replace(
        shape,
        queries=np.arange(len(near)),
        indices=indices,
        weights=(near >= 0).astype(float),
        kkt=np.zeros(len(near)),
        converged=np.ones(len(near), dtype=bool),
        n_points=len(near),
        groups=np.repeat(np.arange(len(found)), sizes),
    )
    members = np.searchsorted(rows, np.concatenate([members for members, _ in found]))
    z = as_tensor(z[members], on_gpu)
    return np.stack([metrics.diameter(graph, z)[heads], metrics.affinity(graph, z)[heads]])


def polytopes(graphs):
    """Rows that have a neighbourhood (m,), sorted, and their neighbours (m, s), −1 pads."""
    width = max(int(graph.n_neighbors.max()) for graph in graphs)
    near = []
    for graph in graphs:
        first = np.argsort(~graph.support, axis=1, kind="stable")[:, :width]
        near.append(np.take_along_axis(np.where(graph.support, graph.indices, -1), first, 1))
    rows, first = np.unique(np.concatenate([graph.queries for graph in graphs]), return_index=True)
    return rows, np.concatenate(near)[first]


def _star(query, known, near):
    """Rows of a star (n,), the query first, and the place in it of each one's neighbours (n, s), −1 pads."""
    first = near[np.searchsorted(known, query)]
    inner = np.append(query, first[first >= 0])
    second = near[np.searchsorted(known, inner)]
    members = np.concatenate([inner, np.setdiff1d(second, [*inner, -1])])
    order = np.argsort(members)
    place = np.full((len(members), near.shape[1]), -1)
    found = order[np.searchsorted(members, np.where(second >= 0, second, query), sorter=order)]
    place[: len(inner)] = np.where(second >= 0, found, -1)
    return members, place
