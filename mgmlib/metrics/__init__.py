"""NNK graph → manifold graph metrics, and the rivals beside them; knows nothing of images or models."""

from mgmlib.metrics.affinity import affinity
from mgmlib.metrics.alignment import alignment
from mgmlib.metrics.alpha_req import alpha_req
from mgmlib.metrics.calibration import Calibration, calibrate
from mgmlib.metrics.clid import clid, cluster_learnability
from mgmlib.metrics.contrastive_limit import contrastive_limit
from mgmlib.metrics.cosine import mean_cosine
from mgmlib.metrics.diameter import diameter
from mgmlib.metrics.levina_bickel import levina_bickel
from mgmlib.metrics.lidar import lidar
from mgmlib.metrics.manifold import METRICS, manifold_metrics, point_metrics
from mgmlib.metrics.nesum import nesum
from mgmlib.metrics.rankme import rankme
from mgmlib.metrics.spectral_loss import spectral_contrastive_loss
from mgmlib.metrics.stable_rank import stable_rank
from mgmlib.metrics.two_nn import two_nn
from mgmlib.metrics.uniformity import uniformity

__all__ = [
    "METRICS",
    "Calibration",
    "affinity",
    "alignment",
    "alpha_req",
    "calibrate",
    "clid",
    "cluster_learnability",
    "contrastive_limit",
    "diameter",
    "levina_bickel",
    "lidar",
    "manifold_metrics",
    "mean_cosine",
    "nesum",
    "point_metrics",
    "rankme",
    "spectral_contrastive_loss",
    "stable_rank",
    "two_nn",
    "uniformity",
]
