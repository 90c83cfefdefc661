"""Rank correlation over models, with others held fixed, and the correction for many tests."""

from __future__ import annotations

import numpy as np
from scipy.stats import rankdata


def partial_spearman(x, y, controls=None, n_permutations=9999, seed=0):
    """Spearman's correlation of two variables with the ranks of others regressed out, and its two-sided p.

    The p comes from permuting the residuals of ``x`` (Freedman & Lane 1983), so that it holds for few models;
    without controls this is the permutation test of Spearman's correlation.

    Parameters
    ----------
    x, y : (n,) arrays
    controls : (n, c) array, optional
    n_permutations, seed : int

    Returns
    -------
    rho, p : float
        NaN and 1 where the controls leave no variation.

    Raises
    ------
    ValueError
        If fewer than ``c + 4`` values are given, or one is not finite.
    """
    x, y = (np.asarray(v, dtype=float) for v in (x, y))
    others = (
        np.empty((len(x), 0)) if controls is None else np.asarray(controls, dtype=float).reshape(len(x), -1)
    )
    if len(x) != len(y) or len(x) < others.shape[1] + 4:
        raise ValueError(
            f"x, y: expected as many values, at least {others.shape[1] + 4}; got {len(x)} and {len(y)}"
        )
    if not all(np.isfinite(v).all() for v in (x, y, others)):
        raise ValueError("x, y, controls: expected finite numbers")
    base = np.column_stack([np.ones(len(x)), *(rankdata(c) for c in others.T)])
    left, right = (_residual(rankdata(v), base) for v in (x, y))
    rho = _cosine(left, right)
    if not np.isfinite(rho):
        return float("nan"), 1.0
    rng = np.random.default_rng(seed)
    drawn = rng.permuted(np.tile(left, (n_permutations, 1)), axis=1)
    drawn -= (drawn @ np.linalg.pinv(base).T) @ base.T
    size = np.linalg.norm(drawn, axis=1) * np.linalg.norm(right)
    chance = np.divide(drawn @ right, size, out=np.zeros(len(drawn)), where=size > 0)
    return float(rho), float((1 + (np.abs(chance) >= abs(rho) - 1e-12).sum()) / (1 + n_permutations))


def holm(p):
    """Holm's adjusted p-values, which control the family-wise error (1979).

    Parameters
    ----------
    p : (n,) array of p-values in [0, 1]

    Returns
    -------
    ndarray (n,), each at least its p, at most 1
    """
    p = np.asarray(p, dtype=float)
    if not ((p >= 0) & (p <= 1)).all():
        raise ValueError("p: expected values in [0, 1]")
    order = np.argsort(p, kind="stable")
    adjusted = np.empty(len(p))
    adjusted[order] = np.minimum(1, np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)))
    return adjusted


def _residual(values, base):
    return values - base @ np.linalg.lstsq(base, values, rcond=None)[0]


def _cosine(a, b):
    size = np.linalg.norm(a) * np.linalg.norm(b)
    tiny = 1e-9 * len(a) ** 2  # of ranks, whose sums of squares are of the order n^3
    return a @ b / size if size > tiny else float("nan")
