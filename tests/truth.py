"""Problems that carry their exact answer, and slow, plain references for those that do not."""

from dataclasses import dataclass

import numpy as np
from scipy.linalg import orth
from scipy.optimize import nnls


@dataclass(frozen=True)
class Neighborhood:
    """A set of points with the NNK neighbours of row 0, by hand."""

    name: str
    z: np.ndarray
    kernel: dict
    neighbors: set
    weights: dict


def known_neighborhoods():
    """Small problems solved on paper."""
    e = np.eye(5)
    yield Neighborhood(  # K = ½ + ½I among the axes, k = ½: equal weights 1/(m + 1) for m candidates
        "orthogonal axes", e, {"kernel": "cosine"}, {1, 2, 3, 4}, {i: 1 / 5 for i in range(1, 5)}
    )
    on_a_line = np.array([[0.0], [1.0], [2.0], [-1.0], [-2.0], [3.0]])
    a, b = np.exp(-0.5), np.exp(-2.0)  # RBF, σ = 1: by symmetry θ₁ = θ₋₁ = a / (1 + b); the rest is screened
    yield Neighborhood(
        "line, RBF", on_a_line, {"kernel": "rbf", "bandwidth": 1.0}, {1, 3}, {1: a / (1 + b), 3: a / (1 + b)}
    )
    circle = np.deg2rad([0, 10, -10, 20, -20, 40, 180])  # 0 lies between ±10 on the arc: they suffice
    z = np.column_stack([np.cos(circle), np.sin(circle)])
    c, s = np.cos(circle[1]), np.cos(2 * circle[1])  # K(±10, 0) = (1 + c)/2, K(10, −10) = (1 + s)/2
    w = (1 + c) / (3 + s)
    yield Neighborhood("circle, cosine", z, {"kernel": "cosine"}, {1, 2}, {1: w, 2: w})


def reference_weights(z, q, candidates):
    """NNK weights by scipy's NNLS on explicit features φ = (1, z/‖z‖)/√2, float64: no Gram is formed."""
    z = np.asarray(z, float)
    phi = np.column_stack([np.ones(len(z)), z / np.linalg.norm(z, axis=1, keepdims=True)]) / np.sqrt(2)
    return nnls(phi[candidates].T, phi[q])[0]


def weight_matrix(graph, n):
    """Dense (Q, n) weights, so that graphs with other candidate orders can be compared."""
    dense = np.zeros((len(graph.queries), n))
    rows, columns = np.nonzero(graph.indices >= 0)
    dense[rows, graph.indices[rows, columns]] = graph.weights[rows, columns]
    return dense


def reference_metrics(graph, z):
    """Diameter and affinity by loops over points, with orthonormal bases in the full space."""
    z = np.asarray(z, float)
    if graph.settings["kernel"] == "cosine":
        z = z / np.linalg.norm(z, axis=1, keepdims=True)
    near = {int(q): graph.neighbors(i) for i, q in enumerate(graph.queries)}
    basis = {q: orth((z[near[q]] - z[q]).T, rcond=1e-5) for q in near}
    diameter = [max(np.linalg.norm(z[i] - z[j]) for i in near[q] for j in near[q]) for q in near]
    affinity = [np.mean([_affinity(basis[q], basis[p]) for p in near[q]]) for q in near]
    return np.array(diameter), np.array(affinity)


def _affinity(u, v):
    return np.linalg.norm(u.T @ v) / np.sqrt(min(u.shape[1], v.shape[1]))


def rotation(d, rng):
    """A random orthogonal matrix, uniform."""
    q, r = np.linalg.qr(rng.standard_normal((d, d)))
    return q * np.sign(np.diag(r))


def clustered(n, d, rng, clusters=8, rank=6):
    """Points on a few low-dimensional sheets, cut by a ReLU: what embeddings look like."""
    centers = rng.standard_normal((clusters, d))
    sheets = rng.standard_normal((clusters, rank, d)) / np.sqrt(rank)
    which = rng.integers(0, clusters, n)
    return np.maximum(
        centers[which] + np.einsum("nr,nrd->nd", rng.standard_normal((n, rank)), sheets[which]), 0
    )
