"""Embeddings → NNK graph → metrics by shards of the queries: the tables of the one-process path."""

from dataclasses import fields, replace

import numpy as np
import torch

from mgmlib import graph as graphs
from mgmlib import metrics
from mgmlib.cluster import stars
from mgmlib.cluster.connection import connect
from mgmlib.cluster.shards import Shards, as_tensor
from mgmlib.metrics.manifold import drawn, summarize, unpack

SHARD = 8192  # rows of a task: groups up to this size stay whole


def nnk(z, k=50, *, groups=None, queries=None, address=None, cpus=1, gpus=0, shard=SHARD, **options):
    """NNK neighbourhoods as `mgmlib.nnk` finds them, by shards of the queries over keys in the object store.

    Groups of at most ``shard`` rows stay whole and are packed together; larger ones lie in the object store
    once a machine, and each task takes ``shard`` of their queries.

    Parameters
    ----------
    z, k, groups, queries : as in `mgmlib.nnk`.
    address : as in `embed`.
    cpus, gpus : the share of one task; with ``gpus`` the rows are moved to the GPU.
    shard : rows of a task. The numbers do not depend on it.
    options : further arguments of `mgmlib.nnk`.

    Returns
    -------
    NNKGraph
    """
    ray = connect(address)
    z, groups, queries = _checked(z, groups, queries, shard)
    known = graphs.nnk(
        z, k, groups=groups, queries=queries[:1], **options
    )  # refuses bad input, counts copies
    shards = Shards(ray, z, groups, queries, shard, cpus, gpus, _together(options))
    found = _graph_of(shards, queries, shard, k, options)
    return replace(found, **{name: getattr(known, name) for name in ("n_duplicates", "n_points", "groups")})


def point_metrics(
    z, groups=None, k=50, *, queries=None, seed=0, address=None, cpus=1, gpus=0, shard=SHARD, **options
):
    """The three metrics of each point, as `mgmlib.point_metrics` gives them, by shards as in `nnk`.

    Neighbours that are no queries need a neighbourhood too: each gets it once in the whole cluster, not once
    a task. Groups of at most ``shard`` rows are measured as one process does, to the last bit; in larger ones
    each query is measured among its neighbours and theirs alone, which differs by float64 rounding.

    Parameters
    ----------
    z, groups, k, queries, seed, options : as in `mgmlib.point_metrics`.
    address, cpus, gpus, shard : as in `nnk`.

    Returns
    -------
    DataFrame
    """
    import pandas as pd

    ray = connect(address)
    z, groups = unpack(z, groups)
    z, groups, queries = _checked(z, groups, queries, shard, seed)
    known = metrics.point_metrics(z, groups, k, queries=queries[:1], **options).attrs  # refuses bad input
    shards = Shards(ray, z, groups, queries, shard, cpus, gpus, _together(options))
    split, tables, order = shards.is_split, [], []
    if not split.all():
        tables.append(_of_whole_groups(shards, queries[~split], shard, k, options))
        order.append(np.flatnonzero(~split))
    if split.any():
        tables.append(_of_split_groups(shards, queries[split], shard, k, options))
        order.append(np.flatnonzero(split))
    table = pd.concat(tables).iloc[np.argsort(np.concatenate(order))].reset_index(drop=True)
    lost = sum(part.attrs["n_not_converged"] for part in tables)
    table.attrs = known | {"engine": tables[0].attrs["engine"], "n_not_converged": lost}
    return table


def manifold_metrics(
    z, groups=None, k=50, *, queries=None, calibrated=False, confidence=0.95, n_boot=2000, seed=0, **options
):
    """Summarise the metrics of a set of embeddings, as `mgmlib.manifold_metrics` does, by shards as in `nnk`.

    Parameters
    ----------
    z, groups, k, queries, calibrated, confidence, n_boot, seed : as in `mgmlib.manifold_metrics`.
    options : further arguments of `point_metrics`, such as ``address`` and ``shard``, and of `nnk`.

    Returns
    -------
    DataFrame
    """
    points = point_metrics(z, groups, k, queries=queries, seed=seed, **options)
    return summarize(points, k, calibrated=calibrated, confidence=confidence, n_boot=n_boot, seed=seed)


def _of_whole_groups(shards, queries, shard, k, options):
    """Table of the queries, whose groups are whole: each task does what one process would."""
    import pandas as pd

    parts, back = shards.run(_metrics_task, queries, shard, k, options)
    table = pd.concat(parts).iloc[back]
    table.attrs = parts[0].attrs | {"n_not_converged": sum(part.attrs["n_not_converged"] for part in parts)}
    return table


def _of_split_groups(shards, queries, shard, k, options):
    """Table of the queries, whose groups are split: all neighbourhoods first, then the queries' stars."""
    import pandas as pd

    graph = _graph_of(shards, queries, shard, k, options)
    ring = np.setdiff1d(graph.indices[graph.support], queries)
    parts = [graph, _graph_of(shards, ring, shard, k, options)] if len(ring) else [graph]
    polytopes = shards.ray.put(stars.polytopes(parts))
    shape = replace(graph, **{name: getattr(graph, name)[:0] for name in _by_query(graph)})
    measured, back = shards.run(stars.task, queries, stars.SIZE, polytopes, shape)
    diameter, affinity = np.concatenate(measured, axis=1)[:, back]
    table = pd.DataFrame(
        {
            "row": graph.queries,
            "group": 0 if shards.groups is None else shards.groups[queries],
            "diameter": diameter,
            "affinity": affinity,
            "n_neighbors": graph.n_neighbors,
            "kkt": graph.kkt,
        }
    )
    table.attrs = graph.settings | {"n_not_converged": int((~graph.converged).sum())}
    return table


def _graph_of(shards, queries, shard, k, options):
    """NNKGraph of the queries in the rows of the whole set; its counts and ``groups`` are those of a part."""
    parts, back = shards.run(_graph_task, queries, shard, k, options)
    names = _by_query(parts[0])
    return replace(
        parts[0], **{name: np.concatenate([getattr(part, name) for part in parts])[back] for name in names}
    )


def _by_query(graph):
    """Names of the fields of an NNKGraph that have a row a query."""
    values = {field.name: getattr(graph, field.name) for field in fields(graph)}
    return [name for name, value in values.items() if isinstance(value, np.ndarray) and name != "groups"]


def _graph_task(block, part, on_gpu, k, options):
    z, groups, rows = block
    found = graphs.nnk(as_tensor(z, on_gpu), k, groups=groups, queries=part, **options)
    indices = np.where(found.indices >= 0, rows[found.indices], -1)
    return replace(found, queries=rows[found.queries], indices=indices, groups=None)


def _metrics_task(block, part, on_gpu, k, options):
    z, groups, rows = block
    table = metrics.point_metrics(as_tensor(z, on_gpu), groups, k, queries=part, **options)
    table["row"] = rows[table["row"]]
    return table


def _together(options):
    """RBF rows are centred, and their copies found, at the scale of the whole set: no part shows it."""
    return options.get("kernel") == "rbf"


def _checked(z, groups, queries, shard, seed=0):
    """Rows and groups as arrays on the CPU, queries as row numbers; drawn as `mgmlib.point_metrics` does."""
    if not isinstance(shard, int | np.integer) or shard < 1:
        raise ValueError(f"shard: expected a positive number of rows, got {shard!r}")
    z, groups = _array(z), None if groups is None else _array(groups)
    return z, groups, drawn(queries, len(z), seed)


def _array(values):
    """A tensor or a list as an array on the CPU; numpy has no bfloat16."""
    if isinstance(values, torch.Tensor):
        values = values.detach().cpu()
        values = values.float() if values.dtype == torch.bfloat16 else values
    return np.asarray(values)
