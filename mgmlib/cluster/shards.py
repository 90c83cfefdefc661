"""Rows in the object store, and tasks over their queries."""

import warnings

import numpy as np
import torch

from mgmlib.cluster.connection import plain_errors

RETRIES = 3  # times that Ray gives a task of a dead worker to another one


class Shards:
    """Groups of rows in the object store, and tasks over the queries among them.

    Small groups are packed, about ``shard`` rows a pack. A group of more rows is a pack by itself, and split:
    its queries are spread over several tasks.

    Parameters
    ----------
    ray : the module, connected.
    z : (N, d) array.
    groups : (N,) array or None.
    queries : (Q,) int rows; a group that holds none is not sent anywhere.
    shard : rows of a pack.
    cpus, gpus : the share of a task.
    together : put all rows where a pack is asked for.

    Attributes
    ----------
    is_split : (Q,) bool, queries whose group is split.
    """

    def __init__(self, ray, z, groups, queries, shard, cpus, gpus, together):
        self.ray, self.z, self.groups = ray, z, groups
        self.share, self.together, self._kept = {"num_cpus": cpus, "num_gpus": gpus}, together, {}
        self.packs, self._unsplit = _packs(groups, queries, len(z), shard)
        self.pack_of, self.place = np.full(len(z), -1), np.arange(len(z))
        for number, rows in enumerate(self.packs):
            self.pack_of[rows] = number
            if not together:
                self.place[rows] = np.arange(len(rows))
        self.is_split = self.pack_of[queries] >= self._unsplit

    def run(self, task, queries, size, *args):
        """Call ``task(block, rows of the block, on_gpu, *args)`` on parts of the queries.

        Parameters
        ----------
        task : function of a module, so that workers can import it; a block is (z, groups, row numbers).
        queries : (Q,) int rows.
        size : most queries of a part of a split group; packs of whole groups are one part.
        args : further arguments; large ones as references to the object store.

        Returns
        -------
        results : list, one a part.
        back : (Q,) int, what brings rows of the joined results into the order of ``queries``.
        """
        remote = self.ray.remote(**self.share, max_retries=RETRIES)(task)
        on_gpu, parts = self.share["num_gpus"] > 0, list(self._parts(queries, size))
        with plain_errors(self.ray):
            results = self.ray.get(
                [
                    remote.remote(self._block(pack), self.place[queries[at]], on_gpu, *args)
                    for pack, at in parts
                ]
            )
        return results, np.argsort(np.concatenate([at for _, at in parts]))

    def _parts(self, queries, size):
        """Yield (pack, places in ``queries``)."""
        packs = self.pack_of[queries]
        order = np.argsort(packs, kind="stable")
        for at in np.split(order, np.flatnonzero(np.diff(packs[order])) + 1):
            pack = packs[at[0]]
            step = size if pack >= self._unsplit else len(at)
            yield from ((pack, at[start : start + step]) for start in range(0, len(at), step))

    def _block(self, pack):
        """The rows of a pack, their groups and numbers, in the object store; put there once."""
        rows, key = (np.arange(len(self.z)), "all") if self.together else (self.packs[pack], pack)
        if key not in self._kept:
            every = len(rows) == len(self.z) and (np.diff(rows) == 1).all()
            z = self.z if every else self.z[rows]
            self._kept[key] = self.ray.put((z, None if self.groups is None else self.groups[rows], rows))
        return self._kept[key]


def _packs(groups, queries, n, shard):
    """Rows of each pack, of groups that hold queries, packs of whole groups first; and how many those are."""
    codes = np.zeros(n, dtype=np.int64) if groups is None else np.unique(groups, return_inverse=True)[1]
    members = np.split(np.argsort(codes, kind="stable"), np.cumsum(np.bincount(codes))[:-1])
    asked = [members[code] for code in np.unique(codes[queries])]
    small = [rows for rows in asked if len(rows) <= shard]
    number = (np.cumsum([len(rows) for rows in small], dtype=np.int64) - 1) // shard
    ends = [*(np.flatnonzero(np.diff(number)) + 1), len(small)] if small else []
    packs = [np.concatenate(small[start:end]) for start, end in zip([0, *ends], ends, strict=False)]
    return packs + [rows for rows in asked if len(rows) > shard], len(packs)


def as_tensor(z, on_gpu):
    """Rows from the object store, where they are read-only, as a tensor on the task's device."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The given NumPy array is not writable")
        z = torch.as_tensor(z)
    return z.cuda() if on_gpu else z
