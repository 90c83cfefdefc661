"""Published weights onto this machine: resumed, hashed, atomic; or from a mirror, or not at all."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import time
import urllib.parse
from pathlib import Path

from mgmlib.atomic import write_whole
from mgmlib.cache import cache_folder
from mgmlib.models.containers import kind_of

MIRROR = "MGMLIB_MIRROR"
_ATTEMPTS = 4  # a connection that breaks is taken up again where it broke, so often
_PAUSE = 1.0  # seconds before the second attempt, then twice as long each time
_TIMEOUT = (10, 60)  # seconds to connect, and between two pieces
_PIECE = 2**16  # bytes; of a connection that breaks, less than one is lost


class Unavailable(RuntimeError):
    """Weights that could not be had; the message says why and what can be done."""


def fetch(name, files, known_hash=None):
    """The files of a checkpoint on this machine; the path of the first.

    They are looked for in ``$MGMLIB_MIRROR``, then in the cache, then where they are published. A mirror is a
    folder, which is read in place, or an address; in either a file lies at ``NAME/FILE``, as in the
    ``weights`` folder of the cache, of which a mirror may be a plain copy. Where no hash is published, that
    of the first file met is kept in the cache, and each later one must have it.

    Parameters
    ----------
    name : str
        Of the model.
    files : dict of str to str
        File name to address.
    known_hash : str, optional
        Of the first file: ``md5:`` or ``sha256:`` and the beginning of the hash, as published.

    Returns
    -------
    Path

    Raises
    ------
    mgmlib.models.download.Unavailable
        Nothing answers, or the answer is no file of weights.
    ValueError
        A file has another hash than it should have.
    """
    paths = []
    for number, (file, address) in enumerate(files.items()):
        paths.append(_fetch_one(name, file, address, known_hash if number == 0 else None))
    return paths[0]


def _fetch_one(name, file, address, known_hash):
    folder, mirror = cache_folder() / "weights" / name, os.environ.get(MIRROR)
    here = folder / file
    record = folder / f"{file}.sha256"
    if mirror and "://" not in mirror:
        there = Path(mirror).expanduser() / name / file
        if there.is_file():
            return _checked(there, record, known_hash)
    elif mirror:
        address = f"{mirror.rstrip('/')}/{name}/{urllib.parse.quote(file)}"
    if not here.is_file():
        _download(address, here, known_hash, _recorded(record))
    return _checked(here, record, known_hash)


def _checked(path, record, known_hash):
    """The path, if the file has the hash that it should have; its sha256 is recorded where none was."""
    found, recorded = _hash(path, "sha256"), _recorded(record)
    if recorded is None:
        check_hash(path, known_hash)
        write_whole(record, f"{found}  {path.name}\n")
    elif found != recorded:
        raise ValueError(
            f"{path}: sha256 {found}, but {recorded} was recorded for it in {record}: the file has changed. "
            f"Delete it to fetch it again; delete the record too if the new file is right"
        )
    return path


def check_hash(path, known_hash):
    """Raise unless a file's hash begins as ``known_hash`` says ("md5:…", "sha256:…"; None: any)."""
    if known_hash:
        algorithm, _, beginning = known_hash.partition(":")
        found = _hash(path, algorithm)
        if not found.startswith(beginning):
            raise ValueError(
                f"{path}: {algorithm} {found}; the published file's begins with {beginning}. It is another "
                f"file, or damaged"
            )


def _download(address, path, known_hash, recorded):
    """Fetch by pooch, which moves the file to its place once it is whole and has its hash."""
    import pooch

    def downloader(url, output, _pooch):
        part = path.with_name(f".{path.name}.part")
        with _alone(part):
            if not path.is_file():  # another process may have been faster
                _resume(url, part)
                _check_content(url, part, path.name)
                try:
                    check_hash(part, known_hash)
                except ValueError:
                    part.unlink()  # going on from it would be in vain
                    raise
                os.replace(part, output)
            else:
                shutil.copyfile(path, output)

    path.parent.mkdir(parents=True, exist_ok=True)
    pooch.get_logger().setLevel("WARNING")
    expected = f"sha256:{recorded}" if recorded else None
    try:
        pooch.retrieve(address, expected, path.name, path.parent, downloader=downloader)
    except OSError as error:
        raise Unavailable(
            f"{address} could not be had: {error}\nFetch it by other means and pass weights=PATH; or put it "
            f"at {path}; or set ${MIRROR} to a folder, or an address, that has {path.parent.name}/{path.name}"
        ) from error


def _resume(url, part):
    """Bring a partial file to its full length, from where it ends; a file that has changed begins anew."""
    import requests

    for attempt in range(_ATTEMPTS):
        try:
            return _continue(url, part)
        except requests.HTTPError as error:  # the host has answered: asking again would not help
            raise OSError(str(error)) from error
        except (requests.ConnectionError, requests.Timeout, OSError) as error:
            if attempt == _ATTEMPTS - 1:
                raise OSError(f"{error} ({_ATTEMPTS} attempts; what has come is kept)") from error
            time.sleep(_PAUSE * 2**attempt)
    return None


def _continue(url, part):
    import requests

    known, state = part.with_suffix(".json"), {}
    with contextlib.suppress(OSError, ValueError):
        state = json.loads(known.read_text(encoding="utf-8"))
    start = part.stat().st_size if part.is_file() and state.get("url") == url and state.get("tag") else 0
    headers = {"Accept-Encoding": "identity"}
    if start:
        headers |= {"Range": f"bytes={start}-", "If-Range": state["tag"]}
    with requests.get(url, headers=headers, stream=True, timeout=_TIMEOUT) as answer:
        if answer.status_code == 416 and answer.headers.get("Content-Range") == f"bytes */{start}":
            return  # it was whole already
        if answer.status_code == 416:
            part.unlink()
            raise OSError("the file is shorter than what has come of it: beginning anew")
        answer.raise_for_status()
        if "text/html" in answer.headers.get("Content-Type", ""):
            raise requests.HTTPError(f"{url} answers with a web page, not with a file")
        resumed = answer.status_code == 206
        start = start if resumed else 0
        # A weak tag does not promise the same bytes, and If-Range does not take it.
        tag = answer.headers.get("ETag", "")
        tag = answer.headers.get("Last-Modified") if tag.startswith("W/") or not tag else tag
        write_whole(known, json.dumps({"url": url, "tag": tag}))
        with open(part, "r+b" if resumed else "wb") as file:
            file.seek(start)
            file.truncate()
            for piece in answer.iter_content(_PIECE):
                file.write(piece)
            came = file.tell() - start
    expected = int(answer.headers.get("Content-Length", came))
    if came != expected:
        raise OSError(f"the connection ended after {came} of {expected} bytes")
    known.unlink(missing_ok=True)


def _check_content(url, part, name):
    """Refuse what is no file of weights before it gets its name."""
    if name.endswith((".data-00000-of-00001", ".index")):  # raw numbers; checked when they are read
        return
    try:
        kind_of(part)
    except ValueError as error:
        part.unlink()
        raise OSError(f"{url} gave no file of weights: {str(error).rpartition(': ')[2]}") from error


@contextlib.contextmanager
def _alone(part):
    """One process at a time brings in a file, where the system can lock one."""
    lock = part.with_suffix(".lock")
    with open(lock, "w", encoding="utf-8") as file:
        with contextlib.suppress(ImportError, OSError):
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _recorded(record):
    try:
        return record.read_text(encoding="utf-8").split()[0]
    except (FileNotFoundError, IndexError):
        return None


def _hash(path, algorithm):
    with open(path, "rb") as file:
        return hashlib.file_digest(file, algorithm).hexdigest()
