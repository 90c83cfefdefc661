"""Pin the whole project: resolve pyproject's `all` extra and write requirements.lock and environment.yml.

Run it after a change of pyproject.toml (`make lock`). What is pinned already stays as it is;
`--upgrade` forgets the old pins and takes the newest versions that go together.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LOCK = ROOT / "requirements.lock"
ENVIRONMENT = ROOT / "environment.yml"
PYTHON = "3.11"

HEADER = f"""\
# Every package of the project at the version that it was tested with, for Python {PYTHON}.
# Written by scripts/lock.py (make lock) from pyproject's extra `all`; environment.yml holds the same pins.
"""
LINUX_ONLY = ("nvidia-", "cuda-", "triton")  # what the torch wheel brings along on Linux alone


def resolve(upgrade):
    """All packages that `.[all]` needs, as sorted pip requirement lines."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder, "report.json")
        command = [sys.executable, "-m", "pip", "install", "--dry-run", "--ignore-installed", "--quiet"]
        command += ["--report", str(report), ".[all]"]
        if LOCK.exists() and not upgrade:
            command += ["--constraint", str(LOCK)]
        subprocess.run(command, check=True, cwd=ROOT)
        found = [item["metadata"] for item in json.loads(report.read_text())["install"]]
    pins = {item["name"]: item["version"] for item in found if item["name"] != "mgmlib"}
    return [pin(name, pins[name]) for name in sorted(pins, key=str.lower)]


def pin(name, version):
    """One requirement line; what exists on Linux alone says so."""
    marker = ' ; sys_platform == "linux"' if name.startswith(LINUX_ONLY) else ""
    return f"{name}=={version}{marker}"


def write(path, text):
    """Replace a file in one step."""
    temporary = path.with_name(f".{path.name}.new")
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, path)


def main():
    """Resolve, then write both files."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--upgrade", action="store_true", help="take the newest versions instead of the pinned ones"
    )
    pins = resolve(parser.parse_args().upgrade)
    write(LOCK, HEADER + "".join(f"{line}\n" for line in pins))
    conda = [
        "name: mgm-book",
        "channels:",
        "  - conda-forge",
        "dependencies:",
        f"  - python={PYTHON}",
        "  - pip",
    ]
    conda += ["  - pip:", *(f"      - {json.dumps(line) if ';' in line else line}" for line in pins)]
    write(ENVIRONMENT, HEADER + "\n".join(conda) + "\n")
    print(f"{len(pins)} packages pinned in {LOCK.name} and {ENVIRONMENT.name}")


if __name__ == "__main__":
    main()
