"""Singular values of a set of embeddings, and the smooth rank that is read off a spectrum."""

import torch

from mgmlib.metrics.arguments import check_rows

BLOCK_ROWS = 8192


def singular_values(z, center):
    """Singular values of ``z``, less its mean row on request: (min(N, d),) float64, largest first.

    Rows are folded into a triangular factor block by block, so that the working memory is a few d × d.

    Raises
    ------
    ValueError
        If there is no spectrum: every row is zero, or (centred) the same point.
    """
    rows = check_rows(z).detach()
    mean = rows.mean(0, dtype=torch.float64) if center else 0.0
    factor = torch.zeros(0, rows.shape[1], dtype=torch.float64, device=rows.device)
    for block in rows.split(max(BLOCK_ROWS, rows.shape[1])):
        factor = torch.linalg.qr(torch.cat([factor, block.double() - mean]), mode="r").R
    sigma = torch.linalg.svdvals(factor)
    rounding = 1e-13 * len(rows) ** 0.5 * rows.abs().max()  # all that is left of a centred copy
    if sigma[0] <= rounding:
        raise ValueError(
            f"z: no spectrum, {'every row is the same point' if center else 'every row is zero'}"
        )
    return sigma


def smooth_rank(spectrum, eps):
    """exp(−Σ p log p) with p = spectrum/‖spectrum‖₁ + ε (Roy & Vetterli 2007, with the ε of RankMe)."""
    p = spectrum / spectrum.sum() + eps
    return torch.special.entr(p).sum().exp().item()
