"""The tools that turn sources into notebooks: typed parameters, reproducible twins, differences found."""

import io

import nbformat
import pytest
from PIL import Image, PngImagePlugin

from notebook_parameters import ParameterError, declared, read_values
from notebook_twins import differences, normalise, plain_png, read_source, write
from notebooks import RUNS, beside_the_book, run_notebook

SOURCE = """---
kernelspec:
  display_name: Python 3
  language: python
  name: python3
---

# A chapter

```{code-cell} python
:tags: [parameters]

model: str = "resnet18"  # any encoder
k: int = 50
strength: float = 1.0
layers: list[str] = ["a", "b"]
images: str | None = None
fast: bool = False
seed = 0
```

```{code-cell} python
import sys

print(model, k)
print("0 % ... 100 %", file=sys.stderr)
```

```{code-cell} python
from IPython.display import Image
from matplotlib import pyplot as plt

plt.plot([0, k])
_ = plt.show()
```
"""


@pytest.fixture
def source(tmp_path):
    path = tmp_path / "01-chapter.md"
    path.write_text(SOURCE, encoding="utf-8")
    return path


@pytest.fixture
def known(source):
    return declared(read_source(source))


def test_parameters_are_those_of_the_tagged_cell(known):
    assert list(known) == ["model", "k", "strength", "layers", "images", "fast", "seed"]
    assert known["images"].kinds == ("str", "None")
    assert known["seed"].kinds == ("int",)


def test_values_have_the_declared_types(known):
    typed = read_values(known, "model=timm:vit k=7 strength=2 layers=x,y images='my photos' fast=yes seed=-1")
    assert typed == {
        "model": "timm:vit",
        "k": 7,
        "strength": 2.0,
        "layers": ["x", "y"],
        "images": "my photos",
        "fast": True,
        "seed": -1,
    }
    assert isinstance(typed["strength"], float)
    assert read_values(known, "images=none model=123") == {"images": None, "model": "123"}


def test_pairs_win_over_the_file(known, tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text("k: 9\nlayers: [layer1]\nstrength: 1\n", encoding="utf-8")
    assert read_values(known, "k=8", file) == {"k": 8, "layers": ["layer1"], "strength": 1}


@pytest.mark.parametrize(
    ("pairs", "message"),
    [
        ("modle=x", r"unknown parameter 'modle'; did you mean 'model'\?(.|\n)*k: int = 50"),
        ("k=many", r"k='many' does not fit; expected int"),
        ("fast=maybe", r"fast='maybe' does not fit; expected bool"),
        ("model=a b", r"'b' is not name=value"),
    ],
)
def test_values_that_do_not_fit_are_named(known, pairs, message):
    with pytest.raises(ParameterError, match=message):
        read_values(known, pairs)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("k: many", "k: 'many' is str; expected int"),
        ("- k", "holds a list"),
        ("kk: 1", "unknown parameter 'kk'"),
    ],
)
def test_a_file_that_does_not_fit_is_an_error(known, tmp_path, text, message):
    file = tmp_path / "mine.yaml"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(ParameterError, match=message):
        read_values(known, "", file)


def test_a_readers_verdicts_go_to_the_readers_runs():
    assert beside_the_book({"k": 3}, {"k": ..., "scorecard": ...}) == {
        "k": 3,
        "scorecard": str(RUNS / "scorecard"),
    }
    assert beside_the_book({"scorecard": "mine"}, {"scorecard": ...}) == {"scorecard": "mine"}
    assert beside_the_book({"k": 3}, {"k": ...}) == {"k": 3}


def test_plain_png_keeps_the_picture_and_drops_the_notes():
    picture = Image.effect_noise((31, 17), 80)
    notes = PngImagePlugin.PngInfo()
    notes.add_text("Software", "some program 1.2")
    file = io.BytesIO()
    picture.save(file, "PNG", pnginfo=notes)
    plain = plain_png(file.getvalue())
    assert b"Software" in file.getvalue()
    assert b"Software" not in plain
    assert Image.open(io.BytesIO(plain)).tobytes() == picture.tobytes()


def test_two_runs_give_the_same_bytes_and_differences_are_found(source):
    twin = source.with_suffix(".ipynb")
    assert differences(source) == [f"{source.name} has no {twin.name} beside it"]
    write(normalise(run_notebook(read_source(source))), twin)
    first = twin.read_bytes()
    assert differences(source) == []
    assert b"resnet18 50" in first
    assert b"image/png" in first
    assert b'"stderr"' not in first
    write(normalise(run_notebook(read_source(source))), twin)
    assert twin.read_bytes() == first

    source.write_text(SOURCE.replace("k: int = 50", "k: int = 51"), encoding="utf-8")
    (told,) = differences(source)
    assert "see cell 1" in told

    source.write_text(SOURCE, encoding="utf-8")
    notebook = nbformat.reads(first.decode(), as_version=4)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    write(notebook, twin)
    told = " ".join(differences(source))
    assert "not executed from top to bottom" in told
    assert "holds no outputs" in told
