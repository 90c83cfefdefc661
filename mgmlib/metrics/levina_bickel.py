"""Maximum likelihood dimension of Levina and Bickel."""

from mgmlib.graph.points import check_choice
from mgmlib.metrics.nearest import nearest_distances

VARIANTS = {  # name -> (neighbours that do not count, inverse of the mean inverse?)
    "harmonic": (1, True),
    "mean": (1, False),
    "harmonic-unbiased": (2, True),
    "mean-unbiased": (2, False),
}


def levina_bickel(z, k=20, variant="harmonic"):
    """Intrinsic dimension from the distances T₁ … T_k of each row to its k nearest others.

    At each row the estimate is m = (k − 1) / Σ_{j<k} log(T_k/T_j) (Levina & Bickel 2004, eq. 8). The variants
    differ in how rows are combined, and by several percent:

    - "harmonic": 1 / mean(1/m), one likelihood of all rows (MacKay & Ghahramani 2005), the default of
      scikit-dimension;
    - "mean": mean(m), as published, larger by about (k − 1)/(k − 2);
    - "harmonic-unbiased": with k − 2 in place of k − 1, scikit-dimension's ``unbiased=True``;
    - "mean-unbiased": mean(m) with k − 2, where each m is unbiased if density is constant around its row.

    Parameters
    ----------
    z : (N, d) array or tensor; rows that repeat one another count once.
    k : number of neighbours, at least 3.
    variant : name from the list.

    Returns
    -------
    float, positive.

    Raises
    ------
    ValueError
        If fewer than k + 1 rows are distinct, rows are not finite, or neighbours are equally far (of one row
        for the means, of all for the harmonic variants), so that the estimate has no bound.
    """
    check_choice("variant", variant, VARIANTS)
    if k < 3:
        raise ValueError(f"k: expected 3 neighbours or more, got {k}")
    lost, harmonic = VARIANTS[variant]
    distance = nearest_distances(z, k)
    inverse = (distance[:, -1:] / distance[:, :-1]).log().sum(1) / (k - lost)
    if (inverse.mean() if harmonic else inverse.min()) <= 1e-12:
        raise ValueError(f"z: the {k} nearest neighbours lie equally far, the dimension is unbounded")
    return (1 / inverse.mean() if harmonic else (1 / inverse).mean()).item()
