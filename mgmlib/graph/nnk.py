"""Non-negative kernel (NNK) neighbourhoods: which of the nearest points a point really needs."""

from dataclasses import dataclass, field

import numpy as np
import torch

from mgmlib.graph import authors, fused, lawson_hanson, tableau
from mgmlib.graph.approximate import Approximate
from mgmlib.graph.duplicates import representatives
from mgmlib.graph.nearest import nearest
from mgmlib.graph.neighbors import as_rows, blocks, in_double, select
from mgmlib.graph.points import check_choice, check_groups, check_points

SOLVERS = ("exact", "certified", "authors")
SEARCHES = ("exact", "approximate")
DUPLICATES = ("merge", "keep", "error")
KKT_TOLERANCE = 1e-9  # an exact row whose residual is larger counts as not converged
TABLEAU_ROWS = 256  # points that pivot together on the CPU: their tableaux stay in its cache


@dataclass(frozen=True)
class NNKGraph:
    """NNK neighbourhoods of Q queries among N points; every array is numpy, on the CPU.

    Attributes
    ----------
    queries : (Q,) int64 rows of ``z``.
    indices : (Q, k) int64 candidate rows of ``z``, nearest first, −1 where a group has fewer.
    weights : (Q, k) float64 θ ≥ 0.
    kkt : (Q,) float64, largest violation of the optimality conditions, in kernel units (0…1); where
        ``single``, that of the float32 kernel, whose values are right to 5e-7: at most 1e-6 is to be added.
    converged : (Q,) bool: optimal to `KKT_TOLERANCE` ("exact"), every factorisation sound ("authors").
    single : (Q,) bool: from float32 inner products, and certified ("certified"); the rest is from float64.
    recall : share of the true candidates that an approximate search found (on a sample); 1 if exact.
    n_duplicates : int, rows that repeat an earlier row of their group.
    n_points : int, N.
    groups : (N,) int64 group codes, or None for one set.
    settings : dict of the parameters that made the graph.
    """

    queries: np.ndarray
    indices: np.ndarray
    weights: np.ndarray
    kkt: np.ndarray
    converged: np.ndarray
    single: np.ndarray
    n_duplicates: int
    n_points: int
    groups: np.ndarray | None
    settings: dict = field(default_factory=dict)
    recall: float = 1.0

    @property
    def support(self):
        """(Q, k) bool: the candidates that are neighbours, θ > tol."""
        return self.weights > self.settings["tol"]

    @property
    def n_neighbors(self):
        """(Q,) int64 number of neighbours: the raw intrinsic dimension of each query."""
        return self.support.sum(1)

    def neighbors(self, i):
        """Rows of ``z`` that are neighbours of query number ``i``, nearest first."""
        return self.indices[i][self.support[i]]

    def __repr__(self):
        return (
            f"NNKGraph({len(self.queries)} queries, k={self.settings['k']}, {self.settings['kernel']}, "
            f"{self.settings['solver']}: {self.n_neighbors.mean():.1f} neighbours on average, "
            f"{self.n_duplicates} duplicates, {(~self.converged).sum()} not converged)"
        )


def nnk(
    z,
    k=50,
    *,
    groups=None,
    queries=None,
    solver="exact",
    kernel="cosine",
    bandwidth=None,
    duplicates="merge",
    tol=1e-6,
    search="exact",
    engine=None,
    device=None,
    threads=None,
    block_bytes=2**29,
):
    """NNK neighbourhood of each query (Shekkizhar & Ortega 2020, arXiv 1910.09383).

    θ* = argmin_{θ≥0} ½ θᵀ K_SS θ − k_Sqᵀ θ, with S the query's k nearest others, never the query itself.

    Parameters
    ----------
    z : (N, d) array or tensor.
    k : number of candidates; a group of n distinct points offers at most n − 1.
    groups : (N,) int, optional. Candidates come from the query's own group only.
    queries : (Q,) int rows, optional. All rows by default.
    solver : "exact" (the optimum from float64 inner products, with its residual); "certified" (the same
        neighbours from float32 inner products: a point whose candidates or neighbours rounding could change,
        to first order, is done again in float64; weights are right to about 1e-4; groups of at most 512
        distinct points are computed in float64 outright); "authors" (the published code's pruning rule).
    kernel, bandwidth : "cosine" (½ + ½ cos) or "rbf" with standard deviation ``bandwidth``.
    duplicates : "merge" (copies are one point: one candidate, and never their own neighbour; every copy gets
        the same neighbourhood), "keep" (rows as they are) or "error".
    tol : a neighbour is a candidate with θ > tol.
    search : "exact", or "approximate": groups of more than 512 points are searched by a faiss index, and the
        share of the true candidates that it found is measured on a sample (``recall``).
    engine : how the optimum is computed: "numba" (CPU) or "torch" (any device; rows that its pivots leave
        above the tolerance are redone by numba). By default numba on the CPU, torch elsewhere.
    device : where to compute; the device of ``z`` by default.
    threads : CPU threads of the solver; what torch uses by default.
    block_bytes : bound on each block of working memory; results do not depend on it but for rounding.

    Returns
    -------
    NNKGraph

    Raises
    ------
    ValueError
        For a bad argument; a NaN, Inf or zero row (named); a group with fewer than 3 distinct points (named).
    """
    _check_options(k, solver, duplicates, tol, search, engine)
    points = check_points(z, kernel, bandwidth, device)
    codes, names = check_groups(groups, len(points))
    queries = as_rows(queries, len(points))
    first = representatives(points, codes)
    copy = first != np.arange(len(first))
    _check_distinct(codes, names, copy, queries, grouped=groups is not None)
    if duplicates == "error" and copy.any():
        row = int(np.flatnonzero(copy)[0])
        raise ValueError(
            f"z: row {row} repeats row {first[row]} ({copy.sum()} duplicates), and duplicates='error'"
        )
    if duplicates == "merge":
        present = np.where(copy, -1, codes)
        asked, back = np.unique(first[queries], return_inverse=True)
    else:
        present = codes
        asked, back = np.unique(queries, return_inverse=True)

    if np.array_equal(asked, queries):
        back = slice(None)  # without a copy

    on_cpu = points.device.type == "cpu"
    if engine == "numba" and not on_cpu:
        raise ValueError(f"engine: 'numba' computes on the CPU, and z is on {points.device}")
    engine = engine or ("numba" if on_cpu else "torch")
    solve = _Solve(solver, engine, tol, threads or torch.get_num_threads(), block_bytes)
    find = Approximate() if search == "approximate" else nearest
    rows = _Rows(asked, k)
    single = solver == "certified"
    for block in blocks(points, present, asked, k, block_bytes, solve.threads, single, find):
        sound = rows.store(block, *solve(points, block))
        if block.near is not None and not sound.all():
            doubt = ~sound.to(points.device)
            for again in in_double(points, block.queries[doubt], block.pool[doubt], block.m, block_bytes):
                rows.store(again, *solve(points, again))
    settings = dict(k=k, solver=solver, kernel=kernel, bandwidth=bandwidth, duplicates=duplicates, tol=tol)
    return NNKGraph(
        queries=queries,
        indices=rows.indices[back],
        weights=rows.weights[back],
        kkt=rows.kkt[back],
        converged=rows.converged[back],
        single=rows.single[back],
        n_duplicates=int(copy.sum()),
        n_points=len(points),
        groups=None if groups is None else codes,
        settings=settings | dict(search=search, engine=engine),
        recall=find.recall if search == "approximate" else 1.0,
    )


class _Rows:
    """What is known of some queries (Q,), in the order of their rows."""

    def __init__(self, asked, k):
        q = len(asked)
        self.asked = asked
        self.indices, self.weights = np.full((q, k), -1), np.zeros((q, k))
        self.kkt, self.converged, self.single = np.zeros(q), np.zeros(q, dtype=bool), np.zeros(q, dtype=bool)

    def store(self, block, near, theta, kkt, sound):
        """Enter the solution of a block; returns ``sound``."""
        at, m = np.searchsorted(self.asked, block.queries.cpu().numpy()), block.m
        self.indices[at, :m], self.weights[at, :m] = block.rows(near).cpu().numpy(), theta.cpu().numpy()
        self.kkt[at], self.converged[at] = kkt.cpu().numpy(), sound.cpu().numpy()
        self.single[at] = block.near is not None
        return sound


@dataclass(frozen=True)
class _Solve:
    """Block → columns of the candidates (Q, m), weights (Q, m), KKT residual (Q,), sound (Q,).

    Sound is optimal in float64, certified in float32, and factored throughout by the authors' rule.
    """

    solver: str
    engine: str
    tol: float
    threads: int
    block_bytes: int

    def __call__(self, points, block):
        if self.solver != "authors" and self.engine == "numba":
            near, theta, residual, certain = fused.solve_block(points, block, self.tol, self.threads)
            sound = residual <= KKT_TOLERANCE
            return near, theta, residual, sound if block.near is None else sound & certain & block.settled
        bytes_each = 32 * (block.m**2 + block.gram.shape[1])
        rows = max(1, self.block_bytes // bytes_each)
        if self.solver != "authors" and points.device.type == "cpu":
            rows = min(rows, TABLEAU_ROWS)
        starts = range(0, len(block.where), rows)
        parts = [self._part(points, block, slice(start, start + rows)) for start in starts]
        return tuple(torch.cat(column) for column in zip(*parts, strict=True))

    def _part(self, points, block, rows):
        near, kernel, target = select(points, block, rows)
        if self.solver == "authors":
            theta, sound = authors.solve(kernel, target, self.tol)
            return near, theta, _residual(kernel, target, theta), sound
        theta = tableau.solve(kernel, target)
        if block.near is not None:
            residual = _residual(kernel, target, theta)
            certain = tableau.certain(kernel, target, theta, points.rounding[1], self.tol)
            return near, theta, residual, (residual <= KKT_TOLERANCE) & certain & block.settled[rows]
        redo = _residual(kernel, target, theta) > KKT_TOLERANCE
        if redo.any():
            again = lawson_hanson.solve(kernel[redo].cpu().numpy(), target[redo].cpu().numpy(), self.threads)
            theta[redo] = torch.as_tensor(again, device=theta.device)
        residual = _residual(kernel, target, theta)
        return near, theta, residual, residual <= KKT_TOLERANCE


def _residual(kernel, target, theta):
    """Largest violation of: gradient = 0 where θ > 0, gradient ≥ 0 elsewhere."""
    gradient = (kernel @ theta[:, :, None])[:, :, 0] - target
    return torch.where(theta > 0, gradient.abs(), (-gradient).clamp_min(0)).amax(1)


def _check_options(k, solver, duplicates, tol, search, engine):
    if not isinstance(k, int | np.integer) or k < 1:
        raise ValueError(f"k: expected a positive integer, got {k!r}")
    if not 0 <= tol < 1:
        raise ValueError(f"tol: expected a number in [0, 1), got {tol!r}")
    check_choice("solver", solver, SOLVERS)
    check_choice("duplicates", duplicates, DUPLICATES)
    check_choice("search", search, SEARCHES)
    check_choice("engine", engine, (None, "numba", "torch"))


def _check_distinct(codes, names, copy, queries, grouped):
    """A neighbourhood needs three distinct points: the query and two to choose between."""
    distinct = np.bincount(codes[~copy], minlength=len(names))
    asked = np.unique(codes[queries])
    poor = asked[distinct[asked] < 3]
    if len(poor):
        rows = int((codes == poor[0]).sum())
        where = f"group {names[poor[0]]}" if grouped else "the set"
        more = f", and {len(poor) - 1} more groups too few" if len(poor) > 1 else ""
        raise ValueError(
            f"z: {where} has {distinct[poor[0]]} distinct points ({rows} rows), NNK needs at least 3{more}"
        )
