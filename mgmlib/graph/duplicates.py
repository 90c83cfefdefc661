"""Which rows are the same point: suspected on a line, confirmed in space."""

import numpy as np
import torch

LINES = 4  # random directions on which a pair must agree before its distance is computed
FEW = 64  # columns that the first direction has weights on, where these tell rows apart
CROWD = 8  # rows as close as copies on the first line that do not: then all columns are looked at


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
    radius = 2 * points.resolution
    reach = 4 * radius  # on the lines, whose coordinates are rounded too
    parent, (line, order), gap = np.arange(len(points)), _first_line(points, codes, reach), 1
    left, right = _close(order, gap, line, codes, reach)
    lines = _others(points, np.union1d(left, right))
    while len(left):  # each row against its gap-th follower, until no pair is close enough
        near = (np.abs(lines[right] - lines[left]) <= reach).all(1)
        left, right = _confirm(points, left[near], right[near], radius)
        gap += 1
        if len(left):  # the merged rows leave the line; what remains is compared afresh
            _join(parent, left, right)
            order, gap = order[parent[order] == order], 1
        left, right = _close(order, gap, line, codes, reach)
    return parent


def _first_line(points, codes, reach):
    """Coordinates (N,) of the rows on a line, and their order by group and line.

    A line through few columns takes little reading; one through all is safe where rows agree in those.
    """
    d = points.raw.shape[1]
    for columns in (FEW, d) if d > FEW else (d,):
        line = points.project(_directions(points, columns, 1))[:, 0].cpu().numpy()
        order = np.lexsort((line, codes))
        if not len(_close(order, CROWD, line, codes, reach)[0]):
            break
    return line, order


def _close(order, gap, line, codes, reach):
    """Rows and their ``gap``-th followers in ``order`` that share a group and lie close on the line."""
    left, right = order[:-gap], order[gap:]
    near = (codes[left] == codes[right]) & (line[right] - line[left] <= reach)
    return left[near], right[near]


def _others(points, suspects):
    """Coordinates (N, LINES − 1) of the ``suspects`` on other lines: who is close to none needs none."""
    lines = np.zeros((len(points), LINES - 1))
    if len(suspects):
        ids = torch.as_tensor(suspects, device=points.device)
        directions = _directions(points, points.raw.shape[1], LINES - 1)
        lines[suspects] = points.project(directions, ids).cpu().numpy()
    return lines


def _directions(points, columns, count):
    """Fixed random unit vectors that weigh the first columns: (columns, count) float64."""
    generator = torch.Generator().manual_seed(count)
    directions = torch.randn(columns, count, generator=generator, dtype=torch.float64)
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
