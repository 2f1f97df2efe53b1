"""Damaged and hostile `.npz` files and recipes, given to `keras-mot compress`."""

import io
import pickle
import zipfile

import numpy as np
from _attacks_common import commanded, rewritten, tiny_model

_X, _Y = np.zeros((64, 8, 8, 3), "float32"), np.zeros(64, "int32")


def arrays(scratch, seed):
    """18 `.npz` files; each is refused before anything is trained."""
    tiny_model().save(scratch / "model.keras")
    good = scratch / "good.npz"
    np.savez(good, x_train=_X + np.random.default_rng(seed).random(_X.shape, "float32"), y_train=_Y)
    marker = scratch / "code_has_run"
    for number, (case, make) in enumerate(_array_cases(good, marker).items()):
        path, output = scratch / f"{number}.npz", scratch / f"output_{number}"
        make(path)
        problem = commanded(
            ["compress", scratch / "model.keras", "--recipe", "int8", "--data", path, "-o", output], refusal=True
        )
        if marker.exists():
            problem = "code from the file has run"
        path.unlink()
        yield case, problem


def recipes(scratch, seed):
    """25 recipes; each is refused with an error that names the file."""
    marker = scratch / "code_has_run"
    for number, (case, content) in enumerate(_recipe_cases(marker).items()):
        path = scratch / f"{number}.yaml"
        if callable(content):
            content(path)
        else:
            path.write_bytes(content)
        problem = commanded(["compress", "--show", path])
        if marker.exists():
            problem = "code from the file has run"
        path.unlink()
        yield case, problem


def _array_cases(good, marker):
    content = good.read_bytes()

    def with_array(make):
        return lambda path: rewritten(good, path, {"x_train.npy": make()})

    def saved(x=_X, y=_Y, **others):
        return lambda path: np.savez(path, x_train=x, y_train=y, **others)

    return {
        "empty": lambda path: path.write_bytes(b""),
        "text": lambda path: path.write_text("numbers"),
        "half of it": lambda path: path.write_bytes(content[: len(content) // 2]),
        "bytes flipped": lambda path: _flip(content, path),
        "an archive without arrays": lambda path: zipfile.ZipFile(path, "w").close(),
        "pickled code": with_array(lambda: _pickled(marker)),
        "objects instead of numbers": saved(np.array([{}] * 64, object)),
        "texts instead of numbers": saved(np.array(["a"] * 64)),
        "records instead of numbers": saved(np.zeros(64, [("a", "f4"), ("b", "f4")])),
        "2.4 GB of zeros": lambda path: _zeros(good, path),
        "a shape that no memory holds": with_array(lambda: _header("(1000000000000, 8, 8, 3)")),
        "a negative shape": with_array(lambda: _header("(-64, 8, 8, 3)")),
        "a header with code": with_array(lambda: _header("__import__('os').getpid()")),
        "a header without end": with_array(lambda: _header("(" + "64, " * 100_000 + ")")),
        "fewer values than declared": with_array(lambda: _npy(_X)[:-4]),
        "an array twice": lambda path: _twice(good, path),
        "an encrypted member": lambda path: _encrypted(content, path),
        "not finite": saved(_X + np.nan),
    }


def _flip(content, path):
    damaged = bytearray(content)
    damaged[2000:2100] = bytes(100)
    path.write_bytes(damaged)


class _Attack:
    def __init__(self, marker):
        self._marker = str(marker)

    def __reduce__(self):
        return open, (self._marker, "w")


def _pickled(marker):
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "|O", "fortran_order": False, "shape": (1,)})
    return header.getvalue() + pickle.dumps(_Attack(marker))


def _npy(array):
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def _header(shape):
    text = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}".encode()
    return b"\x93NUMPY\x02\x00" + len(text).to_bytes(4, "little") + text + bytes(1000)


def _zeros(good, path):
    shape = (2_400_000_000 // (8 * 8 * 3 * 4), 8, 8, 3)
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f4", "fortran_order": False, "shape": shape})
    rewritten(good, path, drop=["x_train.npy"])
    with (
        zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive,
        archive.open("x_train.npy", "w", force_zip64=True) as member,
    ):
        member.write(header.getvalue())
        left = 4 * int(np.prod(shape, dtype=np.int64))
        while left:
            left -= member.write(bytes(min(left, 2**20)))


def _twice(good, path):
    rewritten(good, path)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("x_train.npy", _npy(_X))


def _encrypted(content, path):
    damaged = bytearray(content)
    damaged[damaged.find(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(damaged)


def _recipe_cases(marker):
    def setting(value):
        return f"stages:\n- prune:\n    sparsity: {value}\n".encode()

    return {
        "empty": b"",
        "blank lines": b"\n\n\n",
        "binary": bytes(range(256)) * 20,
        "latin-1": "stages:\n- prune: {sparsity: 0.5} # dünn\n".encode("latin-1"),
        "UTF-16": "stages:\n- prune\n".encode("utf-16"),
        "a zero byte": b"stages:\n- prune\x00\n",
        "a gigabyte": _gigabyte,
        "nested 20,000 deep": b"stages: " + b"[" * 20_000,
        "nested 300 deep by indentation": b"".join(b" " * depth + b"a:\n" for depth in range(300)),
        "a billion laughs": _laughs(),
        "a value that holds itself": b"stages: &s\n- *s\n",
        "an alias of nothing": b"stages:\n- prune: *nothing\n",
        "a key twice": b"stages:\n- prune:\n    sparsity: 0.5\n    sparsity: 0.9\n",
        "stages twice": b"stages:\n- prune\nstages:\n- cluster\n",
        "a tag that runs code": setting(f"!!python/object/apply:os.system ['touch {marker}']"),
        "an unknown tag": setting("!mine 0.5"),
        "an impossible date": setting("2001-99-99"),
        "an integer of 9,000 digits": setting("1" * 9000),
        "an integer that is none": setting('!!int ""'),
        "a value of 40,000 letters": setting("x" * 40_000),
        "a list as a key": b"stages:\n- ? [a]\n  : b\n",
        "a stage that does not exist": b"stages:\n- prone: {sparsity: 0.5}\n",
        "two documents": b"stages:\n- prune\n---\nstages:\n- cluster\n",
        "not a number": setting(".nan"),
        "an open bracket": b"stages: [{prune: {sparsity: 0.5}}",
    }


def _gigabyte(path):
    with path.open("wb") as file:
        file.truncate(2**30)


def _laughs():
    lines = ["stages:", "- prune:", "    a: &a0 [ha, ha, ha, ha, ha, ha, ha, ha, ha]"]
    lines += [f"    a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 10)]
    return "\n".join([*lines, "    sparsity: *a9", ""]).encode()
