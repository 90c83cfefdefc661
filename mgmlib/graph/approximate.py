"""Approximate search of large groups by a faiss index, with the recall that it reached."""

import numpy as np
import torch

from mgmlib.graph.nearest import nearest

PROBED = 8  # share of the cells that are searched: one in so many, at least `LEAST`
LEAST = 8
SAMPLE = 256  # queries on which the recall is measured


class Approximate:
    """A search in the place of `nearest` that looks into the cells next to a query only.

    The index is faiss's inverted file (a cell for every √n points or so, Jégou et al. 2011), on the CPU.
    ``recall`` is the share of the true candidates that were found, over a sample of queries of each search;
    the mean over searches so far, weighted by their queries.
    """

    def __init__(self):
        self.found, self.asked = 0.0, 0

    @property
    def recall(self):
        """Mean share of the true candidates among those found; 1 before any search."""
        return self.found / self.asked if self.asked else 1.0

    def __call__(self, points, group, queries, wide, dtype, block_bytes, threads):
        """What `nearest` returns, without products."""
        try:
            import faiss
        except ImportError as error:
            raise ImportError("search='approximate' needs the package faiss-cpu") from error
        cosine = points.kernel == "cosine"
        keys = points.keys(group, torch.float32).cpu().numpy()
        cells = int(np.sqrt(len(keys)))
        metric = faiss.METRIC_INNER_PRODUCT if cosine else faiss.METRIC_L2
        index = faiss.index_factory(keys.shape[1], f"IVF{cells},Flat", metric)
        before = faiss.omp_get_max_threads()
        faiss.omp_set_num_threads(threads)
        try:
            index.train(keys[:: max(1, len(keys) // (40 * cells))])  # 40 points a cell are plenty
            index.add(keys)
            index.nprobe = max(LEAST, cells // PROBED)
            own = torch.searchsorted(group, queries).cpu().numpy()
            score, near = index.search(keys[own], wide + 1)
        finally:
            faiss.omp_set_num_threads(before)
        short = (near < 0).any(1)
        near, score = _without_self(near, score if cosine else -score / 2, own, wide)
        near, score = (torch.as_tensor(array, device=points.device) for array in (near, score))
        if short.any():  # too few points in the cells
            few = torch.as_tensor(short, device=points.device)
            exact = nearest(points, group, queries[few], wide, torch.float32, block_bytes, threads)
            near[few], score[few] = exact[0], exact[1]
        self._measure(points, group, queries, near, block_bytes, threads)
        return near, score.to(dtype), None

    def _measure(self, points, group, queries, near, block_bytes, threads):
        step = max(1, len(queries) // SAMPLE)
        true = nearest(points, group, queries[::step], near.shape[1], torch.float32, block_bytes, threads)[0]
        hit = (near[::step, :, None] == true[:, None, :]).any(2).float().mean()
        self.found += float(hit) * len(queries)
        self.asked += len(queries)


def _without_self(near, score, own, wide):
    """The first ``wide`` of each row that are not the query, (Q, wide) twice."""
    other = np.argsort(near == own[:, None], axis=1, kind="stable")[:, :wide]
    return np.take_along_axis(near, other, 1), np.take_along_axis(score, other, 1)
