"""Files that appear whole or not at all: a reader sees the old one or the new one."""

import contextlib
import os
import uuid
from pathlib import Path


@contextlib.contextmanager
def whole(path):
    """A draft beside ``path``, to be written in the ``with``; it takes the name when that ends well."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{uuid.uuid4().hex}.new")
    try:
        yield draft
        os.replace(draft, path)
    finally:
        draft.unlink(missing_ok=True)


def write_whole(path, content):
    """Write bytes, or text as UTF-8, to a file."""
    with whole(path) as draft:
        draft.write_bytes(content.encode() if isinstance(content, str) else content)
