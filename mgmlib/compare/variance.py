"""What a metric's variation is made of: method, training seed, image."""

from __future__ import annotations

import numpy as np
import pandas as pd


def variance_components(values):
    """Variance components of a metric, by the analysis of variance.

    Methods and images are crossed, seeds are nested in methods: value = mean + method + seed(method) + image
    + method × image + rest, all random. Each component is what its expected mean square leaves (Searle,
    Casella & McCulloch, *Variance Components*, 1992, chapter 4); one that comes out negative is set to 0.
    Seed and rest are pooled over the methods with several seeds, the others come from the seeds that every
    method has; where all have the same number this is the analysis of the balanced design.

    Parameters
    ----------
    values : (methods, seeds, images) array, at least two methods and two images
        A method with fewer seeds than another has NaN in its last ones. Where no method has two, "method"
        holds method and seed together, and "rest" holds method × image too.

    Returns
    -------
    Series of shares of the total: method, seed, image, method × image, rest; NaN where one seed cannot say
    """
    values = np.asarray(values, dtype=float)
    n_seeds = _seeds_of_each(values)
    common = n_seeds.min()
    parts = _crossed(values[:, :common].mean(1))
    several = [rows[:n] for rows, n in zip(values, n_seeds, strict=True) if n > 1]
    if several:
        seed, rest = _nested(several)
        parts["method"] -= seed / common
        parts |= {"seed": seed, "method × image": parts["rest"] - rest / common, "rest": rest}
    order = ["method", "seed", "image", "method × image", "rest"]
    parts = pd.Series(parts).reindex(order).clip(lower=0)
    if not parts.sum() > 0:
        raise ValueError("values: all are equal, there is no variance to share out")
    return parts / parts.sum()


def _seeds_of_each(values):
    """How many seeds each method has, of values that are as they should be."""
    if values.ndim == 3 and values.shape[0] >= 2 and values.shape[2] >= 2:
        there = np.isfinite(values)
        n_seeds = there.all(2).sum(1)
        filled = np.arange(values.shape[1]) < n_seeds[:, None]
        if n_seeds.min() > 0 and np.array_equal(there, np.broadcast_to(filled[..., None], there.shape)):
            return n_seeds
    raise ValueError(
        "values: expected finite numbers (methods >= 2, seeds, images >= 2), NaN in the last seeds of a "
        f"method alone, got shape {values.shape}"
    )


def _crossed(table):
    """Components of (methods, images) with one value in each cell."""
    m, i = table.shape
    by_method, by_image, mean = table.mean(1), table.mean(0), table.mean()
    rest = ((table - by_method[:, None] - by_image + mean) ** 2).sum() / ((m - 1) * (i - 1))
    return {
        "method": by_method.var(ddof=1) - rest / i,
        "image": by_image.var(ddof=1) - rest / m,
        "rest": rest,
    }


def _nested(several):
    """Components of seed and rest, pooled over methods of several seeds, each (seeds, images)."""
    n_images = several[0].shape[1]
    freedom = sum(len(rows) - 1 for rows in several)
    means = [rows.mean(1) for rows in several]
    left = [
        rows - mean[:, None] - (rows.mean(0) - mean.mean()) for rows, mean in zip(several, means, strict=True)
    ]
    rest = sum((part**2).sum() for part in left) / (freedom * (n_images - 1))
    seed = sum(((mean - mean.mean()) ** 2).sum() for mean in means) / freedom
    return seed - rest / n_images, rest
