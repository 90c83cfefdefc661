"""BYOL's published checkpoint, a dill pickle, read without running any of it.

A pickle is a program, and may name any function of any module. This unpickler knows a handful of names, those
that arrays, dictionaries and named tuples of haiku's parameters are made of, and stands in for each with a
few lines of its own: nothing is imported for the file, numpy's own unpickling included. Any other name ends
the reading, with that name.
"""

from __future__ import annotations

import contextlib
import pickle
import pickletools

import numpy as np

_NUMBERS = "biuf"  # kinds of dtype: booleans, integers, floats


class RefusedPickle(ValueError):
    """A pickle that names something which is not on the list, or puts it together in another way."""


def read_pickle(path):
    """What a pickle of arrays, dictionaries, named tuples and plain values holds.

    Returns
    -------
    The object: arrays as numpy arrays, mappings as dicts, named tuples as dicts of their fields.

    Raises
    ------
    RefusedPickle
        On a name that is not on the list (it is told), and on a damaged file.
    """
    try:
        with open(path, "rb") as file:
            return _plain(_Reader(file).load())
    except RefusedPickle:
        raise
    except (EOFError, pickle.UnpicklingError) as error:
        raise RefusedPickle(f"truncated, or no pickle of parameters: {error}") from error
    except Exception as error:  # whatever a hostile file makes the stand-ins meet
        raise RefusedPickle(
            f"put together as no pickle of parameters is: {type(error).__name__}: {error}"
        ) from error


def names_in(program):
    """Names that a pickle (bytes) asks for, in their order, told from its opcodes: nothing of it is run."""
    texts, names = [], []
    with contextlib.suppress(ValueError):  # it is damaged from here on
        for opcode, argument, _ in pickletools.genops(program):
            if opcode.name == "GLOBAL":
                names.append(argument.replace(" ", "."))
            elif opcode.name == "STACK_GLOBAL":
                names.append(".".join(texts[-2:]))
            elif isinstance(argument, str):
                texts.append(argument)
    return list(dict.fromkeys(names))


class _Reader(pickle.Unpickler):
    def __init__(self, file):
        super().__init__(file)
        self._known = _stand_ins()  # made anew for each file: what one file does to them ends with it

    def find_class(self, module, name):
        found = self._known.get(f"{module}.{name}")
        if found is None:
            raise RefusedPickle(f"it asks for {module}.{name}, which is not on the list of harmless names")
        return found

    def persistent_load(self, pid):
        raise RefusedPickle(f"it refers to an object outside the file ({str(pid)[:80]!r})")


def _plain(value):
    """Stand-ins resolved: what holds no more than dicts, lists, tuples, arrays and plain values."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(map(_plain, value))
    return _plain(value.value()) if hasattr(type(value), "value") else value


def _stand_ins():
    """Name in the file to what stands in for it."""

    class Dtype:
        def __init__(self, code, align=False, copy=False):
            self.code, self.order = code, "="

        def __setstate__(self, state):
            self.order = state[1]

        def numpy(self):
            dtype = np.dtype(str(self.code))
            if dtype.kind not in _NUMBERS or self.order not in ("<", ">", "|", "="):
                raise RefusedPickle(f"an array of type {str(self.code)[:40]!r}: expected numbers")
            return dtype.newbyteorder(self.order)

    class Array:
        def __setstate__(self, state):
            self.state = state

        def value(self):
            *_, shape, dtype, fortran, raw = self.state
            return np.frombuffer(raw, dtype.numpy()).reshape(shape, order="F" if fortran else "C")

    class Ndarray:
        """The class itself, which the file only ever passes on."""

    class Record:
        """A named tuple: its fields as a dict."""

        _names = ()

        def __new__(cls, *values):
            record = super().__new__(cls)
            record.fields = dict(zip(cls._names, values, strict=True))
            return record

        def value(self):
            return self.fields

    class Imported:
        """What stands for a module, or a name of one: it can be passed on, and does nothing."""

    def reconstruct(_kind, _shape, _code):
        return Array()

    def create_array(rebuild, arguments, state, attributes=None):
        array = reconstruct(*arguments)
        array.__setstate__(state)
        return array

    def scalar(dtype, raw):
        return np.frombuffer(raw, dtype.numpy())[0]

    def encode(text, encoding):
        if encoding != "latin1":
            raise RefusedPickle(f"text encoded as {str(encoding)[:40]!r}: expected latin1")
        return text.encode("latin1")

    def create_namedtuple(_name, fields, _module, _defaults=None):
        return type("Record", (Record,), {"_names": tuple(map(str, fields))})

    def imported(*_arguments, **_options):
        return Imported()

    known = {
        "_codecs.encode": encode,
        "collections.OrderedDict": dict,
        "numpy.ndarray": Ndarray,
        "numpy.dtype": Dtype,
        "dill._dill._create_namedtuple": create_namedtuple,
        "dill._dill._create_array": create_array,
        "dill._dill._import_module": imported,
        "dill._dill._get_attr": imported,
    }
    for home in ("numpy.core.multiarray", "numpy._core.multiarray"):
        known |= {f"{home}._reconstruct": reconstruct, f"{home}.scalar": scalar}
    for home in ("haiku._src.data_structures", "haiku.data_structures"):
        known |= dict.fromkeys((f"{home}.{name}" for name in ("frozendict", "FlatMapping", "FlatMap")), dict)
    return known
