"""A model as a vector: each metric on each manifold, by its mean and its spread over the groups."""

from __future__ import annotations

import numpy as np
import pandas as pd

from mgmlib.metrics import METRICS


def vectors_of_summaries(table, metrics=METRICS):
    """Vectors from summaries of each manifold.

    Parameters
    ----------
    table : DataFrame
        model, manifold, metric, mean, spread; several rows of one model and manifold (seeds) are averaged.
    metrics : sequence of str

    Returns
    -------
    DataFrame (models, manifolds × metrics × 2), in the order of the table
        Columns: manifold, metric, statistic ("mean" or "spread").
    """
    part = table[table["metric"].isin(metrics)]
    keys = ["model", "manifold", "metric"]
    means = part.groupby(keys, sort=False)[["mean", "spread"]].mean()
    wide = means.stack().unstack(["manifold", "metric", None], sort=False)
    return _named(wide.loc[part["model"].unique()])


def vectors_of_groups(groups, metrics=METRICS):
    """Vectors from the mean of each group; the seeds of a model are averaged.

    Parameters
    ----------
    groups : DataFrame
        model, seed, manifold, group, and a column for each metric.
    metrics : sequence of str

    Returns
    -------
    DataFrame
        As of `vectors_of_summaries`.
    """
    per_seed = groups.groupby(["model", "seed", "manifold"], sort=False)[list(metrics)].agg(["mean", "std"])
    per_model = per_seed.groupby(["model", "manifold"], sort=False).mean()
    wide = per_model.rename(columns={"std": "spread"}, level=1).unstack("manifold", sort=False)
    wide.columns = wide.columns.reorder_levels([2, 0, 1])
    return _named(wide.loc[groups["model"].unique()])


def resampled_vectors(groups, n, seed=0, metrics=METRICS):
    """Vectors of ``n`` resamples of the groups of each manifold, and of the seeds of each model.

    All models share a draw of groups, for they were measured on the same images.

    Parameters
    ----------
    groups, metrics
        As of `vectors_of_groups`. Every model and seed has the same groups.
    n : int
    seed : int

    Yields
    ------
    DataFrame
        As of `vectors_of_groups`.
    """
    rng = np.random.default_rng(seed)
    cubes, models = _cubes(groups, metrics), groups["model"].unique()
    columns = [(name, m, s) for name in cubes for m in metrics for s in ("mean", "spread")]
    for _ in range(n):
        rows = {model: [] for model in models}
        for cube in cubes.values():
            draw = rng.integers(0, next(iter(cube.values())).shape[1], next(iter(cube.values())).shape[1])
            for model in models:
                seeds = rng.integers(0, len(cube[model]), len(cube[model]))
                picked = cube[model][seeds][:, draw]
                both = picked.mean(1).mean(0), picked.std(1, ddof=1).mean(0)
                rows[model] += np.column_stack(both).ravel().tolist()
        yield _named(pd.DataFrame.from_dict(rows, orient="index", columns=pd.MultiIndex.from_tuples(columns)))


def standardize(vectors):
    """Columns of mean 0 and deviation 1 over the models; columns that do not vary are left out."""
    spread = vectors.std(ddof=0)
    kept = spread > 1e-12 * vectors.abs().max()
    if not kept.any():
        raise ValueError(f"vectors: all {len(vectors)} models are the same in every column")
    return (vectors.loc[:, kept] - vectors.loc[:, kept].mean()) / spread[kept]


def _cubes(groups, metrics):
    """Manifold -> model -> array (seeds, groups, metrics)."""
    cubes = {}
    for (manifold, model), part in groups.groupby(["manifold", "model"], sort=False):
        ordered = part.sort_values(["seed", "group"])
        n_seeds = part["seed"].nunique()
        cube = ordered[list(metrics)].to_numpy(float).reshape(n_seeds, -1, len(metrics))
        cubes.setdefault(manifold, {})[model] = cube
    for manifold, cube in cubes.items():
        sizes = {model: values.shape[1] for model, values in cube.items()}
        if len(set(sizes.values())) > 1:
            raise ValueError(f"groups: {manifold} has another number of groups in each model: {sizes}")
    return cubes


def _named(wide):
    wide.columns = wide.columns.set_names(["manifold", "metric", "statistic"])
    wide.index.name = "model"
    return wide
