"""Mean cosine: the share of their length that all embeddings have in common."""

from mgmlib.metrics.arguments import check_rows


def mean_cosine(z):
    """Mean cosine of the pairs i < j, from the sum of unit rows: (‖Σ z_i‖² − N) / (N (N − 1)).

    1 where all rows point one way (collapse), 0 on average for independent directions. As N grows it tends to
    the squared length of the mean unit row: the share of the squared length that all of them have in common.

    Parameters
    ----------
    z : (N, d) array or tensor, N ≥ 2.

    Returns
    -------
    float in [−1/(N − 1), 1]

    Raises
    ------
    ValueError
        If a row is zero or not finite, or there is one row only.
    """
    rows = check_rows(z).detach().double()
    norm = rows.norm(dim=1, keepdim=True)
    if norm.min() == 0:
        raise ValueError(f"z: row {int(norm.argmin())} is zero, it has no direction")
    n = len(rows)
    return ((rows / norm).sum(0).square().sum().item() - n) / (n * (n - 1))
