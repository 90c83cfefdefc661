"""An on-disk cache of embeddings: row ranges, written atomically, checked when read.

A *store* is the folder of one embedding, named by the sha256 of all that determines it. It holds

- ``rows-START-STOP-CHECK.npy``, a shard: rows START to STOP, written when they have been computed;
- ``all-CHECK.npy``, the whole, which replaces the shards once every row is there;
- ``spec.json``, what the folder's name is the hash of, for people to read.

CHECK is the beginning of the file's own sha256: ``numpy.load`` opens the file, and a damaged one is known.
Nothing is locked. A file appears under its name complete or not at all (``os.link``), the whole appears
before the shards go, and every writer computes the same rows: a process may be killed at any moment, and
several may share a store.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import re
import sys
import time
import uuid
import warnings
from pathlib import Path

import numpy as np

_SHARD = re.compile(r"rows-(\d+)-(\d+)-([0-9a-f]{16})\.npy")
_WHOLE = re.compile(r"all-([0-9a-f]{16})\.npy")
_STALE = 3600  # seconds after which an unfinished file belongs to a run that was killed


def cache_folder():
    """Where embeddings are kept: ``$MGMLIB_CACHE``, else ``mgmlib`` in the platform's cache folder."""
    if os.environ.get("MGMLIB_CACHE"):
        return Path(os.environ["MGMLIB_CACHE"])
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "mgmlib"
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA", Path.home() / "AppData" / "Local")) / "mgmlib" / "Cache"
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "mgmlib"


class Store:
    """The rows of one embedding, in memory and, where a folder is given, on disk.

    Parameters
    ----------
    root : path or None
        The cache; None keeps rows in memory only.
    spec : dict
        All that determines the rows; JSON values.
    shape : (int, int)
        Rows and columns.

    Attributes
    ----------
    z : np.ndarray (rows, columns) float32
        Rows that are not ``done`` are undefined.
    done : np.ndarray (rows,) bool
    """

    def __init__(self, root, spec, shape):
        canonical = json.dumps(spec, sort_keys=True, separators=(",", ":"), allow_nan=False)
        self.key = hashlib.sha256(canonical.encode()).hexdigest()
        self.folder = None if root is None else Path(root) / "embeddings" / self.key
        self.z, self.done = np.empty(shape, np.float32), np.zeros(shape[0], bool)
        self._spec, self._seen, self._refreshed, self._pause = spec, set(), 0.0, 0.0
        if self.folder is not None:
            self._on_disk(self._open)
            self.refresh()

    def refresh(self):
        """Take in what is on disk and was not met before; damaged files are removed, with a warning."""
        if self.folder is None:
            return
        started = time.monotonic()
        names = self._names()
        for name in sorted(names - self._seen):  # "all-" sorts before "rows-"
            if self.folder is not None and not self.done.all():
                self._on_disk(lambda name=name: self._take_in(name))
        self._seen |= names
        self._refreshed = time.monotonic()
        self._pause = 20 * (self._refreshed - started)  # looking around takes at most a twentieth of the time

    def has(self, start, stop):
        """Whether rows start to stop are there, computed here or, as of a moment ago, by another process."""
        if time.monotonic() - self._refreshed > self._pause:
            self.refresh()
        return bool(self.done[start:stop].all())

    def put(self, start, stop, rows):
        """Keep rows; True where another process had put the same range on disk before."""
        self.z[start:stop], self.done[start:stop] = rows, True
        met = False
        if self.folder is not None:
            parts = _npy(self.z[start:stop])
            name = f"rows-{start:09d}-{stop:09d}-{_check(parts)}.npy"
            met = self._on_disk(lambda: self._write(name, parts)) is False
            self._seen.add(name)
        return met

    def finish(self):
        """Replace the shards of a complete store by one file."""
        if not self.done.all():
            raise RuntimeError(
                f"cannot finish: {int((~self.done).sum())} of {len(self.done)} rows are missing"
            )
        if self.folder is not None:
            self._on_disk(self._consolidate)

    def missing(self, batch_size):
        """Ranges (start, stop) that are not done, cut at multiples of ``batch_size``, in order."""
        edges = np.flatnonzero(np.diff(np.concatenate(([True], self.done, [True])).astype(np.int8)))
        return [
            (start, min(stop, (start // batch_size + 1) * batch_size))
            for first, stop in edges.reshape(-1, 2).tolist()
            for start in (first, *range((first // batch_size + 1) * batch_size, stop, batch_size))
        ]

    def _open(self):
        self.folder.mkdir(parents=True, exist_ok=True)
        self._write("spec.json", [json.dumps(self._spec, sort_keys=True, indent=1).encode()])
        for file in self.folder.glob(".tmp-*"):
            with contextlib.suppress(OSError):  # gone by now, or not ours to remove: it does no harm
                if time.time() - file.stat().st_mtime > _STALE:
                    file.unlink()

    def _names(self):
        try:
            return {
                name for name in os.listdir(self.folder) if _SHARD.fullmatch(name) or _WHOLE.fullmatch(name)
            }
        except FileNotFoundError:
            return set()

    def _take_in(self, name):
        shard = _SHARD.fullmatch(name)
        start, stop = (int(shard[1]), int(shard[2])) if shard else (0, len(self.done))
        if stop > len(self.done) or start >= stop or self.done[start:stop].all():
            return
        fresh = not self.done[start:stop].any()  # a damaged file must not overwrite what is there
        rows = self.z[start:stop] if fresh else np.empty_like(self.z[start:stop])
        file = self.folder / name
        try:
            sound = _read(file, rows)
        except FileNotFoundError:
            return  # another process has put the whole in its place, and the next refresh finds that
        if sound:
            self.z[start:stop], self.done[start:stop] = rows, True
        else:
            warnings.warn(f"damaged file in the embedding cache, computed again: {file}", stacklevel=6)
            file.unlink(missing_ok=True)

    def _consolidate(self):
        names = self._names()
        if not any(_WHOLE.fullmatch(name) for name in names):
            parts = _npy(self.z)
            self._write(f"all-{_check(parts)}.npy", parts, durable=True)
        for name in names:
            if _SHARD.fullmatch(name):
                (self.folder / name).unlink(missing_ok=True)

    def _write(self, name, parts, durable=False):
        """Write a file that appears under its name complete or not at all; False where another was first."""
        if (self.folder / name).exists():
            return False
        draft = self.folder / f".tmp-{uuid.uuid4().hex}"
        try:
            with open(draft, "wb") as file:
                file.writelines(parts)
                if durable:  # the shards go after this: the whole must outlive a power cut, too
                    file.flush()
                    os.fsync(file.fileno())
            return _publish(draft, self.folder / name)
        finally:
            draft.unlink(missing_ok=True)

    def _on_disk(self, action):
        """Run an action on the folder; where the disk refuses, say so once and go on without a cache."""
        try:
            return action()
        except OSError as error:
            warnings.warn(
                f"the embedding cache {self.folder} cannot be used ({error}); going on without it: what is "
                f"computed from here on is not kept. Free some space, or choose a folder by cache=PATH "
                f"or $MGMLIB_CACHE",
                stacklevel=5,
            )
            self.folder = None
            return None


def _publish(draft, path):
    """Give a draft its name. Of two processes that do so at once, exactly one is told True."""
    try:
        os.link(draft, path)  # fails where the name is taken, which os.replace would not tell
    except FileExistsError:
        return False
    except OSError:  # a file system without hard links
        os.replace(draft, path)
    return True


def _npy(rows):
    """The bytes of a .npy file of contiguous rows, as two parts, so that the rows need not be copied."""
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, np.lib.format.header_data_from_array_1_0(rows))
    return header.getvalue(), memoryview(rows).cast("B")


def _check(parts):
    sha = hashlib.sha256()
    for part in parts:
        sha.update(part)
    return sha.hexdigest()[:16]


def _read(file, rows):
    """Read a .npy file into rows; False where its header, length or checksum is not as expected."""
    header, content = _npy(rows)
    with open(file, "rb") as stream:
        complete = stream.read(len(header)) == header and stream.readinto(content) == len(content)
        complete = complete and not stream.read(1)
    return complete and _check((header, content)) == file.stem.rpartition("-")[2]
