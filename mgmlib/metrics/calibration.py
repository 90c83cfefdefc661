"""Calibrated dimension: what a mean number of NNK neighbours means, read off manifolds of known dimension."""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from mgmlib.graph.nnk import nnk
from mgmlib.metrics.shapes import SHAPES

DIMENSIONS = (1, 2, 3, 4, 5, 6, 8, 10, 12, 16, 20, 24, 32)


@dataclass(frozen=True)
class Calibration:
    """The curve mean ``|N(q)|`` ↔ dimension for sets of ``n`` points and ``k`` candidates.

    ``table`` is a DataFrame, one row a run: dimension, shape, repeat, count (mean ``|N(q)|`` of the set).
    """

    n: int
    k: int
    table: object

    @property
    def curve(self):
        """DataFrame by dimension: count (mean over shapes and repeats), low, high (± 2 s.d. of the runs)."""
        import pandas as pd

        runs = self.table.groupby("dimension")["count"]
        mean, sd = runs.mean(), runs.std(ddof=1)
        curve = pd.DataFrame({"count": mean, "low": mean - 2 * sd, "high": mean + 2 * sd})
        return curve.cummax()  # more dimensions never need fewer neighbours; what remains is noise

    def __call__(self, counts):
        """Dimensions of sets whose mean number of neighbours is ``counts``.

        Returns
        -------
        DataFrame: count, dimension, low, high (the dimensions whose band holds the count; uncertainty about
        the set's shape and sampling), inside (False where the count lies beyond the curve: the dimension is
        then the nearest end of it, a bound rather than an estimate).
        """
        import pandas as pd

        counts, curve = np.atleast_1d(np.asarray(counts, dtype=float)), self.curve
        invert = lambda column: np.interp(counts, curve[column], curve.index)  # noqa: E731
        return pd.DataFrame(
            {
                "count": counts,
                "dimension": invert("count"),
                "low": invert("high"),
                "high": invert("low"),
                "inside": (counts >= curve["count"].iloc[0]) & (counts <= curve["count"].iloc[-1]),
            }
        )


@lru_cache(maxsize=64)
def calibrate(
    n, k=50, *, dimensions=DIMENSIONS, shapes=tuple(SHAPES), repeats=4, seed=0, solver="exact", tol=1e-6
):
    """Measure the calibration curve at the sample size of a study.

    The count depends on n and k as well as on the dimension (boundary points need fewer neighbours, and small
    sets are all boundary), so that a raw count is comparable only at equal n and k. The curve removes that.

    Parameters
    ----------
    n : points in each set. k : candidates of each query.
    dimensions : tuple of int. shapes : tuple of names in `mgmlib.metrics.shapes.SHAPES`.
    repeats : sets drawn per dimension and shape. seed : of the draws.
    solver, tol : as in `nnk`; the kernel is cosine.

    Returns
    -------
    Calibration
    """
    import pandas as pd

    unknown = set(shapes) - set(SHAPES)
    if unknown or not shapes:
        raise ValueError(f"shapes: got {shapes!r}, known are {', '.join(SHAPES)}")
    if repeats * len(shapes) < 2:
        raise ValueError("repeats: one run per dimension has no spread; ask for two runs or more")
    rows = []
    for dimension in dimensions:
        for shape in shapes:
            for repeat in range(repeats):
                rng = np.random.default_rng([seed, n, dimension, list(SHAPES).index(shape), repeat])
                graph = nnk(SHAPES[shape](n, dimension, rng), k, solver=solver, tol=tol)
                rows.append((dimension, shape, repeat, graph.n_neighbors.mean()))
    return Calibration(n, k, pd.DataFrame(rows, columns=["dimension", "shape", "repeat", "count"]))
