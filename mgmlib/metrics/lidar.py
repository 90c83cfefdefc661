"""LiDAR: the rank of what tells images apart, in units of what differs between views of one image."""

import torch
from torch.nn.functional import pad

from mgmlib.metrics.arguments import check_positive, check_rows
from mgmlib.metrics.spectrum import smooth_rank


def lidar(views, delta=1e-4, eps=1e-7):
    """Smooth rank of the linear discriminant matrix, every image a class of its own (Thilak et al. 2023).

    exp(−Σ p log p), p = λ/‖λ‖₁ + ε, λ the d eigenvalues of Σ_w^−½ Σ_b Σ_w^−½ (arXiv 2312.04000). Convention:
    Σ_b is the mean outer product of the centred class means, Σ_w that of the views about their class mean,
    plus δ I. Published implementations differ in δ and ε: state them with the number.

    Parameters
    ----------
    views : (G, V, d) array or tensor, V ≥ 2 views of each of G ≥ 2 images.
    delta : δ, in squared units of ``views``, positive; it decides where views hardly vary.
    eps : ε, as in `rankme`.

    Returns
    -------
    float in [1, min(G − 1, d)], up to ε.

    Raises
    ------
    ValueError
        If the shape is another, rows are not finite (counted through G · V), or all class means coincide.
    """
    check_positive(delta, "delta")
    given = torch.as_tensor(views)
    if given.ndim != 3 or given.shape[0] < 2 or given.shape[1] < 2:
        raise ValueError(f"views: expected shape (G, V, d), G and V ≥ 2, got {tuple(given.shape)}")
    classes, v, d = given.shape
    rows = check_rows(given.flatten(0, 1), "views").detach()
    means, within = [], delta * torch.eye(d, dtype=torch.float64, device=rows.device)
    for block in rows.view(classes, v, d).split(max(1, 8192 // v)):
        block = block.double()
        means.append(block.mean(1))
        spread = (block - means[-1][:, None]).flatten(0, 1)
        within += spread.T @ spread / len(rows)
    between = torch.cat(means)
    between -= between.mean(0)
    if between.abs().max() <= 1e-13 * rows.abs().max():
        raise ValueError("views: the mean over views is the same for every image, there is no rank")
    # With Σ_w = L Lᵀ the eigenvalues are the squared singular values of L⁻¹ [class means], up to 1/G.
    whitened = torch.linalg.solve_triangular(torch.linalg.cholesky(within), between.T, upper=False)
    spectrum = torch.linalg.svdvals(whitened).square()
    return smooth_rank(pad(spectrum, (0, d - len(spectrum))), eps)
