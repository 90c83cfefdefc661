"""What a wide layer of random weights with a ReLU does to angles: the arc-cosine kernel."""

import numpy as np


def relu_cosine(cosine):
    """Cosine of two inputs after a random layer with ReLU, as its width tends to infinity.

    ``(sin θ + (π − θ) cos θ) / π`` with θ the angle before: the normalised arc-cosine kernel of degree 1 (Cho
    & Saul 2009, eq. 6). Orthogonal inputs come out at 1/π; repeated, it tends to 1.

    Parameters
    ----------
    cosine : float or array, in [−1, 1]

    Returns
    -------
    float or array, in [0, 1]
    """
    cosine = np.asarray(cosine, float)
    if not (np.abs(cosine) <= 1).all():  # false for NaN, too
        raise ValueError(f"cosine: expected values in [-1, 1], met {cosine.min():.4g} to {cosine.max():.4g}")
    after = (np.sqrt(1 - cosine**2) + (np.pi - np.arccos(cosine)) * cosine) / np.pi
    return after if after.ndim else float(after)


def relu_gram(gram):
    """Inner products after a random layer with ReLU, as its width tends to infinity.

    He's scaling, weights of variance 2 / inputs, which leaves the diagonal as it is.

    Parameters
    ----------
    gram : (N, N) array
        Inner products of the inputs; of positive diagonal.

    Returns
    -------
    (N, N) array
    """
    norm = np.sqrt(np.diag(gram))
    if not (norm > 0).all():
        raise ValueError("gram: expected a positive diagonal, every input needs a direction")
    lengths = np.outer(norm, norm)
    return lengths * relu_cosine(np.clip(gram / lengths, -1, 1))
