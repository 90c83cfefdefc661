"""RankMe: the effective rank of a set of embeddings."""

from mgmlib.metrics.spectrum import singular_values, smooth_rank


def rankme(z, eps=1e-7, *, center=False):
    """exp(−Σ p log p), p = σ/‖σ‖₁ + ε, σ the singular values of ``z`` (Garrido et al. 2023, eq. 1).

    Convention of arXiv 2210.02885: singular values, not their squares, and no centring. The authors use
    projector outputs of 25,600 images, and compare runs of one method only, not methods with each other.

    Parameters
    ----------
    z : (N, d) array or tensor.
    eps : ε, keeps the logarithm finite; each vanishing direction adds ε log(1/ε) to the entropy.
    center : subtract the mean row first.

    Returns
    -------
    float in [1, min(N, d)], up to ε.

    Raises
    ------
    ValueError
        If rows are not finite, or there is no spectrum.
    """
    return smooth_rank(singular_values(z, center), eps)
