"""The parameters that a notebook declares, and a reader's values for them: typed, and no unknown names."""

import ast
import difflib
import shlex
from dataclasses import dataclass
from pathlib import Path

import yaml

TRUTH = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}


class ParameterError(ValueError):
    """A reader's value that the notebook cannot take."""


@dataclass(frozen=True)
class Parameter:
    """One name of a parameters cell, the kinds of value that it takes and its default as written."""

    name: str
    kinds: tuple[str, ...]
    default: str

    def __str__(self):
        return f"{self.name}: {' | '.join(self.kinds)} = {self.default}"


def declared(notebook):
    """The parameters of a notebook, by name, in the order of its cell tagged `parameters`."""
    for cell in notebook.cells:
        if "parameters" in cell.metadata.get("tags", []):
            return {found.name: found for found in map(parameter, ast.parse(cell.source).body) if found}
    return {}


def parameter(statement):
    """The parameter that an assignment declares; None for any other statement."""
    if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name) and statement.value:
        kinds = tuple(kind.strip() for kind in ast.unparse(statement.annotation).strip("'\"").split("|"))
        return Parameter(statement.target.id, kinds, ast.unparse(statement.value))
    if isinstance(statement, ast.Assign) and isinstance(statement.targets[0], ast.Name):
        kind = type(ast.literal_eval(statement.value)).__name__
        return Parameter(statement.targets[0].id, (kind,), ast.unparse(statement.value))
    return None


def read_values(known, assignments="", file=None):
    """A reader's values: those of a YAML file, then `name=value` pairs, which win.

    Parameters
    ----------
    known : dict of str to Parameter
        What the notebook declares.
    assignments : str
        Pairs as typed in a shell: ``model=timm:resnet18 k=50 images='my photos'``.
    file : path, optional
        A YAML file that maps names to values.

    Returns
    -------
    dict
        Name to value of the declared type.

    Raises
    ------
    ParameterError
        An unreadable file, a pair without ``=``, an unknown name, a value of another type.
    """
    values = {}
    if file:
        try:
            loaded = yaml.safe_load(Path(file).read_text(encoding="utf-8")) or {}
        except (OSError, yaml.YAMLError) as error:
            raise ParameterError(f"{file} cannot be read as YAML: {error}") from error
        if not isinstance(loaded, dict):
            raise ParameterError(f"{file} holds a {type(loaded).__name__}; expected lines `name: value`")
        values = {name: typed(look_up(known, name), value) for name, value in loaded.items()}
    for pair in shlex.split(assignments):
        name, equals, text = pair.partition("=")
        if not equals:
            raise ParameterError(f"{pair!r} is not name=value; quote values with spaces: name='a b'")
        values[name] = parsed(look_up(known, name), text)
    return values


def look_up(known, name):
    """The declared parameter of that name."""
    if name in known:
        return known[name]
    near = difflib.get_close_matches(str(name), known, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    listing = "\n  ".join(map(str, known.values())) or "(none)"
    raise ParameterError(f"unknown parameter {name!r}{hint} The notebook takes:\n  {listing}")


def parsed(parameter, text):
    """A typed text as a value of the parameter's first kind that can hold it."""
    for kind in sorted(parameter.kinds, key=lambda kind: kind == "str"):  # any text is a str: try that last
        try:
            return read(kind, text)
        except (ValueError, KeyError):
            continue
    raise ParameterError(f"{parameter.name}={text!r} does not fit; expected {' | '.join(parameter.kinds)}")


def read(kind, text):
    """A text read as one kind of value; ValueError or KeyError where it is not one."""
    outer, _, inner = kind.rstrip("]").partition("[")
    if outer == "None":
        return {"none": None, "null": None, "": None}[text.lower()]
    if outer == "bool":
        return TRUTH[text.lower()]
    if outer in ("int", "float"):
        return {"int": int, "float": float}[outer](text)
    if outer in ("list", "tuple"):
        item = inner.split(",")[0] or "str"
        return [read(item, part.strip()) for part in text.strip("[]()").split(",") if part.strip()]
    if outer == "str":
        return text
    value = yaml.safe_load(text)
    if type(value).__name__ != outer:
        raise ValueError(kind)
    return value


def typed(parameter, value):
    """A value of a YAML file, checked against the declared kinds."""
    kinds = {kind.partition("[")[0] for kind in parameter.kinds}
    met = "None" if value is None else type(value).__name__
    if met in kinds or (met == "int" and "float" in kinds) or (met == "list" and "tuple" in kinds):
        return value
    raise ParameterError(f"{parameter.name}: {value!r} is {met}; expected {' | '.join(parameter.kinds)}")
