"""Point sets of known dimension: the truth against which the metrics are read."""

import numpy as np


def ball(n, dim, rng):
    """Uniform in the unit ball: (n, dim)."""
    direction = rng.standard_normal((n, dim))
    radius = rng.random((n, 1)) ** (1 / dim)
    return direction * radius / np.linalg.norm(direction, axis=1, keepdims=True)


def cube(n, dim, rng):
    """Uniform in [−1, 1]^dim: (n, dim)."""
    return rng.uniform(-1, 1, (n, dim))


def gaussian(n, dim, rng):
    """Standard normal: (n, dim)."""
    return rng.standard_normal((n, dim))


def sphere(n, dim, rng):
    """Uniform on the unit sphere of dimension ``dim``: (n, dim + 1)."""
    points = rng.standard_normal((n, dim + 1))
    return points / np.linalg.norm(points, axis=1, keepdims=True)


def lift(x, height=1.0):
    """Carry flat points onto the unit sphere, where cosine lives: (x, height) / ‖(x, height)‖, (n, d + 1).

    The larger ``height`` against the extent of ``x``, the flatter the patch of sphere that they cover.
    """
    z = np.column_stack([x, np.full(len(x), float(height))])
    return z / np.linalg.norm(z, axis=1, keepdims=True)


SHAPES = {  # name -> (n, dim, rng) -> points whose cosine geometry has dimension dim
    "ball": lambda n, dim, rng: lift(ball(n, dim, rng), 2.0),
    "cube": lambda n, dim, rng: lift(cube(n, dim, rng), 2.0),
    "gaussian": lambda n, dim, rng: lift(gaussian(n, dim, rng), 2.0 * np.sqrt(dim)),
    "sphere": sphere,
}
