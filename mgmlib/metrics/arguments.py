"""Embeddings at the door of the metrics that work on rows alone: checked, named in errors, gradients kept."""

import torch

from mgmlib.graph.points import check_points

NORM_TOLERANCE = 1e-4  # of a unit vector in float32; coarser types are allowed two of their rounding steps


def check_rows(x, name="z", at_least=2):
    """Validate ``x`` (N, d) by the rules of `check_points` and keep its gradient.

    Parameters
    ----------
    x : (N, d) array or tensor of real numbers. Arrays are taken in float64, tensors in their own precision,
        at least float32.
    name : of the argument, for errors.
    at_least : rows needed.

    Returns
    -------
    (N, d) tensor on the device of ``x``, float32 or float64.
    """
    try:
        checked = check_points(x, "rbf", 1.0).raw  # the kernel whose rows may be zero
    except ValueError as error:
        raise ValueError(str(error).replace("z:", f"{name}:", 1)) from None
    if len(checked) < at_least:
        raise ValueError(f"{name}: expected {at_least} rows or more, got {len(checked)}")
    return x.to(checked.dtype) if isinstance(x, torch.Tensor) else checked.double()


def check_unit_rows(x, name, at_least=1):
    """Validate ``x`` as `check_rows` does, and that its rows have norm 1."""
    rows = check_rows(x, name, at_least)
    given = torch.as_tensor(x).dtype
    tolerance = max(NORM_TOLERANCE, 2 * torch.finfo(given).eps if given.is_floating_point else 0)
    norm = rows.detach().norm(dim=1)
    off = (norm - 1).abs()
    if off.max() > tolerance:
        worst = int(off.argmax())
        raise ValueError(
            f"{name}: expected rows of norm 1 (normalise them first), row {worst} has norm {norm[worst]:.4g}"
        )
    return rows


def check_pair(x, y, check, names=("x", "y"), **options):
    """Validate two sets of rows by ``check``, and that row i of one belongs to row i of the other."""
    x, y = (check(rows, name, **options) for rows, name in zip((x, y), names, strict=True))
    if x.shape != y.shape:
        raise ValueError(
            f"{names[1]}: expected the shape of {names[0]}, {tuple(x.shape)}, got {tuple(y.shape)}"
        )
    return x, y


def check_positive(value, name):
    """Refuse a number that is not positive and finite."""
    if not 0 < value < float("inf"):
        raise ValueError(f"{name}: expected a positive number, got {value!r}")


def as_given(value, *given):
    """A 0-d tensor, differentiable, if any argument was a tensor, else a float."""
    return value if any(isinstance(x, torch.Tensor) for x in given) else value.item()
