"""Non-negative least squares in Gram form, exactly, on the CPU: one small active-set problem per point."""

import numba
import numpy as np
import torch

STATIONARY = 1e-13  # a gradient below it counts as zero
DEPENDENT = 2e-15  # a squared residual below it counts as a linear dependence: a few roundings
STEPS = 10  # at most STEPS · k pivots a point; the mean is about the number of neighbours
COSINE = 0.0  # in the place of the RBF decay
OPEN, PASSIVE, PASSED_OVER = 0, 1, 2  # states of a candidate
VECTOR = 8  # rows of the factorisation are worked on in multiples of it: remainders cost more than zeros
LENT = dict(  # arrays are lent: to count references took a fifth
    cache=True, error_model="numpy", fastmath={"contract"}, _nrt=False
)
WITHIN = LENT | {"forceinline": True}  # one problem calls it a dozen times: to hand over arrays took a fifth


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
    known = np.ones(len(near), np.bool_)
    for point in numba.prange(len(target)):
        given = kernel[point]
        solve_one(given, known, given, near, COSINE, target[point], 0.0, 0.0, theta[point])


@numba.njit(cache=True, error_model="numpy")
def solve_one(kernel, known, inner, near, decay, target, rounding, tol, theta):
    """One point: ``target`` (m,), c; θ is written into zeros (m,). A target of −∞ marks no candidate.

    ``kernel`` (m, m) holds the rows of K that are ``known``; the others are made when their candidate enters,
    from the inner products ``inner`` of all points at the columns ``near`` (m,).

    With P the passive set in order of entry and K_PP = LLᵀ, L⁻¹ [K_P: | I] is kept row by row (``basis``),
    and of the row [c | 0] what the rows so far leave (``rest``): the negative gradient at the optimum on P,
    and minus that optimum. A new member costs one pass over the rows.

    ``rounding`` is the error of a kernel value, 0 for float64. Returns the largest violation of the
    optimality conditions, and whether the set θ > tol is beyond doubt to first order in ``rounding``.
    """
    work = workspace(len(target))
    return solve_within(work, kernel, known, inner, near, decay, target, rounding, tol, theta)


@numba.njit(cache=True)
def workspace(m):
    """What `solve_within` works on for problems of ``m`` candidates, one after the other."""
    basis, rest = np.empty((m, padded(2 * m, VECTOR))), np.empty(padded(2 * m, VECTOR))
    weight, y = np.empty(m), np.empty(m)
    return basis, rest, weight, y, np.empty(m, np.int64), np.arange(m), np.empty(m, np.int8)


@numba.njit(**LENT)
def solve_within(work, kernel, known, inner, near, decay, target, rounding, tol, theta):
    """The same as `solve_one`, within a `workspace`."""
    m, (basis, rest, weight, y, chosen, _, state) = len(target), work
    n = _descend(kernel, known, inner, near, decay, target, max(DEPENDENT, rounding), *work)
    passive, inverse, gradient = chosen[:n], basis[:n, m : m + n], rest[:m]
    worst = _violation(kernel, target, passive, weight, state, gradient)
    if worst > STATIONARY and _refine(inverse, passive, gradient, y, weight):
        worst = _violation(kernel, target, passive, weight, state, gradient)
    for r in range(n):
        theta[passive[r]] = weight[r]
    return worst, rounding > 0 and _certain(inverse, state, theta, gradient, rounding, tol)


@numba.njit(**LENT)
def _descend(kernel, known, inner, near, decay, target, least, basis, rest, weight, y, chosen, order, state):
    """Pivot until no candidate's weight should grow; returns the size of the passive set."""
    m, n = len(target), 0
    gradient, trial = rest[:m], rest[m:]
    for i in range(m):
        weight[i], state[i] = 0.0, OPEN
    _restart(target, gradient, trial)
    for _ in range(STEPS * m):
        j = _steepest(gradient, state)
        if j < 0:
            break
        state[j] = PASSED_OVER
        if not known[j]:
            kernel_row(inner, near, j, decay, kernel[j])
            known[j] = True
        if not _append(kernel[j], least, j, n, order, basis, rest, y):
            continue
        chosen[n], state[j] = j, PASSIVE
        n += 1
        leaving = _advance(trial, n, weight)
        while leaving >= 0:
            end, n = n, leaving
            _restart(target, gradient, trial)
            subtract(rest, y, basis, order, n)
            for at in range(leaving, end):  # the rows below the one that left are factored anew
                j, kept, weight[at] = chosen[at], weight[at], 0.0
                if at > leaving and _append(kernel[j], least, j, n, order, basis, rest, y):
                    chosen[n], weight[n] = j, kept
                    n += 1
                else:
                    state[j] = OPEN
            _reopen(state)
            leaving = _advance(trial, n, weight)
    return n


@numba.njit(**WITHIN)
def _restart(target, gradient, trial):
    """What is left to explain before the first member."""
    for i in range(len(gradient)):
        gradient[i] = target[i]
    for i in range(len(trial)):
        trial[i] = 0.0


@numba.njit(**WITHIN)
def padded(size, multiple):
    """The next multiple of ``multiple``."""
    return (size + multiple - 1) // multiple * multiple


@numba.njit(**WITHIN)
def _steepest(gradient, state):
    """The open candidate whose weight should grow most, the first of equals; −1 when none should grow."""
    bits, best = gradient.view(np.int64), 0
    for i in range(len(bits)):  # positive numbers rank as their bits do, whose maximum is found in vectors
        best = max(best, bits[i] if state[i] == OPEN else 0)
    for i in range(len(bits)):
        if bits[i] == best and state[i] == OPEN:
            return i if gradient[i] > STATIONARY else -1
    return -1


@numba.njit(**LENT)
def kernel_row(inner, near, a, decay, out):
    """Kernel values of candidate number ``a`` with all candidates, into ``out`` (m,)."""
    row, m = inner[near[a]], len(near)
    if decay == COSINE:
        for i in range(m):
            out[i] = 0.5 + 0.5 * row[near[i]]
    else:
        for i in range(m):
            squared = row[near[a]] + inner[near[i], near[i]] - 2.0 * row[near[i]]
            out[i] = np.exp(-decay * max(squared, 0.0))


@numba.njit(**WITHIN)
def subtract(out, share, rows, which, n):
    """``out`` less ``share`` of the first ``n`` of ``rows[which]``; four at a time save memory traffic."""
    size, whole = len(out), n - n % 4
    for s in range(0, whole, 4):
        a, b, c, d = rows[which[s]], rows[which[s + 1]], rows[which[s + 2]], rows[which[s + 3]]
        of_a, of_b, of_c, of_d = share[s], share[s + 1], share[s + 2], share[s + 3]
        for i in range(size):
            out[i] -= of_a * a[i] + of_b * b[i] + of_c * c[i] + of_d * d[i]
    for s in range(whole, n):
        a, of_a = rows[which[s]], share[s]
        for i in range(size):
            out[i] -= of_a * a[i]


@numba.njit(**WITHIN)
def _append(row, least, j, n, order, basis, rest, y):
    """Candidate ``j`` becomes row ``n`` of the factorisation; False when it depends on the rows above."""
    m, width = len(row), padded(len(row) + n + 1, VECTOR)
    new, identity = basis[n, :width], basis[n, m:]
    for i in range(m):
        new[i] = row[i]
    for i in range(len(identity)):
        identity[i] = 0.0
    identity[n] = 1.0
    subtract(new, basis[:, j], basis, order, n)
    if new[j] <= least * row[j]:
        return False
    inverse = 1.0 / np.sqrt(new[j])
    y[n] = right = rest[j] * inverse
    for i in range(width):
        new[i] *= inverse
        rest[i] -= right * new[i]
    return True


@numba.njit(**WITHIN)
def _advance(trial, n, weight):
    """Move the weights to the passive set's optimum, −trial, or to where one is zero: that member, or −1."""
    step, leaving = 1.0, -1
    for r in range(n):
        if trial[r] >= 0:
            reach = weight[r] / (weight[r] + trial[r])
            if reach < step:
                step, leaving = reach, r
    for r in range(n):
        weight[r] -= step * (trial[r] + weight[r])
    return leaving


@numba.njit(**LENT)
def _reopen(state):
    """What depended on the old passive set need not depend on the new one."""
    for i in range(len(state)):
        if state[i] == PASSED_OVER:
            state[i] = OPEN


@numba.njit(**LENT)
def _violation(kernel, target, passive, weight, state, gradient):
    """Largest violation of: gradient = 0 in the passive set, no descent elsewhere; by K, not its factor."""
    for i in range(len(gradient)):
        gradient[i] = target[i]
    subtract(gradient, weight, kernel, passive, len(passive))
    worst = 0.0
    for i in range(len(gradient)):
        worst = max(worst, abs(gradient[i]) if state[i] == PASSIVE else gradient[i])
    return worst


@numba.njit(**LENT)
def _refine(inverse, passive, gradient, step, weight):
    """One Newton step θ + K⁻¹·gradient on the passive set, K⁻¹ = L⁻ᵀL⁻¹; False where θ would not stay > 0."""
    n = len(passive)
    for s in range(n):
        step[s], share = 0.0, 0.0
        for r in range(s + 1):
            share += inverse[s, r] * gradient[passive[r]]
        for r in range(s + 1):
            step[r] += share * inverse[s, r]
    for r in range(n):
        if weight[r] + step[r] <= 0:
            return False
    for r in range(n):
        weight[r] += step[r]
    return True


@numba.njit(**LENT)
def _certain(inverse, state, theta, gradient, rounding, tol):
    """Whether no error of ``rounding`` in K and c moves a weight across ``tol`` or a gradient across 0.

    To first order weights move by ‖K⁻¹‖ and gradients by 1 + ‖L⁻¹‖ times the error, on the passive set; both
    norms are bounded by the trace of K⁻¹ = ‖L⁻¹‖_F².
    """
    trace = 0.0
    for s in range(len(inverse)):
        for r in range(s + 1):
            trace += inverse[s, r] * inverse[s, r]
    for i in range(len(theta)):
        if state[i] == PASSIVE:
            if theta[i] - rounding * trace <= tol:
                return False
        elif gradient[i] + rounding * (1.0 + np.sqrt(trace)) >= 0:
            return False
    return True
