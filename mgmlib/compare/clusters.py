"""Do models fall into groups: a tree, its support, the number of clusters, agreement with a known label."""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy.cluster import hierarchy
from sklearn.metrics import adjusted_rand_score, silhouette_score


def tree(vectors, method="ward"):
    """Hierarchical clustering of the rows of a table: scipy's linkage matrix."""
    return hierarchy.linkage(np.asarray(vectors, dtype=float), method)


def cut(linkage, k):
    """Cluster of each row, 1…k, where the tree is cut into ``k``."""
    return hierarchy.fcluster(linkage, k, criterion="maxclust")


def clades(linkage):
    """The rows below each merge of a tree, as frozen sets, in the order of the merges."""
    n = len(linkage) + 1
    below = {i: frozenset([i]) for i in range(n)}
    for step, (left, right) in enumerate(linkage[:, :2].astype(int)):
        below[n + step] = below[left] | below[right]
    return [below[n + step] for step in range(n - 1)]


def support(linkage, replicates):
    """Share of replicate trees that hold each clade of a tree (Felsenstein's bootstrap proportion, 1985).

    Parameters
    ----------
    linkage : (n - 1, 4) array
    replicates : iterable of linkage matrices of the same rows

    Returns
    -------
    ndarray (n - 1,) in [0, 1], in the order of the merges; the last, all rows, is 1
    """
    found, wanted, count = np.zeros(len(linkage)), clades(linkage), 0
    for replicate in replicates:
        held = set(clades(replicate))
        found += [clade in held for clade in wanted]
        count += 1
    if not count:
        raise ValueError("replicates: expected at least one tree, got none")
    return found / count


def silhouettes(vectors, ks, method="ward"):
    """Mean silhouette of the tree cut into each number of clusters of ``ks``, 2…n - 1 (Rousseeuw 1987)."""
    rows = np.asarray(vectors, dtype=float)
    linkage = tree(rows, method)
    return pd.Series({k: silhouette_score(rows, cut(linkage, k)) for k in ks}, name="silhouette")


def gap_statistic(vectors, k_max, n_reference=200, seed=0, method="ward"):
    """How many clusters the rows have, 1 among the answers (Tibshirani, Walther & Hastie 2001).

    The reference is uniform in the box of the principal axes. The answer is the smallest k whose gap is
    within a standard error of the greatest (Dudoit & Fridlyand 2002): the original rule looks at k + 1 alone
    and takes three clusters at equal distances for one.

    Parameters
    ----------
    vectors : (n, d) table
    k_max : int
    n_reference : int
    seed : int
    method : str

    Returns
    -------
    table : DataFrame
        Index k = 1…k_max; gap and standard_error.
    k : int
    """
    rows = np.asarray(vectors, dtype=float)
    if not 1 < k_max <= len(rows):
        raise ValueError(f"k_max={k_max}: expected 2…{len(rows)}, the number of rows")
    rng = np.random.default_rng(seed)
    centred = rows - rows.mean(0)
    axes = np.linalg.svd(centred, full_matrices=False)[2]
    turned = centred @ axes.T
    low, high = turned.min(0), turned.max(0)
    drawn = [_log_within(rng.uniform(low, high, turned.shape), k_max, method) for _ in range(n_reference)]
    error = np.std(drawn, axis=0) * np.sqrt(1 + 1 / n_reference)
    gap = np.mean(drawn, axis=0) - _log_within(turned, k_max, method)
    table = pd.DataFrame({"gap": gap, "standard_error": error}, index=pd.RangeIndex(1, k_max + 1, name="k"))
    best = gap.argmax()
    return table, int(np.flatnonzero(gap >= gap[best] - error[best])[0]) + 1


def _log_within(rows, k_max, method):
    """Logarithm of the summed squares within the clusters, for 1…k_max of them."""
    linkage, sums = tree(rows, method), []
    for k in range(1, k_max + 1):
        labels = cut(linkage, k)
        parts = (rows[labels == label] for label in np.unique(labels))
        sums.append(sum(((part - part.mean(0)) ** 2).sum() for part in parts))
    return np.log(np.maximum(sums, np.finfo(float).tiny))


def agreement(labels, known, n_permutations=9999, seed=0):
    """Adjusted Rand index of two labellings, and how often shuffled labels reach it (Hubert & Arabie 1985).

    Parameters
    ----------
    labels, known : (n,) sequences
    n_permutations, seed : int

    Returns
    -------
    index : float
        1: the same partition; 0: what chance gives.
    p : float
        One-sided, of the permutation test.
    """
    labels, known = np.asarray(labels), np.asarray(known)
    rng = np.random.default_rng(seed)
    index = adjusted_rand_score(known, labels)
    # Shuffling keeps the sizes: the index then grows with the squared counts of the contingency table alone.
    shuffled = rng.permuted(np.tile(labels, (n_permutations + 1, 1)), axis=1)
    shuffled[0] = labels
    kinds = known[:, None] == np.unique(known)
    squares = sum((((shuffled == label) @ kinds.astype(float)) ** 2).sum(1) for label in np.unique(labels))
    return float(index), float((squares >= squares[0]).mean())
