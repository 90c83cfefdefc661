"""Manifold graph metrics (MGMs): a set of embeddings → one row per metric, with its uncertainty."""

import numpy as np

from mgmlib.graph.neighbors import as_rows
from mgmlib.graph.nnk import nnk
from mgmlib.metrics.affinity import affinity
from mgmlib.metrics.calibration import calibrate
from mgmlib.metrics.diameter import diameter

METRICS = ("diameter", "affinity", "n_neighbors")  # invariance, curvature, intrinsic dimension


def point_metrics(z, groups=None, k=50, *, queries=None, seed=0, **options):
    """The three metrics of each point.

    Parameters
    ----------
    z : Embeddings, or (N, d) array or tensor.
    groups : (N,) int, optional: the manifold each row belongs to; those of the Embeddings by default.
    k : number of candidates.
    queries : rows, or a number of rows to be drawn at random with ``seed``; every row by default.
    options : further arguments of `nnk`.

    Returns
    -------
    DataFrame, one row a query: row, group, diameter, affinity (NaN where undefined), n_neighbors, kkt.
        ``attrs`` holds the parameters, the number of duplicates and of points not converged.
    """
    import pandas as pd

    z, groups = unpack(z, groups)
    n = len(z)
    queries = drawn(queries, n, seed)
    graph = nnk(z, k, groups=groups, queries=queries, **options)
    names = np.zeros(n, dtype=np.int64) if groups is None else np.asarray(groups)
    table = pd.DataFrame(
        {
            "row": graph.queries,
            "group": names[graph.queries],
            "diameter": diameter(graph, z),
            "affinity": affinity(graph, z),
            "n_neighbors": graph.n_neighbors,
            "kkt": graph.kkt,
        }
    )
    sizes = np.unique(names, return_counts=True)[1]
    table.attrs = graph.settings | {
        "n_duplicates": graph.n_duplicates,
        "n_not_converged": int((~graph.converged).sum()),
        "group_size": int(np.median(sizes)),
    }
    return table


def manifold_metrics(
    z, groups=None, k=50, *, queries=None, calibrated=False, confidence=0.95, n_boot=2000, seed=0, **options
):
    """Summarise the manifold graph metrics of a set of embeddings.

    Parameters
    ----------
    z, groups, k, queries, options : as in `point_metrics`.
    calibrated : also give "dimension", the calibrated intrinsic dimension at this group size and k.
    confidence : of the interval, a percentile bootstrap over groups (over points if there is one group only).
    n_boot, seed : bootstrap draws and their seed.

    Returns
    -------
    DataFrame, one row a metric: metric ("diameter", "affinity", "n_neighbors"), mean (over points), spread
        (standard deviation over group means; over points if there is one group), low, high (interval of the
        mean), standard_error (of the mean, from the same bootstrap), n_points, n_groups, n_undefined (points
        without an affinity, left out of its mean).
    """
    points = point_metrics(z, groups, k, queries=queries, seed=seed, **options)
    return summarize(points, k, calibrated=calibrated, confidence=confidence, n_boot=n_boot, seed=seed)


def summarize(points, k, *, calibrated=False, confidence=0.95, n_boot=2000, seed=0):
    """The table of `manifold_metrics` from that of `point_metrics`; parameters and returns as there."""
    import pandas as pd

    rows = [_summary(points, metric, confidence, n_boot, seed) for metric in METRICS]
    if calibrated:
        rows.append(_dimension(rows[-1], points.attrs, k, seed))
    table = pd.DataFrame(rows)
    table.attrs = points.attrs | {"confidence": confidence, "n_boot": n_boot, "seed": seed}
    return table


def unpack(z, groups):
    """Embeddings carry their groups along; arrays take them as an argument."""
    return (z.z, z.groups if groups is None else groups) if hasattr(z, "z") else (z, groups)


def drawn(queries, n, seed):
    """Queries as row numbers: those given, all ``n``, or where a number is given so many drawn at random."""
    if isinstance(queries, int | np.integer):
        if not 1 <= queries <= n:
            raise ValueError(f"queries: expected 1…{n} rows to draw, got {queries}")
        queries = np.sort(np.random.default_rng(seed).choice(n, queries, replace=False))
    return as_rows(queries, n)


def _summary(points, metric, confidence, n_boot, seed):
    known = points.dropna(subset=[metric])
    if not len(known):
        raise ValueError(f"{metric}: undefined for all {len(points)} points (every polytope has rank 0)")
    unit = "group" if points["group"].nunique() > 1 else "row"
    values = known.groupby(unit)[metric]
    total, count = values.sum().to_numpy(float), values.count().to_numpy()
    rng = np.random.default_rng([seed, METRICS.index(metric)])
    draw = rng.integers(0, len(total), (n_boot, len(total)))
    means = total[draw].sum(1) / count[draw].sum(1)
    tail = (1 - confidence) / 2
    low, high = np.quantile(means, [tail, 1 - tail])
    return {
        "metric": metric,
        "mean": total.sum() / count.sum(),
        "spread": np.std(total / count, ddof=1) if len(total) > 1 else 0.0,
        "low": low,
        "high": high,
        "standard_error": means.std(ddof=1),
        "n_points": len(known),
        "n_groups": known["group"].nunique(),
        "n_undefined": len(points) - len(known),
    }


def _dimension(count, attrs, k, seed):
    """The row of ``n_neighbors`` on the scale of dimensions; the band adds the curve's own uncertainty."""
    curve = calibrate(attrs["group_size"], k, seed=seed, solver=attrs["solver"], tol=attrs["tol"])
    mean, low, high = (curve(count[name]).iloc[0] for name in ("mean", "low", "high"))
    wide = curve([max(count["mean"] - count["spread"], 0), count["mean"] + count["spread"]])["dimension"]
    return count | {
        "metric": "dimension",
        "mean": mean["dimension"],
        "spread": (wide[1] - wide[0]) / 2,
        "low": low["low"],
        "high": high["high"],
        "standard_error": (high["dimension"] - low["dimension"]) / 4,
    }
