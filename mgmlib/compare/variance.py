"""What a metric's variation is made of: method, training seed, image."""

from __future__ import annotations

import numpy as np
import pandas as pd


def variance_components(values):
    """Variance components of a metric, by the analysis of variance of a balanced design.

    Methods and images are crossed, seeds are nested in methods: value = mean + method + seed(method) + image
    + method × image + rest, all random. Each component is what its expected mean square leaves (Searle,
    Casella & McCulloch, *Variance Components*, 1992, chapter 4); one that comes out negative is set to 0.

    Parameters
    ----------
    values : (methods, seeds, images) array, finite, at least two methods and two images
        With one seed only, "method" holds method and seed together, and "rest" holds method × image too.

    Returns
    -------
    Series of shares of the total: method, seed, image, method × image, rest; NaN where one seed cannot say
    """
    values = np.asarray(values, dtype=float)
    if values.ndim != 3 or values.shape[0] < 2 or values.shape[2] < 2 or not np.isfinite(values).all():
        raise ValueError(
            f"values: expected finite numbers (methods >= 2, seeds, images >= 2), got shape {values.shape}"
        )
    m, s, i = values.shape
    by_method, by_seed, by_image = values.mean((1, 2)), values.mean(2), values.mean((0, 1))
    cells, mean = values.mean(1), values.mean()
    interaction = cells - by_method[:, None] - by_image + mean
    square = {
        "method": s * i * ((by_method - mean) ** 2).sum() / (m - 1),
        "image": m * s * ((by_image - mean) ** 2).sum() / (i - 1),
        "method × image": s * (interaction**2).sum() / ((m - 1) * (i - 1)),
    }
    if s == 1:
        rest = square["method × image"]
        parts = {
            "method": (square["method"] - rest) / i,
            "seed": np.nan,
            "image": (square["image"] - rest) / m,
            "method × image": np.nan,
            "rest": rest,
        }
    else:
        left = values - by_seed[..., None] - cells[:, None] + by_method[:, None, None]
        square["seed"] = i * ((by_seed - by_method[:, None]) ** 2).sum() / (m * (s - 1))
        rest = (left**2).sum() / (m * (s - 1) * (i - 1))
        both = square["method × image"]
        parts = {
            "method": (square["method"] - square["seed"] - both + rest) / (s * i),
            "seed": (square["seed"] - rest) / i,
            "image": (square["image"] - both) / (m * s),
            "method × image": (both - rest) / s,
            "rest": rest,
        }
    parts = pd.Series(parts).clip(lower=0)
    if not parts.sum() > 0:
        raise ValueError("values: all are equal, there is no variance to share out")
    return parts / parts.sum()
