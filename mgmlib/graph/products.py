"""Matrix products on the CPU, the fastest way that this machine has: found by measuring once."""

import time
from functools import cache

import numpy as np
import torch

STRIP = 256  # rows multiplied at once; fixed, so that no number depends on how much memory there is
LARGE = 1e8  # multiplications below which the choice does not matter


def product(a, b, out):
    """Inner products of the rows of ``a`` (m, d) and ``b`` (n, d), into ``out`` (m, n)."""
    large = a.device.type == "cpu" and len(a) * len(b) * a.shape[1] > LARGE
    if large and a.dtype == torch.float32 and fastest(torch.get_num_threads()) == "onednn":
        return out.copy_(_onednn(a, b))
    return torch.mm(a, b.T, out=out)


def mirrored(rows, out=None, strip=STRIP):
    """Inner products of ``rows`` (n, d) with themselves, (n, n): half of them are computed and mirrored."""
    out = torch.empty(len(rows), len(rows), dtype=rows.dtype) if out is None else out
    for start in range(0, len(rows), strip):
        end = start + strip
        product(rows[start:end], rows[start:], out[start:end, start:])
        out[end:, start:end] = out[start:end, end:].T
    return out


@cache
def fastest(threads):
    """Which of torch's two float32 paths multiplies faster here: "default" (its BLAS) or "onednn"."""
    if not (torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")):
        return "default"
    a, out = _sample()
    plain, other = _in_turns(lambda: torch.mm(a, a.T, out=out), lambda: out.copy_(_onednn(a, a)))
    return "onednn" if other < 0.9 * plain else "default"


@cache
def half_gain(threads):
    """How many times faster than `product` in float32 bfloat16 rows are multiplied here."""
    a, out = _sample()
    coarse = a.bfloat16()
    plain, other = _in_turns(lambda: product(a, a, out), lambda: torch.mm(coarse, coarse.T))
    return plain / other


def _sample():
    a = torch.rand(768, 1536, generator=torch.Generator().manual_seed(0))
    return a, torch.empty(768, 768)


def _in_turns(*tasks):
    """Least seconds of each task over turns: the machine's speed may drift; the first turn warms up."""
    turns = [[_seconds(task) for task in tasks] for _ in range(4)]
    return np.min(turns[1:], axis=0)


def _onednn(a, b):
    return torch.ops.mkldnn._linear_pointwise(a, b, None, "none", [], "")


def _seconds(task):
    start = time.perf_counter()
    task()
    return time.perf_counter() - start
