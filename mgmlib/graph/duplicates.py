"""Which rows are the same point: suspected on a line, confirmed in space."""

import numpy as np
import torch

LINES = 4  # random directions on which a pair must agree before its distance is computed


def representatives(points, codes):
    """First row of each distinct point.

    Two rows are one point when they share a group and lie closer than `Points.resolution`. A projection to a
    line never grows a distance, so that only rows that are neighbours on a random line need a closer look:
    O(N d + N log N) unless the data collapse to the resolution itself.

    Parameters
    ----------
    points : Points
    codes : (N,) int64 group of each row.

    Returns
    -------
    (N,) int64: for each row the first row that is the same point (itself when there is none before it).
    """
    directions = _directions(points)
    line = points.project(directions[:, :1])[:, 0].cpu().numpy()
    radius = 2 * points.resolution
    reach = 4 * radius  # on the lines, whose coordinates are rounded too
    parent, order, gap = np.arange(len(points)), np.lexsort((line, codes)), 1
    left, right = _close(order, gap, line, codes, reach)
    lines = _others(points, directions[:, 1:], np.union1d(left, right))
    while len(left):  # each row against its gap-th follower, until no pair is close enough
        near = (np.abs(lines[right] - lines[left]) <= reach).all(1)
        left, right = _confirm(points, left[near], right[near], radius)
        gap += 1
        if len(left):  # the merged rows leave the line; what remains is compared afresh
            _join(parent, left, right)
            order, gap = order[parent[order] == order], 1
        left, right = _close(order, gap, line, codes, reach)
    return parent


def _close(order, gap, line, codes, reach):
    """Rows and their ``gap``-th followers in ``order`` that share a group and lie close on the line."""
    left, right = order[:-gap], order[gap:]
    near = (codes[left] == codes[right]) & (line[right] - line[left] <= reach)
    return left[near], right[near]


def _others(points, directions, suspects):
    """Coordinates (N, m) of the ``suspects`` on the other lines: who is close to none needs none."""
    lines = np.zeros((len(points), directions.shape[1]))
    if len(suspects):
        ids = torch.as_tensor(suspects, device=points.device)
        lines[suspects] = points.project(directions, ids).cpu().numpy()
    return lines


def _directions(points):
    """`LINES` fixed random unit vectors: (d, LINES) float64."""
    generator = torch.Generator().manual_seed(0)
    directions = torch.randn(points.raw.shape[1], LINES, generator=generator, dtype=torch.float64)
    return (directions / directions.norm(dim=0)).to(points.device)


def _confirm(points, left, right, radius):
    """The pairs that are closer than ``radius`` in space."""
    keep = np.zeros(len(left), dtype=bool)
    for start in range(0, len(left), 4096):
        part = slice(start, start + 4096)
        a, b = (torch.as_tensor(side[part], device=points.device) for side in (left, right))
        keep[part] = ((points.rows(a) - points.rows(b)).norm(dim=1) <= radius).cpu().numpy()
    return left[keep], right[keep]


def _join(parent, left, right):
    """Union the pairs in place; every row ends at the smallest row of its set."""
    for a, b in zip(left.tolist(), right.tolist(), strict=True):
        a, b = _root(parent, a), _root(parent, b)
        parent[max(a, b)] = min(a, b)
    while (parent[parent] != parent).any():
        parent[:] = parent[parent]


def _root(parent, row):
    while parent[row] != row:
        row = parent[row]
    return row
