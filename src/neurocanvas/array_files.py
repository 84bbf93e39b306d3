"""Arrays in files of others, `.npy`, `.npz` and pickled dictionaries: read without running what is in them."""

from __future__ import annotations

import math
import pickle
import re
import warnings
import zipfile
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np

from neurocanvas.errors import NeuroCanvasError, check_file

# Bytes that the arrays of an `.npz` may have together: compressed, a few bytes can claim to be any size.
NPZ_LIMIT = 4 * 2**30

_DATA = (str, bytes, bytearray, int, float, complex, np.generic, np.dtype)

# What a pickle may make of its bytes, in sizes of the file: more is a small file that fills the memory.
COPIES = 4

# The longest axis of an array without elements, which its bytes say nothing of.
EMPTY = 1_000_000

_PLAIN = re.compile(r"b1|\?|[iu][1248]|f(?:2|4|8|12|16)|c(?:8|16|24|32)|[SUa][1-9]\d*|O8?")
_OPCODES = (
    "PROTO FRAME STOP MARK POP POP_MARK DUP NONE NEWFALSE NEWTRUE INT BININT BININT1 BININT2 LONG LONG1 LONG4 FLOAT "
    "BINFLOAT STRING BINSTRING SHORT_BINSTRING BINBYTES SHORT_BINBYTES BINBYTES8 BYTEARRAY8 UNICODE BINUNICODE "
    "SHORT_BINUNICODE BINUNICODE8 EMPTY_TUPLE TUPLE TUPLE1 TUPLE2 TUPLE3 EMPTY_LIST LIST APPEND APPENDS EMPTY_DICT "
    "DICT SETITEM SETITEMS EMPTY_SET ADDITEMS FROZENSET GET BINGET LONG_BINGET PUT BINPUT LONG_BINPUT MEMOIZE GLOBAL "
    "STACK_GLOBAL REDUCE BUILD"
)  # fmt: skip


def read_arrays(path: Path | str, purpose: str) -> Any:
    """Read arrays from a file of somebody else; no code in it runs."""
    path = check_file(path, purpose)
    try:
        with path.open("rb") as stream:
            start = stream.read(4)
            stream.seek(0)
            if start == b"PK\x03\x04":
                return _read_npz(stream)
            size = path.stat().st_size
            if start != b"\x93NUM":
                return _check_plain(_Unpickler(stream, size).load())
            shape, fortran, dtype = _header(_Counted(stream, size))
            if dtype.hasobject:
                return _unpickled(stream, size - stream.tell())
            _check_claim(shape, dtype, size - stream.tell())
            order, offset = "F" if fortran else "C", stream.tell()
        if not math.prod(shape):
            return np.zeros(shape, dtype)
        return np.memmap(path, dtype, "r", offset, shape, order)  # type: ignore[call-overload]
    except Exception as error:  # parsers and the unpickler raise whatever damaged bytes lead them to
        if isinstance(error, OSError) and error.filename is not None:
            raise
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise NeuroCanvasError(
            f"{path}: cannot be read as arrays ({reason}); allowed are .npy, .npz and pickles of NumPy arrays and "
            f"plain containers; it should hold {purpose}."
        ) from error


def _read_npz(stream: IO[bytes]) -> dict[str, Any]:
    """The arrays of an `.npz`, by name."""
    with zipfile.ZipFile(stream) as archive:
        members = archive.infolist()
        claimed = sum(member.file_size for member in members)
        if claimed > NPZ_LIMIT:
            raise ValueError(f"claims {claimed:,} bytes, {NPZ_LIMIT:,} are allowed")
        found = {}
        for member in members:
            if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise ValueError(f"{member.filename} is packed in a way that NumPy does not use")
            with archive.open(member) as inner:
                found[member.filename.removesuffix(".npy")] = _read_member(_Counted(inner, member.file_size))
    return found


def _read_member(stream: _Counted) -> Any:
    """One array of an `.npz`."""
    shape, fortran, dtype = _header(stream)
    if dtype.hasobject:
        return _unpickled(stream, stream.left)
    size = _check_claim(shape, dtype, stream.left)
    return np.frombuffer(bytearray(stream.read(size)), dtype).reshape(shape, order="F" if fortran else "C")


def _unpickled(stream: Any, size: int) -> Any:
    """What is behind the header of an `.npy` of objects; the dictionary itself where it holds just one."""
    found = _check_plain(_Unpickler(stream, size).load())
    return found.item() if isinstance(found, np.ndarray) and found.ndim == 0 else found


def _header(stream: Any) -> tuple[tuple[int, ...], bool, np.dtype]:
    """Shape, order and type of an `.npy`; the version of the format that only names of fields need is refused."""
    version = np.lib.format.read_magic(stream)
    readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    if version not in readers:
        raise ValueError(f"version {version[0]}.{version[1]} of the format")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of headers that Python 2 wrote
        shape, fortran, dtype = readers[version](stream)
    if dtype.kind not in "?biufcSUO":
        raise ValueError(f"the type {dtype}")
    return shape, fortran, dtype


def _check_claim(shape: Sequence[int], dtype: np.dtype, there: int) -> int:
    """Bytes of an array of numbers or texts; raise if that many are not there."""
    needed = math.prod(shape) * dtype.itemsize
    if min(shape, default=0) < 0 or not dtype.itemsize or needed > there:
        raise ValueError(f"claims the shape {tuple(shape)} of {dtype}, of which {there:,} bytes are there")
    if not needed and max(shape) > EMPTY:
        raise ValueError(f"claims the shape {tuple(shape)} without an element")
    return needed


class _Counted:
    """A stream that refuses to be asked for more than is left in it."""

    def __init__(self, stream: IO[bytes] | _Counted, left: int) -> None:
        self.stream, self.left = stream, left

    def read(self, size: int) -> bytes:
        """Read so many bytes."""
        if size > self.left:
            raise EOFError(f"claims {size:,} bytes where {self.left:,} are left")
        self.left -= size
        return self.stream.read(size)

    def readline(self) -> bytes:
        """Read a line."""
        line = self.stream.readline()
        self.left -= len(line)
        return line


def _refused(unpickler: _Unpickler) -> None:  # noqa: ARG001
    """Stands for every instruction that is not known."""
    raise pickle.UnpicklingError("an instruction that arrays and plain containers do not need")


_InPython: Any = pickle._Unpickler  # known by this name to pickle's own documentation, but not to its type hints


class _Unpickler(_InPython):
    """Unpickles arrays and plain containers."""

    def __init__(self, stream: IO[bytes] | _Counted, size: int) -> None:
        super().__init__(_Counted(stream, size), encoding="latin1")
        self.budget = COPIES * size + 2**16

    def find_class(self, module: str, name: str) -> Any:
        """Give what stands in for a global of NumPy, or refuse it."""
        found: dict[str, Any] = {
            "numpy.ndarray": None,  # named before every array; what makes one does not need it
            "numpy.dtype": _make_type,
            "numpy.core.multiarray._reconstruct": _blank,
            "numpy.core.multiarray.scalar": self._scalar,
            "numpy.core.numeric._frombuffer": self._from_buffer,
            "_codecs.encode": self._encode,
            "builtins.bytes": lambda: b"",  # without arguments, as the old protocols spell empty ones
            "builtins.set": self._set, "builtins.frozenset": lambda items: frozenset(self._set(items)),
            "builtins.complex": lambda real, imaginary: complex(float(real), float(imaginary)),
            "collections.OrderedDict": lambda: OrderedDict(),
        }  # fmt: skip
        known = f"{module}.{name}".replace("numpy._core.", "numpy.core.").replace("__builtin__.", "builtins.")
        if known not in found:
            raise pickle.UnpicklingError(f"it would load {module}.{name}")
        return found[known]

    def _spend(self, size: int) -> None:
        """Note what is made of bytes that were read already; without this a short file could do it again and again."""
        self.budget -= size
        if self.budget < 0:
            raise MemoryError("needs much more memory than its size")

    def _encode(self, text: str, encoding: str) -> bytes:
        """Bytes, as the old protocols spell them."""
        if encoding != "latin1":
            raise pickle.UnpicklingError(f"bytes in {encoding!r}")
        self._spend(len(text))
        return text.encode("latin1")

    def _set(self, items: list[Any]) -> set[Any]:
        """A set, as the old protocols spell it."""
        _check_keys(items)
        self._spend(len(items))
        return set(items)

    def _scalar(self, dtype: np.dtype, raw: Any) -> Any:
        """A scalar of NumPy."""
        self._spend(dtype.itemsize)
        return self._from_buffer(_as_bytes(raw), dtype, (1,), "C")[0]

    def _from_buffer(self, raw: Any, dtype: np.dtype, shape: tuple[int, ...], order: Any, axes: Any = None) -> Any:
        """An array, as protocol 5 spells it."""
        if axes is not None or order not in ("C", "F"):
            raise pickle.UnpicklingError("an array in an unusual order")
        if dtype.hasobject or _check_claim(shape, dtype, len(_as_bytes(raw))) != len(raw):
            raise pickle.UnpicklingError(f"an array of {dtype} and shape {shape} that does not fit its content")
        return np.frombuffer(raw, dtype).reshape(shape, order=order)

    def _fill(self, array: np.ndarray, state: Any) -> None:
        """Give an array its type, shape and content."""
        _, shape, dtype, fortran, content = state
        if not isinstance(dtype, np.dtype) or not all(type(n) is int for n in shape):
            raise pickle.UnpicklingError("an array without a type or a shape")
        given: Any = content if isinstance(content, list) else _as_bytes(content)
        size = len(given) * (dtype.itemsize if isinstance(given, list) else 1)
        if dtype.hasobject != isinstance(given, list) or _check_claim(shape, dtype, size) != size:
            raise pickle.UnpicklingError(f"an array of {dtype} and shape {shape} that does not fit its content")
        self._spend(len(given))
        array.__setstate__((1, tuple(shape), dtype, bool(fortran), given))  # type: ignore[arg-type]

    def load_build(self) -> None:
        """Fill the array or set the byte order of the type on the stack; nothing else has a state."""
        state = self.stack.pop()
        made: Any = self.stack[-1]
        if isinstance(made, np.ndarray) and made.shape == (0,) and made.base is None:
            self._fill(made, state)
        elif isinstance(made, np.dtype) and state[1] in ("<", ">", "|", "="):
            _set_order(made, state[1])
        else:
            raise pickle.UnpicklingError(f"a state for a {type(made).__name__}")

    def load_setitems(self) -> None:
        """Put the entries behind the mark into a dictionary."""
        _check_keys(self.stack[::2])
        into = self.metastack[-1][-1]
        if not isinstance(into, dict):
            raise pickle.UnpicklingError(f"entries for a {type(into).__name__}")
        super().load_setitems()

    def load_setitem(self) -> None:
        """Put an entry into a dictionary."""
        value, key = self.stack.pop(), self.stack.pop()
        self.load_mark()
        self.stack += [key, value]
        self.load_setitems()

    def load_dict(self) -> None:
        """Make a dictionary of the entries behind the mark."""
        _check_keys(self.stack[::2])
        super().load_dict()

    def load_additems(self) -> None:
        """Put the items behind the mark into a set."""
        _check_keys(self.stack)
        super().load_additems()

    def load_frozenset(self) -> None:
        """Make a set of the items behind the mark."""
        _check_keys(self.stack)
        super().load_frozenset()

    def load_bytearray8(self) -> None:
        """Read bytes: no more than there are, where Python sets aside what is claimed."""
        self.append(bytearray(self.read(int.from_bytes(self.read(8), "little"))))


_OWN = ("BUILD", "SETITEM", "SETITEMS", "DICT", "ADDITEMS", "FROZENSET", "BYTEARRAY8")
_Unpickler.dispatch = (
    dict.fromkeys(range(256), _refused)
    | {getattr(pickle, name)[0]: _InPython.dispatch[getattr(pickle, name)[0]] for name in _OPCODES.split()}
    | {getattr(pickle, name)[0]: getattr(_Unpickler, f"load_{name.lower()}") for name in _OWN}
)


def _blank(*_: Any) -> np.ndarray:
    """An array that has no content yet."""
    return np.ndarray((0,), np.int8)


def _make_type(name: Any, *_: Any) -> np.dtype:
    """A type of numbers, texts or objects, which is no other array's: its byte order may still change."""
    if not isinstance(name, str) or not _PLAIN.fullmatch(name):
        raise pickle.UnpicklingError(f"the type {str(name)[:40]}")
    return np.dtype(name, copy=True)


def _set_order(dtype: Any, order: str) -> None:
    """Set the byte order of a type and nothing else: of the state in a file, flags could make addresses of bytes."""
    version, _, *kept = dtype.__reduce__()[2]
    dtype.__setstate__((version, order, *kept))


def _check_plain(found: Any) -> Any:
    """Raise if what was unpickled holds more than data: what makes arrays can be left in a file as a value."""
    left, seen = [found], set()
    while left:
        one = left.pop()
        if id(one) in seen or one is None or isinstance(one, _DATA):
            continue
        seen.add(id(one))
        if isinstance(one, dict):
            left += one.values()  # keys are checked where they are put in
        elif isinstance(one, list | tuple | set | frozenset):
            left += one
        elif isinstance(one, np.ndarray):
            left += one.ravel().tolist() if one.dtype.hasobject else ()
        else:
            raise pickle.UnpicklingError(f"a {type(one).__name__} as a value")
    return found


def _as_bytes(raw: Any) -> bytes | bytearray:
    """Bytes; those that Python 2 wrote were read as text."""
    if isinstance(raw, str):
        return raw.encode("latin1")
    if not isinstance(raw, bytes | bytearray):
        raise pickle.UnpicklingError(f"a {type(raw).__name__} where bytes belong")
    return raw


def _check_keys(keys: Sequence[Any]) -> None:
    """Raise if keys are more than texts and numbers: to hash tuples in tuples in tuples ends the program."""
    for key in keys:
        if key is not None and not isinstance(key, str | bytes | int | float | complex | np.generic):
            raise pickle.UnpicklingError(f"a {type(key).__name__} as a key")
