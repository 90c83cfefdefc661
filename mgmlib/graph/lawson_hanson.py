"""Non-negative least squares in Gram form, exactly, on the CPU: one small active-set problem per point."""

import numba
import numpy as np
import torch

STATIONARY = 1e-13  # a gradient below it counts as zero
DEPENDENT = 1e-14  # a squared residual below it counts as a linear dependence
STEPS = 10  # at most STEPS · k pivots a point; the mean is about the number of neighbours


def solve(kernel, target, threads):
    """Minimise ½ θᵀKθ − cᵀθ over θ ≥ 0 for each point (Lawson & Hanson 1974, chapter 23).

    Candidates that are linearly dependent on the chosen ones are passed over, ties go to the earlier
    candidate: duplicates are safe, and the result is a vertex of the solution set.

    Parameters
    ----------
    kernel : (Q, m, m) float64 array, K of each point, positive semi-definite.
    target : (Q, m) float64 array, c of each point.
    threads : number of numba threads.

    Returns
    -------
    (Q, m) float64 array θ.
    """
    theta = np.zeros_like(target)
    with_threads(threads, _solve_all, np.ascontiguousarray(kernel), np.ascontiguousarray(target), theta)
    return theta


def with_threads(threads, function, *arguments):
    """Call a parallel numba function with some number of threads, and leave numba and torch as they were."""
    of_torch = torch.get_num_threads()  # read first: numba starts its pool through OpenMP, which torch shares
    before = numba.get_num_threads()
    numba.set_num_threads(max(1, min(threads, numba.config.NUMBA_NUM_THREADS)))
    try:
        function(*arguments)
    finally:
        numba.set_num_threads(before)
        torch.set_num_threads(of_torch)


@numba.njit(parallel=True, cache=True)
def _solve_all(kernel, target, theta):
    for point in numba.prange(len(target)):
        solve_one(kernel[point], target[point], theta[point])


@numba.njit(cache=True)
def solve_one(kernel, target, theta):
    """One point: kernel (m, m), target (m,); the weights are written into ``theta`` (m,), zeros at first."""
    m = len(target)
    chosen = np.empty(m, np.int64)  # the passive set in order of entry: rows of the factor
    n_chosen = 0
    factor = np.zeros((m, m))  # lower Cholesky factor of K on the passive set
    trial = np.empty(m)
    gradient = target.copy()
    passed_over = np.zeros(m, np.bool_)
    for _ in range(STEPS * m):
        j = _steepest(gradient, chosen[:n_chosen], passed_over)
        if j < 0:
            return
        if not _append(kernel, factor, chosen, n_chosen, j):
            passed_over[j] = True
            continue
        n_chosen += 1
        _solve_factor(factor, chosen, n_chosen, target, trial)
        if trial[n_chosen - 1] <= 0:  # only rounding brings it here: its gradient was noise
            n_chosen -= 1
            passed_over[j] = True
            continue
        n_chosen = _to_feasible(kernel, factor, chosen, n_chosen, target, theta, trial, passed_over)
        for i in range(m):
            gradient[i] = target[i]
        for r in range(n_chosen):
            for i in range(m):
                gradient[i] -= kernel[chosen[r], i] * theta[chosen[r]]


@numba.njit(cache=True)
def _steepest(gradient, chosen, passed_over):
    """The candidate outside the passive set whose weight should grow most; −1 when none should grow."""
    best, j = STATIONARY, -1
    for i in range(len(gradient)):
        if gradient[i] > best and not passed_over[i]:
            inside = False
            for member in chosen:
                inside |= member == i
            if not inside:
                best, j = gradient[i], i
    return j


@numba.njit(cache=True)
def _append(kernel, factor, chosen, row, j):
    """Write candidate ``j`` as row ``row`` of the factor; False when it depends on the rows above."""
    rest = kernel[j, j]
    for r in range(row):
        value = kernel[j, chosen[r]]
        for s in range(r):
            value -= factor[row, s] * factor[r, s]
        value /= factor[r, r]
        factor[row, r] = value
        rest -= value * value
    if rest <= DEPENDENT * kernel[j, j]:
        return False
    factor[row, row] = np.sqrt(rest)
    chosen[row] = j
    return True


@numba.njit(cache=True)
def _solve_factor(factor, chosen, n, target, trial):
    """Solve K θ = c on the passive set by forward and back substitution, into ``trial[:n]``."""
    for r in range(n):
        value = target[chosen[r]]
        for s in range(r):
            value -= factor[r, s] * trial[s]
        trial[r] = value / factor[r, r]
    for r in range(n - 1, -1, -1):
        value = trial[r]
        for s in range(r + 1, n):
            value -= factor[s, r] * trial[s]
        trial[r] = value / factor[r, r]


@numba.njit(cache=True)
def _to_feasible(kernel, factor, chosen, n, target, theta, trial, passed_over):
    """Move θ towards the passive set's optimum, dropping each member whose weight reaches zero on the way."""
    while True:
        step, leaving = 1.0, -1
        for r in range(n):
            if trial[r] <= 0:
                reach = theta[chosen[r]] / (theta[chosen[r]] - trial[r])
                if reach < step:
                    step, leaving = reach, r
        for r in range(n):
            theta[chosen[r]] += step * (trial[r] - theta[chosen[r]])
        if leaving < 0:
            return n
        theta[chosen[leaving]] = 0.0
        members = chosen[leaving + 1 : n].copy()
        n = leaving
        for j in members:  # the rows below the one that left are factored anew
            if _append(kernel, factor, chosen, n, j):
                n += 1
            else:
                theta[j] = 0.0
        passed_over[:] = False  # what depended on the old passive set need not depend on the new one
        _solve_factor(factor, chosen, n, target, trial)
