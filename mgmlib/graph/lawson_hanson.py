"""Non-negative least squares in Gram form, exactly, on the CPU: one small active-set problem per point."""

import numba
import numpy as np
import torch

STATIONARY = 1e-13  # a gradient below it counts as zero
DEPENDENT = 2e-15  # a squared residual below it counts as a linear dependence: a few roundings
STEPS = 10  # at most STEPS · k pivots a point; the mean is about the number of neighbours
COSINE, GIVEN = 0.0, -1.0  # in the place of the RBF decay; GIVEN: inner products are kernel values already
OPEN, PASSIVE, PASSED_OVER = 0, 1, 2  # states of a candidate


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
    near = np.arange(target.shape[1])
    for point in numba.prange(len(target)):
        solve_one(kernel[point], near, GIVEN, target[point], 0.0, 0.0, theta[point])


@numba.njit(cache=True, error_model="numpy")
def solve_one(inner, near, decay, target, rounding, tol, theta):
    """One point: ``near`` (m,) columns of ``inner`` (n, n), ``target`` (m,); θ is written into zeros (m,).

    K = LLᵀ on the passive set is factored with all of its columns, ``basis`` = L⁻¹K: a new member costs one
    pass over them, the gradient at the optimum is c − basisᵀy with Ly = c, and a row of K is read only when
    its candidate enters. (Small functions on plain arrays: numba counts references of what it passes on.)

    ``rounding`` is the error of a kernel value, 0 for float64. Returns the largest violation of the
    optimality conditions, and whether the set θ > tol is beyond doubt to first order in ``rounding``.
    """
    m = len(target)
    kernel, known = np.empty((m, m)), np.zeros(m, np.bool_)  # rows of K as they are needed
    basis, factor = np.empty((m, m)), np.empty((m, m))  # rows in order of entry; the diagonal of L inverted
    y, trial = np.empty(m), np.empty(m)
    chosen, state = np.empty(m, np.int64), np.zeros(m, np.int8)
    gradient, least = target.copy(), max(DEPENDENT, rounding)
    n = 0
    for _ in range(STEPS * m):
        j = _steepest(gradient, state)
        if j < 0:
            break
        state[j] = PASSED_OVER
        if not known[j]:
            kernel_row(inner, near, j, decay, kernel[j])
            known[j] = True
        if not _append(kernel[j], target, least, j, n, basis, factor, y):
            continue
        _optimum(factor, y, n + 1, trial)
        if trial[n] <= 0:  # only rounding brings it here: its gradient was noise
            continue
        chosen[n], state[j] = j, PASSIVE
        n, before = n + 1, n
        leaving = _advance(trial, chosen, n, theta)
        while leaving >= 0:
            end, n, before = n, leaving, 0
            for at in range(leaving, end):  # the rows below the one that left are factored anew
                j = chosen[at]
                if at > leaving and _append(kernel[j], target, least, j, n, basis, factor, y):
                    chosen[n] = j
                    n += 1
                else:
                    theta[j], state[j] = 0.0, OPEN
            _reopen(state)
            _optimum(factor, y, n, trial)
            leaving = _advance(trial, chosen, n, theta)
        _descend(target, basis, y, before, n, gradient)
    worst = _violation(kernel, target, chosen[:n], theta, gradient)
    return worst, rounding > 0 and _certain(factor, chosen[:n], state, theta, gradient, trial, rounding, tol)


@numba.njit(cache=True)
def _steepest(gradient, state):
    """The open candidate whose weight should grow most; −1 when none should grow."""
    best, j = STATIONARY, -1
    for i in range(len(gradient)):
        if gradient[i] > best and state[i] == OPEN:
            best, j = gradient[i], i
    return j


@numba.njit(cache=True, error_model="numpy")
def kernel_row(inner, near, a, decay, out):
    """Kernel values of candidate number ``a`` with all candidates, into ``out`` (m,)."""
    row, m = inner[near[a]], len(near)
    if decay == COSINE:
        for i in range(m):
            out[i] = 0.5 + 0.5 * row[near[i]]
    elif decay == GIVEN:
        for i in range(m):
            out[i] = row[near[i]]
    else:
        for i in range(m):
            squared = row[near[a]] + inner[near[i], near[i]] - 2.0 * row[near[i]]
            out[i] = np.exp(-decay * max(squared, 0.0))


@numba.njit(cache=True, error_model="numpy")
def _append(row, target, least, j, n, basis, factor, y):
    """Candidate ``j`` becomes row ``n`` of the factorisation; False when it depends on the rows above."""
    new, left = basis[n], factor[n]
    for i in range(len(new)):
        new[i] = row[i]
    right = target[j]
    for s in range(n):
        above = basis[s]
        share = above[j]
        left[s] = share
        right -= share * y[s]
        for i in range(len(new)):
            new[i] -= share * above[i]
    if new[j] <= least * row[j]:
        return False
    inverse = 1.0 / np.sqrt(new[j])
    for i in range(len(new)):
        new[i] *= inverse
    left[n], y[n] = inverse, right * inverse
    return True


@numba.njit(cache=True)
def _optimum(factor, y, n, trial):
    """Weights that are optimal on the passive set, Lᵀ trial = y, into ``trial[:n]``."""
    trial[:n] = y[:n]
    for r in range(n - 1, -1, -1):
        left = factor[r]
        value = trial[r] * left[r]
        trial[r] = value
        for s in range(r):
            trial[s] -= left[s] * value


@numba.njit(cache=True, error_model="numpy")
def _advance(trial, chosen, n, theta):
    """Move θ to the passive set's optimum or to where a first weight is zero: that member, or −1."""
    step, leaving = 1.0, -1
    for r in range(n):
        if trial[r] <= 0:
            reach = theta[chosen[r]] / (theta[chosen[r]] - trial[r])
            if reach < step:
                step, leaving = reach, r
    for r in range(n):
        theta[chosen[r]] += step * (trial[r] - theta[chosen[r]])
    return leaving


@numba.njit(cache=True)
def _reopen(state):
    """What depended on the old passive set need not depend on the new one."""
    for i in range(len(state)):
        if state[i] == PASSED_OVER:
            state[i] = OPEN


@numba.njit(cache=True)
def _descend(target, basis, y, before, n, gradient):
    """The negative gradient at the optimum, c − basisᵀy, of which the first ``before`` terms are there."""
    if before == 0:
        gradient[:] = target
    for r in range(before, n):
        row, share = basis[r], y[r]
        for i in range(len(gradient)):
            gradient[i] -= share * row[i]


@numba.njit(cache=True)
def _violation(kernel, target, passive, theta, gradient):
    """Largest violation of: gradient = 0 where θ > 0, no descent elsewhere; by the kernel, not the factor."""
    gradient[:] = target
    for j in passive:
        row, weight = kernel[j], theta[j]
        for i in range(len(gradient)):
            gradient[i] -= weight * row[i]
    worst = 0.0
    for i in range(len(gradient)):
        worst = max(worst, abs(gradient[i]) if theta[i] > 0 else gradient[i])
    return worst


@numba.njit(cache=True, error_model="numpy")
def _certain(factor, passive, state, theta, gradient, column, rounding, tol):
    """Whether no error of ``rounding`` in K and c moves a weight across ``tol`` or a gradient across 0.

    To first order weights move by ‖K⁻¹‖ and gradients by 1 + ‖L⁻¹‖ times the error, on the passive set; both
    norms are bounded by the trace of K⁻¹ = ‖L⁻¹‖_F².
    """
    n, trace = len(passive), 0.0
    for c in range(n):  # column c of L⁻¹ by forward substitution
        for r in range(c, n):
            value = 1.0 if r == c else 0.0
            for s in range(c, r):
                value -= factor[r, s] * column[s]
            column[r] = value * factor[r, r]
            trace += column[r] ** 2
    for i in range(len(theta)):
        if state[i] == PASSIVE:
            if theta[i] - rounding * trace <= tol:
                return False
        elif gradient[i] + rounding * (1.0 + np.sqrt(trace)) >= 0:
            return False
    return True
