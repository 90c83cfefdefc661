"""The executed twin of a md:myst source: read the source, make the twin reproducible, find differences."""

import base64
import hashlib
import os
import struct
from pathlib import Path

import jupytext
import nbformat

ROOT = Path(__file__).resolve().parent.parent
KERNEL = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}
LANGUAGE = {
    "name": "python",
    "file_extension": ".py",
    "mimetype": "text/x-python",
    "pygments_lexer": "ipython3",
}
WIDGET = "application/vnd.jupyter.widget-view+json"


def read_source(source):
    """The notebook that a md:myst file describes, with no outputs."""
    notebook = jupytext.reads(Path(source).read_text(encoding="utf-8"), fmt="md:myst")
    notebook.metadata.kernelspec = KERNEL
    return notebook


def write(notebook, path):
    """Write a notebook in one step: a reader never sees half a file."""
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.new")
    nbformat.write(notebook, temporary)
    os.replace(temporary, path)


def normalise(notebook):
    """Drop, in place, whatever differs between two runs with equal results; return the notebook."""
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    for key in ("jupytext", "papermill", "widgets"):
        notebook.metadata.pop(key, None)
    notebook.metadata.update(kernelspec=KERNEL, language_info=LANGUAGE)
    for position, cell in enumerate(notebook.cells):
        cell.id = hashlib.sha256(f"{position}\n{cell.source}".encode()).hexdigest()[:12]
        for key in ("papermill", "execution", "collapsed", "scrolled"):
            cell.metadata.pop(key, None)
        if not cell.metadata.get("tags"):
            cell.metadata.pop("tags", None)
        if cell.cell_type == "code":
            cell.outputs = merged([kept for kept in map(clean, cell.outputs) if kept])
    return notebook


def clean(output):
    """One output without time stamps; None for progress bars and warnings, which depend on the machine."""
    data = output.get("data", {})
    if output.get("name") == "stderr" or WIDGET in data:
        return None
    for mime in data:
        if mime.endswith("image/png"):
            data[mime] = base64.b64encode(plain_png(base64.b64decode(data[mime]))).decode()
    return output


def merged(outputs):
    """Neighbouring pieces of one stream as one: where the kernel cuts a stream is chance."""
    joined = []
    for output in outputs:
        last = joined[-1] if joined else None
        if last and output.output_type == last.output_type == "stream" and output.name == last.name:
            last.text += output.text
        else:
            joined.append(output)
    return joined


def plain_png(image):
    """A PNG without its text and time chunks, which name the software and the day."""
    kept, start = [image[:8]], 8
    while start < len(image):
        (length,) = struct.unpack(">I", image[start : start + 4])
        end = start + 12 + length  # length, name, content, checksum
        if image[start + 4 : start + 8] not in (b"tEXt", b"zTXt", b"iTXt", b"tIME"):
            kept.append(image[start:end])
        start = end
    return b"".join(kept)


def differences(source):
    """What keeps the .ipynb beside a source from being its executed twin, in sentences (none: it is)."""
    source = Path(source)
    twin_path = source.with_suffix(".ipynb")
    if not twin_path.exists():
        return [f"{source.name} has no {twin_path.name} beside it"]
    wanted, twin = normalise(read_source(source)), nbformat.read(twin_path, as_version=4)
    found = []
    if [content(cell) for cell in wanted.cells] != [content(cell) for cell in twin.cells]:
        pairs = zip(wanted.cells, twin.cells, strict=False)
        first = next((i for i, (a, b) in enumerate(pairs) if content(a) != content(b)), "count")
        found.append(f"{twin_path.name} does not hold the cells of {source.name} (see cell {first})")
    code = [cell for cell in twin.cells if cell.cell_type == "code" and cell.source.strip()]
    counts = [cell.execution_count for cell in code]
    if counts != list(range(1, len(code) + 1)):
        found.append(f"{twin_path.name} was not executed from top to bottom: execution counts {counts}")
    outputs = [output for cell in code for output in cell.outputs]
    if not outputs:
        found.append(f"{twin_path.name} holds no outputs")
    if any(output.output_type == "error" for output in outputs):
        found.append(f"{twin_path.name} holds an error")
    if nbformat.writes(twin) != nbformat.writes(normalise(nbformat.from_dict(twin))):
        found.append(f"{twin_path.name} is not normalised")
    return found


def content(cell):
    """What source and twin must agree on."""
    return cell.cell_type, cell.source, dict(cell.metadata)
