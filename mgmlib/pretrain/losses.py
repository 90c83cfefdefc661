"""Losses that several methods share. Features are unit rows (B, d) float32; ``tau`` is a temperature."""

import functools
import math

import torch
from torch.nn import functional as F


def in_float32(loss):
    """The same function of tensors, outside autocast, half precision raised to float32."""

    @functools.wraps(loss)
    def exact(*args, **options):
        half = (torch.float16, torch.bfloat16)
        args = [a.float() if isinstance(a, torch.Tensor) and a.dtype in half else a for a in args]
        with torch.autocast(args[0].device.type, enabled=False):
            return loss(*args, **options)

    return exact


@in_float32
def info_nce(query, key, negatives, tau):
    """Cross-entropy of each query's own key against shared negatives (n, d) (He et al., MoCo, eq. 1)."""
    positive = (query * key).sum(1, keepdim=True)
    logits = torch.cat([positive, query @ negatives.T], 1) / tau
    return F.cross_entropy(logits, torch.zeros(len(logits), dtype=torch.long, device=logits.device))


@in_float32
def batch_nce(query, keys, tau):
    """Cross-entropy of each query's own key, the row of the same number, among all keys (n, d), n ≥ B."""
    return F.cross_entropy(query @ keys.T / tau, torch.arange(len(query), device=query.device))


@in_float32
def nt_xent(z1, z2, tau):
    """Two views of B images: each of 2B finds its partner among 2B - 1 (Chen et al., SimCLR, eq. 1)."""
    z = torch.cat([z1, z2])
    logits = (z @ z.T / tau).fill_diagonal_(float("-inf"))
    n = len(z1)
    partner = torch.arange(2 * n, device=z.device).roll(n)
    return F.cross_entropy(logits, partner)


@in_float32
def nce(query, own, noise, tau, log_z, n):
    """Noise-contrastive estimation: tell each row's own memory from noise (Wu et al., NPID, eq. 4-7).

    P(i | v) = exp(v · f_i / tau) / Z is held against uniform noise, m times as frequent.

    Parameters
    ----------
    query, own : torch.Tensor (B, d)
    noise : torch.Tensor (m, d)
        Memories drawn uniformly, shared by the batch.
    log_z : torch.Tensor ()
        Logarithm of Z.
    n : int
        Images in all; the noise has probability 1/n each.
    """
    shift = log_z + math.log(len(noise) / n)
    data = (query * own).sum(1) / tau - shift
    drawn = query @ noise.T / tau - shift
    return F.softplus(-data).mean() + F.softplus(drawn).sum(1).mean()


@torch.no_grad()
@in_float32
def log_normalizer(query, noise, tau, n):
    """Log of NPID's constant Z, the mean over a batch of sum_i exp(v · f_i / tau), from noise (eq. 8)."""
    logits = query @ noise.T / tau
    return logits.logsumexp((0, 1)) + math.log(n / logits.numel())


@in_float32
def cosine_regression(prediction, target):
    """2 - 2 cos, mean over the batch (Grill et al., BYOL, eq. 2)."""
    return 2 - 2 * (prediction * target).sum(1).mean()


@torch.no_grad()
@in_float32
def sinkhorn(scores, epsilon, iterations=3):
    """Soft assignments (B, K) with equal column sums, each row summing to 1 (Caron et al., SwAV, eq. 3-5).

    Parameters
    ----------
    scores : torch.Tensor (B, K)
        Similarities of rows and prototypes.
    epsilon : float
        Weight of the entropy.
    """
    q = scores.sub(scores.max()).div_(epsilon).exp_()
    rows, columns = q.shape
    scale = q.new_ones(rows)
    for _ in range(iterations):  # of the matrix scale_i q_ij weight_j, only the two factors change
        weight = 1 / (columns * (scale @ q).clamp_min(1e-30))
        scale = 1 / (rows * (q @ weight).clamp_min(1e-30))
    return q.mul_(weight).mul_(rows * scale[:, None])


def swapped_prediction(scores, codes, tau):
    """Cross-entropy of each view's scores against the codes of every other (Caron et al., SwAV, eq. 1-2).

    Parameters
    ----------
    scores : list of torch.Tensor (B, K)
        Similarities to prototypes; one for each view.
    codes : list of torch.Tensor, (B, K) float that sum to 1 or (B,) int
        Of the first views; no view is compared with its own.

    Returns
    -------
    torch.Tensor ()
        Mean over all pairs of views.
    """
    pairs = [(s, code) for a, code in enumerate(codes) for v, s in enumerate(scores) if v != a]
    return sum(F.cross_entropy(s / tau, code) for s, code in pairs) / len(pairs)
