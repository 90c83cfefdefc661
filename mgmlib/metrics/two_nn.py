"""TwoNN: the dimension that the first two neighbours betray."""

import torch

from mgmlib.graph.points import check_choice
from mgmlib.metrics.nearest import nearest_distances

VARIANTS = ("fit", "mle")


def two_nn(z, variant="fit", discard=0.1):
    """Intrinsic dimension from μ = r₂/r₁, whose law is 1 − F(μ) = μ^−dimension (Facco et al. 2017).

    Parameters
    ----------
    z : (N, d) array or tensor; rows that repeat one another count once.
    variant : "fit", the authors' line through the origin of −log(1 − i/N) on log μ_(i), without the largest
        ratios; or "mle", (N − 1)/Σ log μ, the unbiased maximum likelihood estimate (Denti et al. 2022).
    discard : share of the largest ratios that the fit leaves out, in [0, 1).

    Returns
    -------
    float, positive.

    Raises
    ------
    ValueError
        If fewer than three rows are distinct, rows are not finite, or all first and second neighbours lie
        equally far.
    """
    check_choice("variant", variant, VARIANTS)
    if not 0 <= discard < 1:
        raise ValueError(f"discard: expected a share in [0, 1), got {discard!r}")
    distance = nearest_distances(z, 2)
    ratio = (distance[:, 1] / distance[:, 0]).log().sort().values
    n = len(ratio)
    kept = min(max(int(n * (1 - discard)), 1), n - 1)  # at i = n the logarithm is infinite
    if ratio[:kept].sum() <= 1e-12 * n:
        raise ValueError("z: first and second neighbours lie equally far, the dimension is unbounded")
    if variant == "mle":
        return ((n - 1) / ratio.sum()).item()
    x = ratio[:kept]
    y = -torch.log1p(-torch.arange(1, kept + 1, dtype=x.dtype, device=x.device) / n)
    return ((x * y).sum() / (x * x).sum()).item()
