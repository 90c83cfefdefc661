"""Stable rank: squared Frobenius norm over squared spectral norm."""

from mgmlib.metrics.nesum import nesum


def stable_rank(z, *, center=False):
    """‖Z‖_F² / σ_max² (Rudelson & Vershynin 2007).

    Convention: uncentred, the matrix as it is. Centred, it is NESum.

    Parameters
    ----------
    z : (N, d) array or tensor.
    center : subtract the mean row first.

    Returns
    -------
    float in [1, rank of ``z``].

    Raises
    ------
    ValueError
        If rows are not finite, or there is no spectrum.
    """
    return nesum(z, center=center)
