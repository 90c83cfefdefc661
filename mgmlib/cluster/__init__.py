"""Embeddings, NNK graphs and metrics on a Ray cluster: names, arguments and numbers of the one-process path.

Ray places the work, moves the data and repeats what was lost with a worker; this package only says what can
be done apart from what. Needs the optional extra ``cluster``.
"""

from mgmlib.cluster.actors import embed
from mgmlib.cluster.manifold import manifold_metrics, nnk, point_metrics

__all__ = ["embed", "manifold_metrics", "nnk", "point_metrics"]
