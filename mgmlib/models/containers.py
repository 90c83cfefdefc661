"""What kind of file a checkpoint is, by its first bytes, and what it holds, without running any of it."""

from __future__ import annotations

import argparse
import hashlib
import re
import zipfile
from pathlib import Path

import torch

from mgmlib.models.safe_pickle import RefusedPickle, names_in, read_pickle
from mgmlib.models.tensor_bundle import MAGIC

_LEGACY_TORCH = b"\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19"  # the magic number, as pickled
_PAGE = (b"<!doctype", b"<html", b"<?xml", b"<head")


def kind_of(path):
    """What a file is: "torch", "safetensors", "bundle" (TensorFlow) or "pickle".

    Raises
    ------
    FileNotFoundError
    ValueError
        A web page, an empty or truncated file, or something else; the message says which.
    """
    path = Path(path)
    if path.is_dir():
        return "bundle"
    if not path.is_file():
        raise FileNotFoundError(
            f"weights={str(path)!r}: no such file; expected 'pretrained', 'random' or a path"
        )
    with open(path, "rb") as file:
        start = file.read(512)
    told = f"weights={str(path)!r}: not a readable weights file: "
    if not start:
        raise ValueError(told + "it is empty")
    if start.lstrip().lower().startswith(_PAGE):
        raise ValueError(
            told + "it is a web page. A host may answer with one where it wants a login or a confirmation"
        )
    kind = _kind(path, start)
    if kind is None:
        raise ValueError(told + f"it begins with {start[:8]!r}, as no format of weights does")
    if kind == "truncated":
        raise ValueError(told + "it begins as a zip archive and has no end: it is truncated")
    if path.suffix == ".safetensors" and kind != "safetensors":
        raise ValueError(told + f"it is named .safetensors, and holds a file of kind {kind!r}")
    return kind


def _kind(path, start):
    if start[:2] == b"PK":
        if not zipfile.is_zipfile(path):
            return "truncated"
        with zipfile.ZipFile(path) as archive:
            return "bundle" if any(name.endswith(".index") for name in archive.namelist()) else "torch"
    if start[8:9] == b"{" and 2 <= int.from_bytes(start[:8], "little") <= path.stat().st_size:
        return "safetensors"
    if start[:1] == b"\x80" and len(start) > 1 and start[1] <= 5:
        return "torch" if start[2:].startswith(_LEGACY_TORCH) else "pickle"
    return "bundle" if path.suffix == ".index" or _ends_as_bundle(path) else None


def _ends_as_bundle(path):
    return path.read_bytes()[-8:] == MAGIC.to_bytes(8, "little") if path.stat().st_size < 2**24 else False


def read_torch(path):
    """What a torch file holds, tensors on the CPU; code in it is refused, and named (``weights_only``)."""
    if kind_of(path) == "pickle":
        raise ValueError(f"weights={str(path)!r}: not a readable weights file: {_of_pickle(path)}")
    mapped = zipfile.is_zipfile(path)  # the memory banks beside the weights then stay on disk
    try:
        # argparse's Namespace is a bare bag of attributes: training scripts save their options in one.
        with torch.serialization.safe_globals([argparse.Namespace]):
            return torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except Exception as error:
        raise ValueError(
            f"weights={str(path)!r}: not a readable safetensors or torch weights file: {_reason(error)}"
            f"{_names(path) if mapped and 'Unsupported operand' in str(error) else ''}"
        ) from error


def _names(path):
    """What a zipped pickle of a protocol that torch does not read asks for: torch stops at an opcode."""
    with zipfile.ZipFile(path) as archive:
        programs = [archive.read(name) for name in archive.namelist() if name.endswith("/data.pkl")]
    return f"; it asks for {', '.join(name for program in programs for name in names_in(program))}"


def read_safetensors(path):
    """Tensors of a safetensors file by name."""
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except Exception as error:
        raise ValueError(
            f"weights={str(path)!r}: not a readable safetensors or torch weights file: {error}"
        ) from error


def _of_pickle(path):
    """Why a bare pickle, which torch has not written, is no weights: the name that it asks for, if any."""
    try:
        read_pickle(path)
    except RefusedPickle as error:
        return f"a pickle, and {error}"
    return "a pickle of plain values, which no torch has written"


def _reason(error):
    """The sentence of torch's message that says what was met; the rest is advice to switch the check off."""
    text = " ".join(str(error).split()) or type(error).__name__
    for sentence in ("Unsupported", "Trying to load unsupported", "Trying to call"):
        if sentence in text:
            said = text[text.index(sentence) :]
            return "it is refused: " + re.split(r"\. |\.$| Please | Check ", said)[0]
    cut = ("central directory", "unexpected EOF", "Ran out of input", "EOFError", "not enough bytes")
    return f"truncated or damaged ({text[:200]})" if any(word in text for word in cut) else text[:300]


def sha256_of(path):
    """Sha256 of a file, hex; of a folder, of its files' names and sha256."""
    path = Path(path)
    if path.is_dir():
        listed = sorted(p for p in path.rglob("*") if p.is_file())
        lines = "\n".join(f"{sha256_of(p)}  {p.relative_to(path)}" for p in listed)
        return hashlib.sha256(lines.encode()).hexdigest()
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
