"""The best of many scores, in order, without sorting the rest."""

import numba
import numpy as np

ROOM = 3  # scores that are held before the best are kept, in multiples of these
CHUNK, FOLD = 8, 8  # scores that have a peak in common; at most so many peaks are looked at together


@numba.njit(cache=True)
def merge_row(row, first, half, own, best, places):
    """Merge the scores ``row − half`` of keys ``first`` … into a list ``best``, ``places`` of the largest.

    The list descends, equal scores in order of their keys, and does not hold ``own``.
    """
    n, count = len(row), len(best) + 1  # one for ``own``
    peaks = peaks_of(row, half[first:], count)
    width, enough = len(peaks), max(best[-1], reached(peaks, count))
    values, keys, held = np.empty(ROOM * count, row.dtype), np.empty(ROOM * count, np.int64), 0
    while held < len(best) and places[held] >= 0:
        values[held], keys[held], held = best[held], places[held], held + 1
    known = held
    for c in range(width):
        if peaks[c] < enough:
            continue
        for j in range(c, n, width):
            value = row[j] - half[first + j]
            if value >= enough and first + j != own:
                if held == len(values):
                    held = _keep(values, keys, held, best, places)
                    enough = best[-1]
                values[held], keys[held], held = value, first + j, held + 1
    if held > known:
        _keep(values, keys, held, best, places)


@numba.njit(cache=True)
def _keep(values, keys, held, best, places):
    """The best of what is held, into the list and in its order: each at the number of those before it."""
    for i in range(held):
        value, before, equal = values[i], 0, 0
        for j in range(held):
            before += values[j] > value
            equal += values[j] == value
        if equal > 1:
            for j in range(held):
                before += values[j] == value and keys[j] < keys[i]
        if before < len(best):
            best[before], places[before] = value, keys[i]
    left = min(held, len(best))
    values[:left], keys[:left] = best[:left], places[:left]
    return left


@numba.njit(cache=True)
def peaks_of(row, half, count):
    """Largest of the scores ``row − half`` as far apart as there are peaks: enough to tell ``count``."""
    n = len(row)
    width = n // max(1, min(CHUNK, n // (2 * count)))
    peaks = np.full(width, -np.inf, row.dtype)
    for start in range(0, n, width):
        _raise(peaks, row[start : start + width], half[start : start + width])
    return peaks


@numba.njit(cache=True)
def _raise(peaks, row, half):
    for c in range(len(row)):
        value, peak = row[c] - half[c], peaks[c]
        peaks[c] = value if value > peak else peak


@numba.njit(cache=True)
def reached(peaks, count):
    """A bound that at least ``count`` scores reach, by their peaks; −∞ where these are too few to tell."""
    width = len(peaks)
    if width < count:
        return peaks.dtype.type(-np.inf)
    few = width // max(1, min(FOLD, width // (2 * count)))
    folded = peaks[:few].copy()
    for start in range(few, width, few):
        part = peaks[start : start + few]
        for c in range(len(part)):
            folded[c] = max(folded[c], part[c])
    return _select(folded, few - count)


@numba.njit(cache=True)
def _select(values, rank):
    """The value that has ``rank`` others before it in ascending order; the array is shuffled on the way."""
    low, high = 0, len(values) - 1
    while low < high:
        pivot, i, j = values[(low + high) // 2], low, high
        while i <= j:
            while values[i] < pivot:
                i += 1
            while values[j] > pivot:
                j -= 1
            if i <= j:
                values[i], values[j] = values[j], values[i]
                i, j = i + 1, j - 1
        if rank <= j:
            high = j
        elif rank >= i:
            low = i
        else:
            break
    return values[rank]
