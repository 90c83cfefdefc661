"""The rule of the published NNK code, for comparison: solve, drop, repeat, never re-add. Not the optimum."""

import torch

JITTER = 1e-10  # what the published code adds to a matrix that Cholesky refuses


def solve(kernel, target, tol):
    """Weights by pruning all candidates (restated from the published code's behaviour, Shekkizhar & Ortega).

    Parameters
    ----------
    kernel : (Q, m, m) float64 tensor. target : (Q, m) float64 tensor.
    tol : weights at or below it are dropped.

    Returns
    -------
    theta : (Q, m) float64 tensor.
    sound : (Q,) bool, False where a factorisation failed: the published code goes on there with a jittered
        matrix, and so does this restatement, but it says so.
    """
    q, m = target.shape
    theta = torch.zeros_like(target)
    kept = torch.ones_like(target, dtype=torch.bool)
    sound = torch.ones(q, dtype=torch.bool, device=target.device)
    identity = torch.eye(m, dtype=target.dtype, device=target.device)
    rows = torch.arange(q, device=target.device)
    for _ in range(m + 1):  # each round drops at least one candidate of each point that goes on
        both = kept[rows, :, None] & kept[rows, None, :]
        matrix = torch.where(both, kernel[rows], identity)
        factor, failed = torch.linalg.cholesky_ex(matrix)
        if failed.any():
            sound[rows[failed > 0]] = False
            factor = torch.linalg.cholesky_ex(matrix + JITTER * (failed > 0)[:, None, None] * identity)[0]
        right = torch.where(kept[rows], target[rows], 0.0)
        solved = torch.cholesky_solve(right[:, :, None], factor)[:, :, 0].nan_to_num(0.0, 0.0, 0.0)
        theta[rows] = torch.where(kept[rows], solved, 0.0)
        drop = kept[rows] & (solved <= tol)
        kept[rows] &= ~drop
        theta[rows] *= kept[rows]
        rows = rows[drop.any(1) & kept[rows].any(1)]
        if not len(rows):
            break
    return theta, sound
