"""Rows of the scorecard: what is written is read back, in the claims' order; what is wrong is refused."""

import json
import sys
from pathlib import Path

import pytest

from mgmlib.scorecard import CLAIMS, read_rows, write_row

ROOT = Path(__file__).resolve().parent.parent
COMMITTED = ROOT / "notebooks" / "results" / "scorecard"
ROW = {
    "test": "mean cosine against 0.9",
    "result": "0.95 [0.94, 0.96]",
    "verdict": "holds",
    "figure": "fig-x",
    "scale": "five seeds",
}


def test_every_claim_is_listed_and_one_without_a_row_is_open(tmp_path):
    write_row(tmp_path, "collapse", **ROW)
    rows = read_rows(tmp_path)
    assert [row["key"] for row in rows] == list(CLAIMS)
    verdicts = {row["key"]: row["verdict"] for row in rows}
    assert verdicts.pop("collapse") == "holds"
    assert set(verdicts.values()) == {"open"}


def test_a_row_is_read_as_it_was_written(tmp_path):
    write_row(tmp_path, "limit", **ROW)
    (row,) = (row for row in read_rows(tmp_path) if row["key"] == "limit")
    assert {name: row[name] for name in ROW} == ROW
    assert (row["statement"], row["source"]) == CLAIMS["limit"]


@pytest.mark.parametrize(
    ("key", "change", "named"),
    [
        ("gravity", {}, "key='gravity'"),
        ("limit", {"verdict": "probably"}, "verdict='probably'"),
        ("limit", {"result": " "}, "result: expected a text"),
    ],
)
def test_what_is_wrong_is_named_and_nothing_is_written(tmp_path, key, change, named):
    with pytest.raises(ValueError, match=named):
        write_row(tmp_path, key, **ROW | change)
    assert not list(tmp_path.iterdir())


def test_a_file_of_no_claim_is_an_error(tmp_path):
    (tmp_path / "gravity.json").write_text(json.dumps(ROW))
    with pytest.raises(ValueError, match=r"gravity\.json: no such claim"):
        read_rows(tmp_path)


def test_sources_are_in_the_bibliography_and_figures_in_a_notebook():
    bibliography = (ROOT / "book" / "references.bib").read_text()
    notebooks = "".join(path.read_text() for path in ROOT.glob("notebooks/[0-9]*.md"))
    for row in read_rows(COMMITTED):
        assert f"{{{row['source']}," in bibliography
        assert row["verdict"] == "open" or f"name: {row['figure']}\n" in notebooks


def test_the_page_counts_a_claim_once_and_shows_what_was_measured(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "book" / "_ext"))
    sys.modules.pop("scorecard", None)
    import scorecard

    write_row(tmp_path, "collapse", **ROW)
    rows = read_rows(tmp_path)
    assert len(scorecard.overview(rows)) == 2 + len(CLAIMS) + 1
    text = "\n".join(line for row in rows for line in scorecard.entry(row))
    assert text.count("0.95 [0.94, 0.96]") == 1 and "{numref}`fig-x`" in text
