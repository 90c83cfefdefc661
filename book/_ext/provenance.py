"""The directive `{provenance}`: what the last run of each notebook here took, with which versions.

The figures come from `_build/provenance/*.json`, which `make book` writes. They change with every run, so
they are never committed: a book built from the committed outputs alone says so instead.
"""

import json
from pathlib import Path

from docutils import nodes
from docutils.parsers.rst import Directive


class Provenance(Directive):
    """Two tables: the runs, and the versions of the packages that they used."""

    def run(self):
        """The tables as document nodes."""
        environment = self.state.document.settings.env
        environment.note_reread()  # the figures change without the page
        folder = Path(environment.srcdir, "_build", "provenance")
        runs = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.json"))]
        if not runs:
            text = (
                "This copy was built from the committed outputs: no notebook was executed where it was built."
            )
            return [nodes.paragraph(text=text)]
        columns = ("notebook", "started", "seconds", "device", "commit")
        rows = [[str(run[column]) for column in columns] for run in runs]
        last = max(runs, key=lambda run: run["started"])
        versions = {"Python": last["python"], **last["versions"]}
        total = nodes.paragraph(
            text=f"All notebooks together took {sum(run['seconds'] for run in runs):.0f} s."
        )
        return [table(columns, rows), total, table(("package", "version"), versions.items())]


def table(header, rows):
    """A plain table of texts."""
    group = nodes.tgroup("", *(nodes.colspec(colwidth=1) for _ in header), cols=len(header))
    group += nodes.thead("", line(header))
    group += nodes.tbody("", *map(line, rows))
    return nodes.table("", group, classes=["provenance"])


def line(cells):
    """One row of a table."""
    return nodes.row("", *(nodes.entry("", nodes.paragraph(text=cell)) for cell in cells))


def setup(app):
    """Tell Sphinx about the directive."""
    app.add_directive("provenance", Provenance)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
