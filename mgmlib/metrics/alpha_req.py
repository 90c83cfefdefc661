"""α-ReQ: how fast the spectrum of the covariance decays."""

import torch

from mgmlib.metrics.spectrum import singular_values

FIRST, LAST = 4, 100  # ranks that the authors' code fits


def alpha_req(z, first=FIRST, last=None):
    """Exponent α of λ_i ∝ i^−α, fitted to the eigenvalues of the covariance of ``z`` (Agrawal et al. 2022).

    Weighted least squares of log λ on log rank, weights 1/rank (Stringer et al. 2019), so that each octave
    of ranks counts alike. Convention: centred; ranks ``first`` … ``last``, both included, counted from 1.

    Parameters
    ----------
    z : (N, d) array or tensor.
    first : rank where the fit begins.
    last : rank where it ends; 100, or the last eigenvalue that is not zero, by default.

    Returns
    -------
    float; 0 for a flat spectrum, large for a steep one.

    Raises
    ------
    ValueError
        If fewer than three eigenvalues in the range are not zero, or rows are not finite.
    """
    sigma = singular_values(z, center=True)
    known = int((sigma > sigma[0] * len(sigma) * torch.finfo(sigma.dtype).eps).sum())
    end = min(LAST, known) if last is None else last
    if first < 1 or end > known or end - first < 2:
        raise ValueError(f"first, last: expected three or more ranks in 1…{known}, got {first}…{end}")
    rank = torch.arange(first, end + 1, dtype=sigma.dtype, device=sigma.device)
    x, y, weight = rank.log(), 2 * sigma[first - 1 : end].log(), 1 / rank
    x, y = (v - (weight * v).sum() / weight.sum() for v in (x, y))
    return -((weight * x * y).sum() / (weight * x * x).sum()).item()
