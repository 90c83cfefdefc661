"""Models side by side: profiles, vectors, clusters, and what their differences are made of."""

from mgmlib.compare.association import holm, partial_spearman
from mgmlib.compare.clusters import agreement, clades, cut, gap_statistic, silhouettes, support, tree
from mgmlib.compare.profile import SMALLEST_CLASS, depth_profile, large_classes, profile
from mgmlib.compare.variance import variance_components
from mgmlib.compare.vectors import resampled_vectors, standardize, vectors_of_groups, vectors_of_summaries

__all__ = [
    "SMALLEST_CLASS",
    "agreement",
    "clades",
    "cut",
    "depth_profile",
    "gap_statistic",
    "holm",
    "large_classes",
    "partial_spearman",
    "profile",
    "resampled_vectors",
    "silhouettes",
    "standardize",
    "support",
    "tree",
    "variance_components",
    "vectors_of_groups",
    "vectors_of_summaries",
]
