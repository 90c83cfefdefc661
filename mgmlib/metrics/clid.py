"""CLID: how learnable the clusters of a representation are, and how many dimensions it fills."""

import numpy as np
import torch

from mgmlib.graph.points import check_points


def cluster_learnability(z, n_clusters=None, *, draws=10, seed=0):
    """Share of held-out points whose nearest neighbour is of their k-means cluster (Lu et al. 2022).

    The CL of CLID (arXiv 2206.01251). Convention: unit rows, so that all distances are cosine's; √N clusters;
    one neighbour, from a random half of the points, asked about the other half; mean over ``draws`` halves.
    Published implementations differ in each of these: state them with the number. It needs scikit-learn.

    Parameters
    ----------
    z : (N, d) array or tensor.
    n_clusters : 2 … N/2; √N, rounded, by default.
    draws : random halves.
    seed : of the halves and of k-means (the best of 3 starts).

    Returns
    -------
    float in [0, 1].

    Raises
    ------
    ValueError
        If a row is not finite or zero, or the clusters are too few or too many.
    """
    from sklearn.cluster import KMeans

    points = check_points(z)
    n = len(points)
    n_clusters = round(n**0.5) if n_clusters is None else n_clusters
    if not 2 <= n_clusters <= n // 2:
        raise ValueError(f"n_clusters: expected 2…N/2 for N = {n} rows, got {n_clusters!r}")
    if draws < 1:
        raise ValueError(f"draws: expected at least 1, got {draws!r}")
    rows = points.rows(torch.arange(n, device=points.device)).cpu()
    labels = torch.as_tensor(KMeans(n_clusters, n_init=3, random_state=seed).fit(rows.numpy()).labels_)
    rng, found = np.random.default_rng(seed), []
    for _ in range(draws):
        known, held = torch.as_tensor(rng.permutation(n)).tensor_split(2)
        nearest = known[(rows[held] @ rows[known].T).argmax(1)]
        found.append((labels[nearest] == labels[held]).double().mean().item())
    return float(np.mean(found))


def clid(learnability, dimension):
    """Learnability and intrinsic dimension of several models, each standardised over them, added.

    Convention: equal weights. The published alternative weighs the two by a regression on the accuracy that
    is to be predicted, and is no longer free of labels.

    Parameters
    ----------
    learnability : (M,) array, `cluster_learnability` of each model.
    dimension : (M,) array, the intrinsic dimension of each: `two_nn` in the paper.

    Returns
    -------
    (M,) float64 array; it compares these M models alone.

    Raises
    ------
    ValueError
        If the arrays differ in length, or one is constant or not finite.
    """
    parts = {"learnability": np.asarray(learnability, float), "dimension": np.asarray(dimension, float)}
    total = np.zeros(len(parts["learnability"]))
    for name, values in parts.items():
        if values.shape != total.shape or not np.isfinite(values).all() or np.ptp(values) == 0:
            raise ValueError(
                f"{name}: expected {len(total)} finite numbers that are not all the same, got {values}"
            )
        total += (values - values.mean()) / values.std()
    return total
