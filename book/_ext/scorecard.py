"""The directive `{scorecard}`: every claim with what the notebooks measured of it.

The rows are `notebooks/results/scorecard/*.json`, written by the notebooks; nothing is typed here.
"""

from pathlib import Path

from docutils import nodes
from docutils.parsers.rst import Directive
from docutils.statemachine import StringList

from mgmlib.scorecard import read_rows


class Scorecard(Directive):
    """One section a claim: the statement, its source, the verdict, test, numbers, and the figure."""

    def run(self):
        """A count of the verdicts, an overview, then the claims."""
        environment = self.state.document.settings.env
        environment.note_reread()  # the rows change without the page
        rows = read_rows(Path(environment.srcdir, "notebooks", "results", "scorecard"))
        lines = StringList(overview(rows) + [line for row in rows for line in entry(row)], source="scorecard")
        found = nodes.Element()
        self.state.nested_parse(lines, 0, found)
        return found.children


def overview(rows):
    """A pipe table: claim, verdict, scale."""
    table = ["| | Claim | Verdict |", "|---|---|---|"]
    for number, row in enumerate(rows, 1):
        table.append(f"| {number} | {cell(row['statement'])} | **{row['verdict']}** |")
    return [*table, ""]


def entry(row):
    """What was tested and found, as a definition list."""
    if row["verdict"] == "open":
        return []
    return [
        f"**{row['statement']}** {{cite}}`{row['source']}`",
        f": **{row['verdict'].capitalize()}** on {row['scale']}. {row['result']}",
        f": *Test*: {row['test']} See {{numref}}`{row['figure']}`.",
        "",
    ]


def cell(text):
    """Text that a pipe table takes."""
    return text.replace("|", "\\|")


def setup(app):
    """Tell Sphinx about the directive."""
    app.add_directive("scorecard", Scorecard)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
