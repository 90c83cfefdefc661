"""What must be true of the repository as a whole: pins, places, sizes, imports, the parts of the book."""

import ast
import re
import subprocess
import sys
import tomllib
from functools import cache
from importlib import metadata
from itertools import chain
from pathlib import Path

import nbformat
import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import mgmlib
from notebook_twins import differences

ROOT = Path(__file__).resolve().parent.parent
SOURCES = sorted(ROOT.glob("notebooks/[0-9][0-9]-*.md"))
MODULES = sorted(path.relative_to(ROOT) for path in ROOT.glob("mgmlib/**/*.py"))
GENERATED = {".git", ".venv", "_build", "runs"}

# Data flows one way: a part of mgmlib imports only what stands before it here.
PARTS = ["atomic", "cache", "data", "steps", "augment", "models", "embed", "layerwise", "graph", "metrics"]
PARTS += ["wide_limit", "pretrain", "transfer", "compare", "study", "plots", "scorecard", "cluster"]
TENSORS_ONLY = {"graph", "metrics"}  # these know nothing of images and models
CORE = {"steps", "augment", "cache", "embed", "graph", "metrics"}  # what another project would import
CORE_NEEDS = {"torch", "numpy", "numba"}


@cache
def pins():
    """Package name to requirement line of the lock."""
    lines = ROOT.joinpath("requirements.lock").read_text(encoding="utf-8").splitlines()
    pinned = [Requirement(line) for line in lines if line and not line.startswith("#")]
    return {canonicalize_name(requirement.name): requirement for requirement in pinned}


@cache
def tracked_text():
    """Path to text of every file that belongs to the repository; of notebooks, without the pictures."""
    listing = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True)
    names = listing.stdout.split("\0") if listing.returncode == 0 else ROOT.rglob("*")
    paths = [ROOT / name for name in names if name]
    found = {}
    for path in paths:
        if path.is_file() and not GENERATED & set(path.relative_to(ROOT).parts):
            raw = path.read_bytes()
            if b"\0" not in raw:
                text = raw.decode("utf-8", errors="replace")
                found[path.relative_to(ROOT)] = words(path) if path.suffix == ".ipynb" else text
    return found


def words(notebook):
    """What a notebook says: its cells, and its outputs but for images."""
    said = []
    for cell in nbformat.read(notebook, as_version=4).cells:
        said.append(cell.source)
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            said += [output.get("text", ""), *(str(data[mime]) for mime in data if "image/" not in mime)]
    return "\n".join(said)


# --- packages ---


def test_environment_holds_the_pins_of_the_lock():
    environment = yaml.safe_load(ROOT.joinpath("environment.yml").read_text(encoding="utf-8"))["dependencies"]
    listed = next(entry["pip"] for entry in environment if isinstance(entry, dict))
    assert [str(Requirement(line)) for line in listed] == [str(pin) for pin in pins().values()]
    assert "python=3.11" in environment


def test_every_pin_is_exact():
    loose = [str(pin) for pin in pins().values() if not re.fullmatch(r"==[^*]+", str(pin.specifier))]
    assert not loose


def test_every_dependency_is_pinned_to_a_version_that_it_allows():
    project = tomllib.loads(ROOT.joinpath("pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"].values()
    for requirement in map(Requirement, [*project["dependencies"], *chain(*extras)]):
        name = canonicalize_name(requirement.name)
        if name == "mgmlib":
            assert requirement.extras <= set(project["optional-dependencies"])
            continue
        assert name in pins(), f"{name} is not in requirements.lock: run `make lock`"
        version = str(pins()[name].specifier).removeprefix("==")
        assert requirement.specifier.contains(version), f"{requirement} but {name} is pinned to {version}"


def test_this_environment_is_that_of_the_lock():
    wrong = {}
    for name, pin in pins().items():
        if pin.marker is None or pin.marker.evaluate():
            try:
                installed = metadata.version(name)
            except metadata.PackageNotFoundError:
                installed = "missing"
            if not pin.specifier.contains(installed if installed != "missing" else "0", prereleases=True):
                wrong[name] = f"{installed}, pinned {pin.specifier}"
    assert not wrong, f"run `make` targets, which install the lock: {wrong}"


def test_one_version_everywhere():
    project = tomllib.loads(ROOT.joinpath("pyproject.toml").read_text(encoding="utf-8"))["project"]
    citation = yaml.safe_load(ROOT.joinpath("CITATION.cff").read_text(encoding="utf-8"))
    assert project["version"] == mgmlib.__version__ == citation["version"]
    assert project["license"] == citation["license"] == "BSD-3-Clause"
    assert citation["preferred-citation"]["identifiers"][0]["value"] == "arXiv:2209.08622"


# --- places and sizes ---


def test_no_file_names_a_place_of_one_machine():
    home = "|".join(("root", "home", "tmp", "work", "Users"))
    place = re.compile(rf"(?<![\w./:<])/(?:{home})/[\w.]")
    found = [
        f"{path}: {text[max(0, match.start() - 20) : match.end() + 30]!r}"
        for path, text in tracked_text().items()
        for match in place.finditer(text)
        if path != Path(".ci/run")
    ]
    assert not found, "\n".join(found)


@pytest.mark.parametrize("path", MODULES, ids=str)
def test_modules_stay_short(path):
    lines = len(ROOT.joinpath(path).read_text(encoding="utf-8").splitlines())
    assert lines <= 400, f"{path} has {lines} lines: it wants to be two files"


def test_assets_stay_small():
    size = sum(path.stat().st_size for path in ROOT.glob("mgmlib/assets/**/*") if path.is_file())
    assert size < 100e6, f"mgmlib/assets holds {size / 1e6:.0f} MB"


# --- imports ---


def imports(path, at_import_time=False):
    """Full names of the modules that a file of mgmlib imports, anywhere or when it is imported itself."""
    tree = ast.parse(ROOT.joinpath(path).read_text(encoding="utf-8"))
    package = list(path.with_suffix("").parts[:-1])
    for node in walk(tree, at_import_time):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            yield from (f"{module}.{alias.name}" for alias in node.names)


def walk(node, outside_functions):
    """Every node below, optionally not entering functions."""
    for child in ast.iter_child_nodes(node):
        yield child
        if not (outside_functions and isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef)):
            yield from walk(child, outside_functions)


@pytest.mark.parametrize(
    "path", [path for path in MODULES if len(path.parts) > 2 or path.stem != "__init__"], ids=str
)
def test_imports_point_one_way(path):
    part = path.with_suffix("").parts[1]
    assert part in PARTS, f"mgmlib/{part} has no place in PARTS: say where it stands"
    used = {name.split(".")[1] for name in imports(path) if name.startswith("mgmlib.")} & set(PARTS)
    allowed = set(PARTS[: PARTS.index(part) + 1])
    if part in TENSORS_ONLY:
        allowed &= TENSORS_ONLY
    assert used <= allowed, f"{path} imports {sorted(used - allowed)}, which stand after it or beside it"


@pytest.mark.parametrize("path", [path for path in MODULES if path.with_suffix("").parts[1] in CORE], ids=str)
def test_core_needs_little_when_it_is_imported(path):
    outer = {name.partition(".")[0] for name in imports(path, at_import_time=True)}
    foreign = outer - set(sys.stdlib_module_names) - {"mgmlib"}
    assert foreign <= CORE_NEEDS, f"{path} imports {sorted(foreign - CORE_NEEDS)} when it is imported"


def test_import_mgmlib_is_lazy():
    heavy = {
        "torch",
        "torchvision",
        "timm",
        "pandas",
        "scipy",
        "sklearn",
        "numba",
        "matplotlib",
        "PIL",
        "tqdm",
    }
    code = "import sys, mgmlib; print(*sys.modules)"
    answer = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    loaded = set(answer.stdout.split())
    assert "mgmlib" in loaded
    assert not loaded & heavy, f"import mgmlib brings in {sorted(loaded & heavy)}"


def test_every_public_name_exists_and_has_a_page():
    page = ROOT.joinpath("book", "api.md").read_text(encoding="utf-8")
    documented = re.findall(r"^\.\. auto\w+:: mgmlib\.(\w+)$", page, flags=re.MULTILINE)
    assert sorted(documented) == mgmlib.__all__
    for name in mgmlib.__all__:
        assert getattr(mgmlib, name).__doc__, f"mgmlib.{name} has no docstring"


# --- the book ---


@pytest.mark.parametrize("source", SOURCES, ids=lambda source: source.stem)
def test_notebook_is_the_executed_twin_of_its_source(source):
    assert differences(source) == []


def test_every_page_exists_and_every_chapter_is_listed():
    toc = yaml.safe_load(ROOT.joinpath("_toc.yml").read_text(encoding="utf-8"))
    pages = [toc["root"], *(chapter["file"] for part in toc["parts"] for chapter in part["chapters"])]
    assert [page for page in pages if not ROOT.joinpath(page).is_file()] == []
    chapters = [page for page in pages if page.startswith("notebooks/")]
    assert chapters == [f"notebooks/{source.stem}.ipynb" for source in SOURCES]
