"""Arrays of others: what NumPy writes is read, and nothing else; no code runs, and small files stay small."""

from __future__ import annotations

import io
import os
import pickle
import resource
import struct
import zipfile
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest

from neurocanvas.array_files import read_arrays
from neurocanvas.errors import NeuroCanvasError

CONTENT = {
    "preprocessed_eeg_data": np.arange(24, dtype=">f4").reshape(2, 3, 4), "fortran": np.asfortranarray(np.eye(5, 7)),
    "long": np.arange(2000.0), "ch_names": ["Pz", "é"], "times": (0.1, -0.2), "n": {1, 2}, "fixed": frozenset("ab"),
    "names": np.array(["a", "bcd"]), "bytes": np.array([b"x"]), "mixed": np.array(["a", None, 3, [1]], dtype=object),
    "scalar": np.float32(2.5), "flag": np.bool_(True), "type": np.dtype(">i2"), "empty": np.zeros((0, 3)),
    "ordered": OrderedDict(b=1, a=[2**70, -5]), "complex": 1 + 2j, "raw": b"\xff\x00", "none": None, 3: {"deep": [{}]},
}  # fmt: skip


def assert_same(found, wanted):
    """The same plain content, and arrays of the same type and order."""
    assert type(found) is type(wanted)
    if isinstance(wanted, np.ndarray) and wanted.dtype != object:
        np.testing.assert_array_equal(found, wanted)
        assert found.dtype == wanted.dtype and found.flags.f_contiguous == wanted.flags.f_contiguous
    elif isinstance(wanted, dict):
        assert list(found) == list(wanted)
        for name, value in wanted.items():
            assert_same(found[name], value)
    elif isinstance(wanted, np.ndarray):
        assert found.tolist() == wanted.tolist() and found.dtype == object
    else:
        assert found == wanted


def refuse(path, content, says):
    """Write bytes; they are refused in one line that names the file and says so."""
    path.write_bytes(content)
    with pytest.raises(NeuroCanvasError, match=says) as caught:
        read_arrays(path, "EEG")
    said = str(caught.value)
    assert "\n" not in said and str(path) in said and "it should hold EEG" in said


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("numpy_version", ["numpy.core", "numpy._core"])
def test_pickles_of_every_protocol_and_both_versions_of_numpy(protocol, numpy_version, tmp_path):
    path, now = tmp_path / "eeg.pkl", np.empty(0).__reduce__()[0].__module__.rpartition(".")[0]
    content = pickle.dumps(CONTENT, protocol=protocol)
    assert now.encode() in content
    if protocol < 4:  # else the length of the name stands before it
        content = content.replace(now.encode(), numpy_version.encode())
    else:
        for name in ("multiarray", "numeric"):
            old, new = (f"{version}.{name}".encode() for version in (now, numpy_version))
            content = content.replace(b"\x8c" + bytes([len(old)]) + old, b"\x8c" + bytes([len(new)]) + new)
        content = b"\x80" + content[1:2] + content[11:]  # without the frame, whose length is another one now
    path.write_bytes(content)
    assert_same(read_arrays(path, "EEG"), pickle.loads(pickle.dumps(CONTENT, protocol=protocol)))
    assert np.dtype("f8").isnative and np.dtype("i2").isnative


def test_what_python_2_wrote(tmp_path):
    head = b"\x80\x02}q\x00U\x01xq\x01cnumpy.core.multiarray\n_reconstruct\nq\x02cnumpy\nndarray\nq\x03K\x00\x85"
    body = b"U\x01b\x87R(K\x01K\x02\x85cnumpy\ndtype\nU\x02f4K\x00K\x01\x87R(K\x03U\x01<NNNJ\xff\xff\xff\xff"
    path = tmp_path / "old.pkl"
    path.write_bytes(head + body + b"J\xff\xff\xff\xffK\x00tb\x89U\x08" + struct.pack("<2f", 1.5, -2) + b"tbs.")
    assert read_arrays(path, "EEG")["x"].tolist() == [1.5, -2.0]


def test_npy_npz_and_a_dictionary_that_was_saved(tmp_path):
    signal = np.arange(60, dtype=np.float32).reshape(3, 4, 5)
    np.save(tmp_path / "a.npy", signal)
    found = read_arrays(tmp_path / "a.npy", "EEG")
    assert isinstance(found, np.memmap) and not found.flags.writeable
    np.testing.assert_array_equal(found, signal)
    np.save(tmp_path / "f.npy", np.asfortranarray(signal))
    np.testing.assert_array_equal(read_arrays(tmp_path / "f.npy", "EEG"), signal)
    np.save(tmp_path / "empty.npy", signal[:0])
    assert read_arrays(tmp_path / "empty.npy", "EEG").shape == (0, 4, 5)
    np.save(tmp_path / "dictionary.npy", CONTENT, allow_pickle=True)
    wanted = np.load(tmp_path / "dictionary.npy", allow_pickle=True).item()
    assert_same(read_arrays(tmp_path / "dictionary.npy", "EEG"), wanted)
    for save in (np.savez, np.savez_compressed):
        save(tmp_path / "z.npz", signal=signal, turned=np.asfortranarray(signal), names=np.array(["a"], dtype=object))
        found = read_arrays(tmp_path / "z.npz", "EEG")
        assert list(found) == ["signal", "turned", "names"] and found["names"].tolist() == ["a"]
        np.testing.assert_array_equal(found["signal"], signal)
        np.testing.assert_array_equal(found["turned"], signal)


class Evil:
    """Pickled as a call of a function that is given."""

    def __init__(self, function, *arguments, state=None):
        self.call = (function, arguments) if state is None else (function, arguments, state)

    def __reduce__(self):
        return self.call


REACHED = []


@pytest.mark.parametrize("wrapped", ["alone", "in a dictionary", "in an array", "in an npz", "as a state"])
@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_no_code_runs(wrapped, protocol, tmp_path):
    evil = Evil(REACHED.append, 1)
    path, stream = tmp_path / "evil.npy", io.BytesIO()
    if wrapped == "in an npz":
        np.savez(stream, x=np.array([evil], dtype=object))
        path.write_bytes(stream.getvalue())
    else:
        held = {
            "alone": evil, "in a dictionary": {"x": [evil]}, "in an array": np.array([{"x": evil}], dtype=object),
            "as a state": Evil(np.dtype, "f8", state=evil),
        }[wrapped]  # fmt: skip
        path.write_bytes(pickle.dumps(held, protocol=protocol))
    with pytest.raises(NeuroCanvasError, match=r"builtins.getattr|__builtin__.getattr|it would load"):
        read_arrays(path, "EEG")
    assert not REACHED


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"cos\nsystem\n(S'touch x'\ntR.", "it would load os.system"),
        (b"cposix\nsystem\n(S'touch x'\ntR.", "it would load posix.system"),
        (b"cbuiltins\neval\n(S'1'\ntR.", "it would load builtins.eval"),
        (b"cnumpy\nload\n(S'x'\ntR.", "it would load numpy.load"),
        (b"\x80\x04\x8c\x05numpy\x8c\x12core.multiarray.os\x93.", "it would load numpy.core.multiarray.os"),
        (b"cnumpy.core.multiarray\n_reconstruct.__globals__\n.", "it would load numpy.core.multiarray._reconstruct._"),
        (b"cneurocanvas.array_files\nread_arrays\n(S'x'\ntR.", "it would load neurocanvas.array_files.read_arrays"),
        (b"c\x1b[31m\n\x1b]0;x\n.", r"it would load \?\[31m"),
        (b"(S'x'\nios\nsystem\n.", "an instruction"),
        (b"Pid\n.", "an instruction"),
        (b"S'id'\nQ.", "an instruction"),
        (b"\x80\x02\x82\x01.", "an instruction"),
        (b"\x80\x02cnumpy\ndtype\n(S'f8'\nt\x81.", "an instruction"),
        (b"\x80\x02}}b.", "a state for a dict"),
        (b"\x80\x02]K\x01}s.", "entries for a list|a dict as a key"),
        (b"}((K\x01tK\x02u.", "a tuple as a key"),
        (b"\x80\x05\x97.", "an instruction"),
        (b"cnumpy\nndarray\n(K\x05tR.", "not callable"),
        (b"cnumpy\ndtype\n(S'V8'\ntR.", "the type V8"),
        (b"cnumpy\ndtype\n(S'O,f8'\ntR.", "the type O,f8"),
        (b"cnumpy\ndtype\n(S'f8'\ntR(K\x03S'<'\nNNNK\x01K\x01K\x3ftb0N.", None),  # flags of objects are not taken over
        (b"", "claims 1 bytes where 0 are left"),
        (b"no pickle at all", "an instruction"),
        (b"<html>", "an instruction|index"),
    ],
)  # fmt: skip
def test_tricks_of_pickles(content, says, tmp_path):
    path = tmp_path / "x.pkl"
    if says is None:
        path.write_bytes(content)
        assert read_arrays(path, "EEG") is None
    else:
        refuse(path, content, says)
    assert not list(tmp_path.glob("x")) and np.arange(3.0).tolist() == [0, 1, 2]


def array_pickle(shape, kind, content):
    """A pickle of an array that claims a shape and a type."""
    make = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(K\x00tS'b'\ntR(K\x01"
    return make + shape + b"cnumpy\ndtype\n(S'" + kind + b"'\ntR\x89" + content + b"tb."


@pytest.mark.parametrize(
    ("shape", "kind", "content"),
    [
        (b"(J\xff\xff\xff\x7ft", b"f8", b"C\x08\0\0\0\0\0\0\0\0"),
        (b"(I1000000000000\nI0\nt", b"f8", b"C\x00"),
        (b"(I-1\nt", b"f8", b"C\x08\0\0\0\0\0\0\0\0"),
        (b"(I-1\nI-1\nt", b"f8", b"C\x08\0\0\0\0\0\0\0\0"),
        (b"(K\x01t", b"O8", b"C\x08\x10\0\0\0\0\0\0\0"),  # bytes as addresses of objects
        (b"(K\x02t", b"O8", b"]Na"),
        (b"(K\x01t", b"f8", b"]Na"),
        (b"S'ab'\n", b"f8", b"C\x00"),
        (b"(K\x01t", b"S0", b"C\x00"),
    ],
)  # fmt: skip
def test_arrays_whose_content_does_not_fit_are_refused(shape, kind, content, tmp_path):
    refuse(tmp_path / "x.pkl", array_pickle(shape, kind, content), "cannot be read as arrays")
    path = tmp_path / "good.pkl"
    path.write_bytes(array_pickle(b"(K\x01t", b"f8", b"C\x08\0\0\0\0\0\0\0\0"))
    assert read_arrays(path, "EEG").tolist() == [0.0]


@pytest.fixture
def little_memory():
    """Half a GB more address space than there is in use, so that a bomb is an error and not the end of the machine."""
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    limits = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (used + 2**29, limits[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, limits)


BOMBS = {
    "bytes that are claimed": b"\x80\x04\x8e" + struct.pack("<Q", 2**40) + b".",
    "byte array that is claimed": b"\x80\x05\x96" + struct.pack("<Q", 2**33) + b"x.",
    "text that is claimed": b"\x80\x04X" + struct.pack("<I", 2**32 - 1) + b"x.",
    "frame": b"\x80\x04\x95" + struct.pack("<Q", 2**33) + b"N.",
    "one text encoded again and again": b"(U\xff" + b"x" * 255 + b"q\x000" + b"c_codecs\nencode\n(h\x00U\x06latin1tR"
    * 20_000 + b"t.",
    "one list as many sets": b"(" + b"J0000" * 50_000 + b"lq\x000" + b"(c__builtin__\nset\n(h\x00tR" * 2_000 + b"l.",
    "one content for many arrays": b"T" + struct.pack("<I", 200_000) + b"x" * 200_000 + b"q\x000(" + array_pickle(
        b"(J" + struct.pack("<I", 200_000) + b"t", b"S1", b"h\x00")[:-1] * 5_000 + b"t.",
}  # fmt: skip


@pytest.mark.parametrize("bomb", BOMBS)
def test_bombs(bomb, tmp_path, little_memory):
    refuse(tmp_path / "x.pkl", BOMBS[bomb], "claims|much more memory|cannot be read")


def test_keeping_a_value_under_a_high_number_takes_no_memory(tmp_path, little_memory):
    path = tmp_path / "x.pkl"
    path.write_bytes(b"Nr" + struct.pack("<I", 2**32 - 1) + b".")  # C's unpickler sets aside 64 GB for it
    assert read_arrays(path, "EEG") is None


def header(text, version=(1, 0)):
    """An `.npy` with a header of one's own, and 80 bytes of content."""
    length = struct.pack("<H" if version == (1, 0) else "<I", len(text))
    return b"\x93NUMPY" + bytes(version) + length + text + bytes(80)


def described(shape, kind="'<f4'"):
    """The usual header."""
    return f"{{'descr': {kind}, 'fortran_order': False, 'shape': {shape}, }}\n".encode()


HEADERS = {
    "a claim of 10^12 trials": header(described("(1000000000000, 62, 500)")),
    "10^12 trials of nothing": header(described("(1000000000000, 0)")),
    "10^12 empty texts": header(described("(1000000000000,)", "'S0'")),
    "overflow": header(described("(4294967296, 4294967296)")),
    "negative": header(described("(-1,)")),
    "twice negative": header(described("(-4, -5)")),
    "a number": header(described("5")),
    "fields": header(described("(1,)", "[('a', '<f4')]")),
    "objects in fields": header(described("(1,)", "[('a', '|O')]")),
    "a part that is an array": header(described("(1,)", "('<f4', (1000000000,))")),
    "no dictionary": header(b"[1, 2]\n"),
    "code": header(b"__import__('os').system('touch x')\n"),
    "deep": header(b"(" * 5000 + b")" * 5000),
    "long": header(described("(1,)") + b" " * 60_000),
    "longer than the file": b"\x93NUMPY\x02\x00" + struct.pack("<I", 2**32 - 1) + b"{",
    "third version": header(described("(1,)"), (3, 0)),
    "version that is none": header(described("(1,)"), (9, 9)),
    "cut off": b"\x93NUMPY\x01\x00\x76",
    "magic alone": b"\x93NUMPY",
    "binary": header(b"\xff\x00\xfe" * 20),
}


@pytest.mark.parametrize("name", HEADERS)
def test_absurd_headers(name, tmp_path, little_memory, recwarn):
    refuse(tmp_path / "x.npy", HEADERS[name], "cannot be read as arrays")
    assert not list(tmp_path.glob("x")) and not recwarn.list
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("a.npy", HEADERS[name])
    refuse(tmp_path / "x.npz", stream.getvalue(), "cannot be read as arrays")


def test_what_is_packed_is_bounded(tmp_path, monkeypatch, little_memory):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.npy", header(described("(1000000,)")) + bytes(4_000_000))
    whole = stream.getvalue()
    monkeypatch.setattr("neurocanvas.array_files.NPZ_LIMIT", 3_000_000)
    refuse(tmp_path / "x.npz", whole, "claims 4,000,1.. bytes, 3,000,000 are allowed")
    lie = whole.replace(struct.pack("<I", 4_000_000 + 80 + 10 + len(described("(1000000,)"))), struct.pack("<I", 1000))
    assert lie != whole
    refuse(tmp_path / "x.npz", lie, "cannot be read as arrays")
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_LZMA) as archive:
        archive.writestr("a\x1b.npy", header(described("(20,)")))
    refuse(tmp_path / "x.npz", stream.getvalue(), r"a\?.npy is packed in a way")
    refuse(tmp_path / "x.npz", whole[:-30], "cannot be read as arrays")


def test_missing_files_and_what_may_not_be_read(tmp_path, monkeypatch):
    with pytest.raises(NeuroCanvasError, match="no such file; it should hold EEG"):
        read_arrays(tmp_path / "none.npy", "EEG")
    os.mkfifo(tmp_path / "pipe.npy")  # would wait for ever
    with pytest.raises(NeuroCanvasError, match="no such file"):
        read_arrays(tmp_path / "pipe.npy", "EEG")
