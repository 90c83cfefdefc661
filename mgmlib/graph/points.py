"""Points at the door: validated once, then served as float64 rows in the geometry of the kernel."""

import math
from dataclasses import dataclass
from functools import cached_property

import numba
import numpy as np
import torch

from mgmlib.graph.grams import STRIP, grams
from mgmlib.graph.products import mirrored

KERNELS = ("cosine", "rbf")
LARGEST = 1e100  # coordinates beyond it would leave the float64 range once squared (RBF)
FINEST = 1e-100  # bandwidths below it, in the unit of the points, or above its inverse make no difference
ORDINARY = 1e-15, 1e15  # norms whose squares and inverses float32 holds
SINGLE = 1e-6  # error of a float32 inner product of unit vectors: eight times its usual size at d = 2048


@dataclass(frozen=True)
class Points:
    """N validated points on one device.

    ``raw`` is (N, d) in the caller's floating type. `rows` serves float64 rows: unit vectors for the cosine
    kernel; for the RBF kernel, rows less their mean (distances do not see the shift, rounding does), in units
    of a power of two near the largest coordinate (so that their squares stay in the range of float32).
    """

    raw: torch.Tensor
    kernel: str
    bandwidth: float | None  # in that unit
    peak: torch.Tensor  # (N, 1) float64, power of two: divides a row first, so that its norm cannot overflow
    norm: torch.Tensor  # (N, 1) float64: norm of the row so divided (cosine), the unit (rbf)
    shift: torch.Tensor  # (1, d) float64: 0 (cosine), the mean (rbf)
    extent: float  # of the coordinates as served: 1 (cosine), the largest absolute value (rbf)
    unit: float = 1.0  # length of 1 as served, in units of the input (rbf)

    @cached_property
    def radius(self):
        """Largest squared norm of the rows as they are served."""
        if self.kernel == "cosine":
            return 1.0
        blocks = torch.arange(len(self), device=self.device).split(8192)
        return max(float(self.rows(rows).square().sum(1).max()) for rows in blocks)

    @cached_property
    def scale(self):
        """(N,) float64 factor that makes a float32 row what is served."""
        return 1 / self.norm[:, 0]

    def __len__(self):
        return self.raw.shape[0]

    @property
    def device(self):
        """Where the points live, and all that is computed from them."""
        return self.raw.device

    @property
    def resolution(self):
        """Distance under which two points are one: rounding leaves about one eps of each coordinate open."""
        return 4 * torch.finfo(self.raw.dtype).eps * self.extent

    @cached_property
    def ordinary(self):
        """Whether float32 holds the rows' norms, their squares and inverses."""
        low, high = ORDINARY
        return self.raw.dtype == torch.float32 and low < self.norm.min() <= self.norm.max() < high

    @property
    def rounding(self):
        """Error of a score (an inner product less half a squared norm) and of a kernel value in float32."""
        if self.kernel == "cosine":
            return 4 * SINGLE, 0.5 * SINGLE
        return 4 * SINGLE * self.radius, 2 * SINGLE * self.radius / self.bandwidth**2

    def rows(self, ids):
        """Float64 rows at ``ids`` (any shape): (*ids.shape, d)."""
        rows = self.raw[ids].to(torch.float64, copy=True)
        if self.kernel == "rbf":
            rows = rows.sub_(self.shift)
        elif self.raw.dtype == torch.float64:
            rows = rows.div_(self.peak[ids])
        return rows.div_(self.norm[ids])

    def keys(self, ids, dtype):
        """Rows at ``ids`` (n,), distinct and sorted, in the precision of the search: (n, d) ``dtype``."""
        if self.kernel == "cosine" and dtype == torch.float32 and self.ordinary:  # without a float64 copy
            whole = len(ids) == len(self)  # then ``ids``, distinct and sorted, are all rows
            return self.raw / self.norm.float() if whole else self.raw[ids].div_(self.norm[ids].float())
        keys = torch.empty(len(ids), self.raw.shape[1], dtype=dtype, device=self.device)
        for part, out in zip(ids.split(4096), keys.split(4096), strict=True):
            out.copy_(self.rows(part))
        return keys

    def project(self, directions, ids=None):
        """Coordinates of the rows at ``ids``, all by default, on unit ``directions`` (c, m): (n, m) float64.

        Directions weigh the first c columns. Coordinates are right to a few `resolution`s.
        """
        ids, columns = slice(None) if ids is None else ids, len(directions)
        if self.kernel == "cosine" and self.ordinary:  # without a float64 copy
            return (self.raw[ids, :columns] @ directions.to(self.raw)).double() / self.norm[ids]
        blocks = torch.arange(len(self), device=self.device)[ids].split(8192)
        return torch.cat([self.rows(rows)[:, :columns] @ directions for rows in blocks])

    def gram(self, ids, dtype=torch.float64, center=False):
        """Inner products of the rows at ``ids`` (G, n), less their mean on request: (G, n, n) ``dtype``.

        In float32 on the CPU, rows of a set are distinct and sorted, and no mean is subtracted.
        """
        if self.device.type == "cpu" and dtype == torch.float64:
            if self.raw.dtype == torch.float32:
                return grams(self.raw, ids, self.shift[0], self.scale, center)
            still, unit = torch.zeros_like(self.shift[0]), torch.ones(ids.shape[1], dtype=dtype)
            place = torch.arange(ids.shape[1])[None]
            return torch.cat([grams(self.rows(part), place, still, unit, center) for part in ids])
        if self.device.type == "cpu":
            gram = torch.empty(*ids.shape, ids.shape[1], dtype=dtype)
            for members, out in zip(ids, gram, strict=True):
                mirrored(self.keys(members, dtype), out, STRIP)
            return gram
        rows = self.rows(ids)
        if center:
            rows -= rows.mean(-2, keepdim=True)
        rows = rows.to(dtype)
        return torch.bmm(rows, rows.mT)

    def kernel_values(self, gram, left, right):
        """Kernel values from inner products and the squared norms ``left``, ``right`` of their sides."""
        if self.kernel == "cosine":
            return (0.5 * gram).add_(0.5)
        squared = (left + right - 2 * gram).clamp_min(0)
        return torch.exp(squared / (-2 * self.bandwidth**2))


def check_points(z, kernel="cosine", bandwidth=None, device=None):
    """Validate ``z`` (N, d) and return `Points`.

    Parameters
    ----------
    z : (N, d) array or tensor of real numbers; integers and half precision are taken as float32.
    kernel : "cosine" (½ + ½ cos, scale-free) or "rbf" (exp(−‖a−b‖²/2σ²)).
    bandwidth : σ of the RBF kernel, in the units of ``z``.
    device : where to compute; the device of ``z`` by default.

    Raises
    ------
    ValueError
        If ``z`` has another shape, a NaN, an infinite or (cosine) a zero row: the row is named.
    """
    check_choice("kernel", kernel, KERNELS)
    if kernel == "rbf" and not (bandwidth and np.isfinite(bandwidth) and bandwidth > 0):
        raise ValueError(f"bandwidth: the RBF kernel needs a positive number, got {bandwidth!r}")
    raw = torch.as_tensor(z, device=device).detach()
    if raw.ndim != 2 or 0 in raw.shape:
        raise ValueError(f"z: expected shape (N, d) with N, d ≥ 1, got {tuple(raw.shape)}")
    if raw.is_complex():
        raise ValueError(f"z: expected real numbers, got {raw.dtype}")
    if raw.dtype not in (torch.float32, torch.float64):
        raw = raw.float()
    peak = _peaks(raw)
    norm = torch.cat([_norms(*block) for block in _in_blocks(raw, peak)])
    _refuse(~torch.isfinite(norm[:, 0]), "holds NaN or Inf")
    if kernel == "rbf":
        largest = raw.abs().amax(1)
        _refuse(largest > LARGEST, f"holds a coordinate beyond {LARGEST:g}")
        extent = float(largest.max())
        unit = 2.0 ** math.floor(math.log2(extent)) if extent else 1.0
        width = min(max(bandwidth / unit, FINEST), 1 / FINEST)
        ones = torch.ones_like(norm)
        mean = raw.mean(0, keepdim=True, dtype=torch.float64)
        return Points(raw, kernel, width, ones, unit * ones, mean, extent / unit, unit)
    _refuse(norm[:, 0] == 0, "is the zero vector, which has no direction (cosine kernel)")
    return Points(raw, kernel, None, peak, norm, torch.zeros(1, raw.shape[1], device=raw.device), extent=1.0)


def _peaks(raw):
    """(N, 1) float64 powers of two that keep squares in range; float32 squares are in range as they are."""
    ones = torch.ones(len(raw), 1, dtype=torch.float64, device=raw.device)
    if raw.dtype == torch.float32:
        return ones
    largest = raw.abs().amax(1, keepdim=True)
    usable = torch.isfinite(largest) & (largest > 0)
    return torch.exp2(torch.floor(torch.log2(torch.where(usable, largest, 1.0))))


def _norms(raw, peak):
    """(B, 1) float64 norms of the rows over their peaks."""
    if raw.dtype == torch.float64:
        raw = raw / peak
    elif raw.device.type == "cpu":
        squares = np.empty(len(raw))
        _squares(raw.contiguous().numpy(), squares)
        return torch.from_numpy(squares)[:, None].sqrt()
    return torch.linalg.vector_norm(raw, dim=1, keepdim=True, dtype=torch.float64)


@numba.njit(cache=True, fastmath={"reassoc", "contract"})
def _squares(raw, out):
    """Float64 squared norms of float32 rows, in one pass: four rows at a time arrive faster from memory."""
    last = len(raw) - 1
    for i in range(0, len(raw), 4):
        j, k, m = min(i + 1, last), min(i + 2, last), min(i + 3, last)
        a, b, c, d = raw[i], raw[j], raw[k], raw[m]
        of_a = of_b = of_c = of_d = 0.0
        for t in range(len(a)):  # not over the values: that loop is not vectorised
            x, y, z, w = np.float64(a[t]), np.float64(b[t]), np.float64(c[t]), np.float64(d[t])
            of_a, of_b, of_c, of_d = of_a + x * x, of_b + y * y, of_c + z * z, of_d + w * w
        out[i], out[j], out[k], out[m] = of_a, of_b, of_c, of_d


def _in_blocks(raw, peak, rows=8192):
    """Blocks of rows, so that the float64 copy is never as large as the input."""
    return zip(raw.split(rows), peak.split(rows), strict=True)


def _refuse(bad, what):
    if bad.any():
        rows = torch.nonzero(bad)[:, 0].tolist()
        shown = ", ".join(map(str, rows[:5])) + (", …" if len(rows) > 5 else "")
        raise ValueError(f"z: row {shown} {what} ({len(rows)} of {len(bad)} rows)")


def check_choice(name, value, known):
    """Refuse a value of the argument ``name`` that is not among the ``known`` ones."""
    if value not in known:
        raise ValueError(f"{name}: got {value!r}, expected one of {', '.join(map(str, known))}")


def check_groups(groups, n):
    """Return ``groups`` as (n,) int64 codes 0…G−1 and the (G,) original names; one group when None."""
    if groups is None:
        return np.zeros(n, dtype=np.int64), np.zeros(1, dtype=np.int64)
    groups = np.asarray(groups.cpu() if isinstance(groups, torch.Tensor) else groups)
    if groups.shape != (n,):
        raise ValueError(f"groups: expected shape ({n},), one per row of z, got {groups.shape}")
    names, codes = np.unique(groups, return_inverse=True)
    return codes.astype(np.int64), names
