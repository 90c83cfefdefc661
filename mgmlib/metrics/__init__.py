"""NNK graph → manifold graph metrics; knows nothing of images or models."""

from mgmlib.metrics.affinity import affinity
from mgmlib.metrics.calibration import Calibration, calibrate
from mgmlib.metrics.diameter import diameter
from mgmlib.metrics.manifold import METRICS, manifold_metrics, point_metrics

__all__ = ["METRICS", "Calibration", "affinity", "calibrate", "diameter", "manifold_metrics", "point_metrics"]
