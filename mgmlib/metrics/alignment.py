"""Alignment: how far apart the two views of an image lie."""

from mgmlib.metrics.arguments import as_given, check_pair, check_positive, check_unit_rows


def alignment(x, y, alpha=2):
    """Mean distance between positive pairs, E ‖x − y‖^α (Wang & Isola 2020, arXiv 2005.10242, section 4.1).

    Parameters
    ----------
    x, y : (N, d) arrays or tensors of unit rows; row i of ``x`` and row i of ``y`` are views of one image.
    alpha : power of the distance, positive. Below 1 the gradient does not exist at pairs that coincide.

    Returns
    -------
    0-d tensor, differentiable, if ``x`` or ``y`` is a tensor, else float; in [0, 2^α].

    Raises
    ------
    ValueError
        If rows are not unit vectors, are not finite, or the shapes differ.
    """
    check_positive(alpha, "alpha")
    left, right = check_pair(x, y, check_unit_rows)
    return as_given((left - right).norm(dim=1).pow(alpha).mean(), x, y)
