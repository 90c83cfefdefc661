"""Non-negative least squares in Gram form on any torch device: all points pivot together."""

import torch

STATIONARY = 1e-12  # a gradient below it counts as zero
DEPENDENT = 1e-11  # a squared residual below it counts as a linear dependence
STEPS = 6  # at most STEPS · k pivots a point; the mean is about the number of neighbours


def solve(kernel, target):
    """Minimise ½ θᵀKθ − cᵀθ over θ ≥ 0 for each point (Lawson & Hanson 1974, by principal pivots).

    Each point keeps the tableau [K | c] swept on its passive set P. There, the last column holds the optimum
    on P and, outside P, the negative gradient; the diagonal outside P holds squared residuals. A step sweeps
    one index a point: in (steepest gradient) or out (first weight that reaches zero).

    Parameters
    ----------
    kernel : (Q, m, m) float64 tensor, positive semi-definite.
    target : (Q, m) float64 tensor on the same device.

    Returns
    -------
    (Q, m) float64 tensor θ, polished by one Cholesky solve on the final passive set.
    """
    theta = torch.zeros_like(target)
    alive = torch.arange(len(target), device=target.device)
    state = _State(kernel, target)
    for _ in range(STEPS * target.shape[1]):
        busy = state.step()
        if not busy.all():
            theta[alive[~busy]] = state.theta[~busy]
            alive, state = alive[busy], state.take(busy)
        if not len(alive):
            break
    theta[alive] = state.theta
    return _polish(kernel, target, theta)


class _State:
    def __init__(self, kernel, target):
        self.tableau = torch.cat([kernel, target[:, :, None]], 2)
        self.scale = kernel.diagonal(dim1=1, dim2=2).clone()
        self.theta = torch.zeros_like(target)
        self.passive = torch.zeros_like(target, dtype=torch.bool)
        self.passed_over = torch.zeros_like(self.passive)

    def take(self, rows):
        """The state of some of the points."""
        part = object.__new__(_State)
        part.__dict__ = {name: value[rows] for name, value in vars(self).items()}
        return part

    def step(self):
        """One pivot for every point; returns which points are not finished, (Q,) bool."""
        optimum = self.tableau[:, :, -1]
        falling = self.passive & (optimum <= 0)
        infeasible = falling.any(1)

        reach = torch.where(falling, self.theta / (self.theta - optimum).clamp_min(1e-300), torch.inf)
        step, leaving = reach.min(1)
        step = torch.where(infeasible, step, 1.0)[:, None]
        self.theta = torch.where(self.passive, self.theta + step * (optimum - self.theta), 0.0)

        outside = ~self.passive & ~self.passed_over
        steepest, entering = torch.where(outside, optimum, -torch.inf).max(1)
        grows = ~infeasible & (steepest > STATIONARY)
        row = torch.arange(len(entering), device=entering.device)
        residual = self.tableau[row, entering, entering]
        dependent = grows & (residual <= DEPENDENT * self.scale[row, entering])
        self.passed_over[row[dependent], entering[dependent]] = True
        self.passed_over[infeasible] = False

        enter = grows & ~dependent
        self._sweep(row[enter], entering[enter], 1.0)
        self._sweep(row[infeasible], leaving[infeasible], -1.0)
        self.passive[row[enter], entering[enter]] = True
        self.passive[row[infeasible], leaving[infeasible]] = False
        self.theta[row[infeasible], leaving[infeasible]] = 0.0
        return infeasible | grows

    def _sweep(self, rows, pivot, sign):
        """Exchange ``pivot`` (one index a row) into (+1) or out of (−1) the swept set."""
        if not len(rows):
            return
        table = self.tableau[rows]
        each = torch.arange(len(rows), device=rows.device)
        across = table[each, pivot]  # (Q, m+1)
        down = table[each, :, pivot]  # (Q, m)
        diagonal = across[each, pivot][:, None]
        table.baddbmm_((down / diagonal)[:, :, None], across[:, None, :], alpha=-1)
        table[each, pivot] = sign * across / diagonal
        table[each, :, pivot] = sign * down / diagonal
        table[each, pivot, pivot] = -1 / diagonal[:, 0]
        self.tableau[rows] = table


def _polish(kernel, target, theta):
    """Solve afresh on the passive set, to shed the rounding of the sweeps; keep θ where that leaves θ ≥ 0."""
    passive = theta > 0
    both = passive[:, :, None] & passive[:, None, :]
    identity = torch.eye(target.shape[1], dtype=target.dtype, device=target.device)
    factor, failed = torch.linalg.cholesky_ex(torch.where(both, kernel, identity))
    fresh = torch.cholesky_solve(torch.where(passive, target, 0.0)[:, :, None], factor)[:, :, 0]
    good = (failed == 0) & (fresh >= 0).all(1) & torch.isfinite(fresh).all(1)
    return torch.where(good[:, None], fresh, theta)


def certain(kernel, target, theta, rounding, tol):
    """Where no error of ``rounding`` in K and c moves a weight across ``tol`` or a gradient across 0, (Q,).

    The twin of the certificate in `lawson_hanson`: to first order, weights move by ‖K⁻¹‖ and gradients by
    1 + ‖L⁻¹‖ times the error, on the passive set; both norms are bounded by the trace of K⁻¹.
    """
    passive = theta > 0
    both = passive[:, :, None] & passive[:, None, :]
    identity = torch.eye(target.shape[1], dtype=target.dtype, device=target.device)
    factor, failed = torch.linalg.cholesky_ex(torch.where(both, kernel, identity))
    inverse = torch.linalg.solve_triangular(factor, identity.expand_as(kernel), upper=False)
    trace = (inverse.square() * both).sum((1, 2))[:, None]
    descent = target - (kernel @ theta[:, :, None])[:, :, 0]
    firm = torch.where(passive, theta - rounding * trace > tol, descent + rounding * (1 + trace.sqrt()) < 0)
    return (failed == 0) & firm.all(1)
