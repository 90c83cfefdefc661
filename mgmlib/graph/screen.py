"""Who can be among the nearest others, by half-precision products where these are the faster ones.

Rounding rows to bfloat16 moves an inner product by no more than Cauchy and Schwarz allow. What could be among
the nearest within that bound is a candidate, to be ranked in the precision asked for; nothing else is.
"""

from dataclasses import dataclass

import numba
import numpy as np
import torch

from mgmlib.graph.lawson_hanson import with_threads
from mgmlib.graph.products import STRIP, half_gain, mirrored
from mgmlib.graph.ranks import peaks_of, reached
from mgmlib.graph.tiles import surroundings

LEAST_ROWS, LEAST_WIDTH = 2048, 256  # below them products are not what takes the time
LEAST_GAIN = 2.0  # of half-precision products over float32 ones: the second look costs some of it
SEEDS, NEAR = 4, 32  # neighbourhoods that are looked at before anything is decided, rows of each
ROOMY = 4  # most candidates of a row, in multiples of the number asked for
CLOSE = 0.25  # most products that the second look may take, as a share of all
CACHED = 2**16  # numbers that are rounded at once
OUTPUT = 2.0**-8  # largest relative error of a product as bfloat16 holds it


def screen(keys, half, own, wide, rounding, block_bytes, threads):
    """Tiles of rows that hold, for each query, all that can be among its ``wide`` nearest others.

    Parameters
    ----------
    keys : (n, d) float tensor on the CPU. half : (n,) tensor: scores are ⟨a, b⟩ − half_b.
    own : (Q,) int64 tensor of queries, sorted.
    wide : number of nearest others. rounding : error of a score in float32.
    block_bytes : bound on the working memory. threads : CPU threads.

    Returns
    -------
    tiles : list of (members, inside), as `surroundings` gives them. doubt : (D,) int64 tensor, queries with
        too many candidates to list. None instead of both where all this would not be faster.
    """
    n, listed = len(keys), 8 * ROOMY * wide * len(keys)
    small = n < LEAST_ROWS or keys.shape[1] < LEAST_WIDTH
    if small or listed > block_bytes or half_gain(threads) < LEAST_GAIN:
        return None
    coarse = _Coarse.of(keys, half, rounding, wide, threads)
    if not coarse.promising():
        return None
    pool, found = coarse.candidates_of_all(block_bytes)
    over = found > pool.shape[1]
    pool[over] = -1
    queries = own.numpy()
    tiles = surroundings(queries[~over[queries]], pool, hops=1)
    work = sum(len(members) ** 2 for members, _ in tiles) + n * over[queries].sum()
    return (tiles, own[torch.from_numpy(over[queries])]) if work <= CLOSE * n * n else None


@dataclass(frozen=True)
class _Coarse:
    """Rows less their mean in bfloat16. But for a constant of the row, scores are theirs less an offset."""

    rows: torch.Tensor  # (n, d) bfloat16
    offset: np.ndarray  # (n,) float32
    error: np.ndarray  # (n,) float32, the most by which a score of the row is wrong
    wide: int
    threads: int

    @classmethod
    def of(cls, keys, half, rounding, wide, threads):
        """Round, and bound what that does to a score: |⟨a, b⟩ − ⟨a', b'⟩| ≤ ‖a‖‖b − b'‖ + ‖a − a'‖‖b'‖."""
        mean = keys.mean(0)
        rows = torch.empty(keys.shape, dtype=torch.bfloat16)
        length, lost = torch.empty(len(keys)), torch.empty(len(keys))
        step = max(1, CACHED // keys.shape[1])
        for start in range(0, len(keys), step):
            part = slice(start, start + step)
            centred = keys[part] - mean
            rows[part] = centred
            length[part] = centred.norm(dim=1)
            lost[part] = centred.sub_(rows[part]).norm(dim=1)
        size = length + lost  # bounds ‖a'‖
        error = length * lost.max() + lost * size.max() + OUTPUT * size * size.max() + rounding
        return cls(rows, (half - keys @ mean).float().numpy(), error.numpy(), wide, threads)

    def promising(self):
        """Whether few rows are in doubt, and neighbourhoods close: tiles then serve many rows."""
        n, work = len(self.rows), 0.0
        for seed in np.linspace(0, n - 1, SEEDS).astype(int):
            near, found = self._candidates(np.array([seed]))
            near = near[0, : min(found[0], NEAR)]
            pool, found = self._candidates(near)
            if found.max() > pool.shape[1]:
                return False
            reach = np.unique(pool[pool >= 0])
            beyond = np.setdiff1d(reach, near)
            some = beyond[:: max(1, len(beyond) // NEAR)]
            inside = np.isin(self._candidates(some)[0], [-1, *reach]).all(1).mean() if len(some) else 1.0
            work += len(reach) ** 2 / (len(near) + inside * len(beyond)) / SEEDS
        return work <= CLOSE * n

    def candidates_of_all(self, block_bytes):
        """Each pair is multiplied once where all products fit into ``block_bytes``, else twice."""
        n = len(self.rows)
        if 2 * n * n <= block_bytes:
            return self._candidates(np.arange(n), mirrored(self.rows))
        pool, found = np.empty((n, ROOMY * self.wide), np.int64), np.empty(n, np.int64)
        for ids in np.array_split(np.arange(n), -(-n // STRIP)):
            pool[ids], found[ids] = self._candidates(ids)
        return pool, found

    def _candidates(self, ids, products=None):
        """All that can be among the nearest of the rows ``ids`` (B,), by their products (B, n) if at hand.

        Returns
        -------
        pool : (B, ROOMY · wide) int64 rows, −1 pads. found : (B,) how many there are, listed or not.
        """
        products = self.rows[ids] @ self.rows.T if products is None else products
        pool, found = np.full((len(ids), ROOMY * self.wide), -1), np.empty(len(ids), np.int64)
        bits, score = products.view(torch.uint16).numpy(), (self.offset, self.error[ids], self.wide)
        with_threads(self.threads, _collect, bits, ids, *score, pool, found)
        return pool, found


@numba.njit(parallel=True, cache=True)
def _collect(bits, ids, offset, error, wide, pool, found):
    for at in numba.prange(len(bits)):
        score = _widened(bits[at])
        score[ids[at]] = -np.inf
        peaks = peaks_of(score, offset, wide)
        least, listed = reached(peaks, wide) - 2 * error[at], pool[at]
        high, highs, count = np.empty(len(peaks), np.int64), 0, 0
        for c in range(len(peaks)):  # written first, counted if true: no branch to be mistaken about
            high[highs] = c
            highs += peaks[c] >= least
        for c in high[:highs]:
            for j in range(c, len(score), len(peaks)):
                if count < len(listed):
                    listed[count] = j
                count += score[j] - offset[j] >= least
        if count < len(listed):
            listed[count] = -1
        found[at] = count


@numba.njit(cache=True)
def _widened(bits):
    """Float32 of numbers that are given as the bits of bfloat16, its upper half."""
    wide = np.empty(len(bits), np.uint32)
    for j in range(len(bits)):
        wide[j] = np.uint32(bits[j]) << np.uint32(16)
    return wide.view(np.float32)
