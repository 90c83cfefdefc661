"""Turn the book's md:myst sources into executed notebooks; run one with a reader's own parameters.

    notebooks.py execute [NAME ...]                 the named (or all) notebooks at default parameters
    notebooks.py check [NAME ...]                   is each committed .ipynb the executed twin of its source?
    notebooks.py run NAME -p "a=b c=d" -f FILE.yaml a reader's run, into runs/

A NAME is a chapter number (`08`) or the beginning of a file name. `notebooks/NN-name.md` alone is edited by
hand; the .ipynb beside it is made here, the same to the last byte whenever source and results are the same.
"""

import argparse
import json
import logging
import os
import platform
import subprocess
import sys
import time
import warnings
from datetime import UTC, datetime
from pathlib import Path

import papermill
from nbclient.exceptions import DeadKernelError
from papermill.exceptions import PapermillExecutionError
from traitlets.config import Config

from notebook_parameters import ParameterError, declared, read_values
from notebook_twins import ROOT, differences, normalise, read_source, write

NOTEBOOKS = ROOT / "notebooks"
RUNS = ROOT / "runs"
PROVENANCE = ROOT / "_build" / "provenance"  # of the last run here: shown by the book, never committed
VERSIONS = (
    "mgmlib",
    "torch",
    "torchvision",
    "timm",
    "numpy",
    "numba",
    "scikit-learn",
    "pandas",
    "matplotlib",
)


def sources(names=()):
    """The md:myst files of the named chapters, or of all."""
    known = sorted(NOTEBOOKS.glob("[0-9][0-9]-*.md"))
    if not names:
        return known
    chosen = []
    for name in names:
        stem = Path(name).name.removesuffix(".md").removesuffix(".ipynb").zfill(2)
        matches = [source for source in known if source.stem == stem or source.stem.startswith(f"{stem}-")]
        if len(matches) != 1:
            listing = ", ".join(source.stem for source in known) or "none yet"
            raise SystemExit(f"no single notebook {name!r}; there are: {listing}")
        chosen += matches
    return chosen


def execute(names):
    """Run notebooks at their default parameters and write their twins; note what each run took."""
    for source in sources(names):
        print(f"{source.stem} …", end=" ", flush=True)
        started, clock = datetime.now(UTC), time.monotonic()
        notebook = run_notebook(read_source(source))
        seconds = time.monotonic() - clock
        write(normalise(notebook), source.with_suffix(".ipynb"))
        note_provenance(source, started, seconds)
        print(f"{seconds:.0f} s", flush=True)


def run_notebook(notebook, output=None, parameters=None):
    """Execute a notebook in notebooks/ with this Python, whatever kernels the machine knows."""
    os.environ["JUPYTER_PREFER_ENV_PATH"] = "1"
    logging.getLogger("papermill").setLevel(logging.ERROR)
    return papermill.execute_notebook(
        notebook,
        output,
        parameters=parameters,
        cwd=NOTEBOOKS,
        kernel_name="python3",
        progress_bar=output is not None,
        start_timeout=180,
        config=Config(KernelManager={"transport_encryption": "auto"}),
    )


def run(name, assignments, file):
    """A reader's run: the notebook with the given values, saved cell by cell under runs/."""
    (source,) = sources([name])
    notebook = read_source(source)
    known = declared(notebook)
    values = beside_the_book(read_values(known, assignments, file), known)
    for key, value in values.items():
        if isinstance(value, str) and value and Path(value).expanduser().exists():  # as the reader sees it
            values[key] = str(Path(value).expanduser().resolve())
        print(f"{key} = {values[key]!r}")
    RUNS.mkdir(exist_ok=True)
    output = RUNS / f"{source.stem}--{datetime.now():%Y%m%d-%H%M%S}.ipynb"
    try:
        run_notebook(notebook, output, values)
    finally:
        if output.exists():
            print(f"notebook: {output}\npage:     {as_page(output)}")


def beside_the_book(values, known):
    """A reader's values, with a scorecard of the reader's own where the notebook writes one."""
    return {"scorecard": str(RUNS / "scorecard")} | values if "scorecard" in known else values


def as_page(path):
    """A notebook as one HTML file that any browser shows."""
    from nbconvert import HTMLExporter

    warnings.filterwarnings("ignore", "Your element with mimetype")  # glued numbers have no look of their own
    body, _ = HTMLExporter().from_filename(str(path))
    page = path.with_suffix(".html")
    page.write_text(body, encoding="utf-8")
    return page


def note_provenance(source, started, seconds):
    """Write what the last run of a notebook took, where and with what, for the book's provenance page."""
    from importlib.metadata import version

    import torch

    cpu = f"CPU ({platform.machine()}, {os.cpu_count()} cores)"
    facts = {
        "notebook": source.stem,
        "started": f"{started:%Y-%m-%d %H:%M} UTC",
        "seconds": round(seconds, 1),
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else cpu,
        "python": platform.python_version(),
        "versions": {name: version(name) for name in VERSIONS},
        "commit": commit(),
    }
    PROVENANCE.mkdir(parents=True, exist_ok=True)
    temporary = PROVENANCE / f".{source.stem}.new"
    temporary.write_text(json.dumps(facts, indent=1), encoding="utf-8")
    os.replace(temporary, PROVENANCE / f"{source.stem}.json")


def commit():
    """The commit that is checked out, marked where the tree differs from it."""
    try:
        described = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=12"],
            cwd=ROOT,
            capture_output=True,
            text=True,
        )
    except FileNotFoundError:
        return "unknown (git is not installed)"
    return described.stdout.strip() or "unknown (not a git checkout)"


def check(names):
    """Fail, naming each difference, unless every source has its executed twin."""
    found = [sentence for source in sources(names) for sentence in differences(source)]
    if found:
        raise SystemExit("\n".join(found))


def main():
    """Read the command line and do one of the three things."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    for command in ("execute", "check"):
        commands.add_parser(command).add_argument("names", nargs="*", metavar="NAME")
    reader = commands.add_parser("run")
    reader.add_argument("name", metavar="NAME")
    reader.add_argument("-p", dest="assignments", default="", metavar="PAIRS", help="name=value name=value …")
    reader.add_argument("-f", dest="file", metavar="FILE", help="a YAML file of parameters")
    chosen = parser.parse_args()
    try:
        if chosen.command == "execute":
            execute(chosen.names)
        elif chosen.command == "check":
            check(chosen.names)
        else:
            run(chosen.name, chosen.assignments, chosen.file)
    except ParameterError as error:
        raise SystemExit(str(error)) from None
    except DeadKernelError:
        raise SystemExit("the Python of the notebook died: out of memory, or ended from outside") from None
    except PapermillExecutionError as error:
        raise SystemExit(str(error)) from None


if __name__ == "__main__":
    sys.exit(main())
