"""NESum: the sum of eigenvalues in units of the largest."""

from mgmlib.metrics.spectrum import singular_values


def nesum(z, *, center=True):
    """Σ λ_i / λ_max, λ the eigenvalues of the covariance of ``z`` (He & Ozay 2022).

    Convention: centred, as a covariance is. Without centring it is the stable rank of ``z`` itself.

    Parameters
    ----------
    z : (N, d) array or tensor.
    center : subtract the mean row first.

    Returns
    -------
    float in [1, min(N, d)].

    Raises
    ------
    ValueError
        If rows are not finite, or there is no spectrum.
    """
    sigma = singular_values(z, center)
    return (sigma / sigma[0]).square().sum().item()
