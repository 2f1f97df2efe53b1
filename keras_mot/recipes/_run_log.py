"""`run.json`: what a run has finished, with the digests of its files; read without trusting it."""

import dataclasses
import hashlib
import json
import math
import pathlib
import stat
from typing import Any

from keras_mot._files import write_text
from keras_mot._formats import DEFAULT, KERAS
from keras_mot._numbers import is_whole
from keras_mot._version import __version__
from keras_mot.recipes.result import StageResult

NAME = "run.json"
_LARGEST = 64 * 2**20  # bytes; those of a recipe of five stages for a model of 1000 kernels are 500 KB
_BLOCK = 2**20


@dataclasses.dataclass(frozen=True)
class RunLog:
    """What a run has finished.

    Args:
        identity: dictionary of texts: what a run must have in common with one that it goes on with.
        names: of all stages of the recipe, "float" first.
        stages: the `StageResult`s of the first of them.
        digests: dictionary from the names of these stages' files to their SHA-256, in hexadecimal digits.
    """

    identity: dict[str, str]
    names: tuple[str, ...]
    stages: tuple[StageResult, ...]
    digests: dict[str, str]

    def write(self, folder: pathlib.Path) -> None:
        """Writes the file."""
        values = {
            "keras_mot": __version__,
            "identity": self.identity,
            "names": self.names,
            "stages": [stage.to_dict() for stage in self.stages],
            "sha256": self.digests,
        }
        write_text(folder / NAME, json.dumps(values, indent=2), owned=True)


def files_of(number: int, name: str) -> tuple[str, str]:
    """The names of a stage's checkpoint and file. Nothing that stands in a log leads anywhere else."""
    return f"{number:02d}-{name}{KERAS}", f"{number:02d}-{name}{DEFAULT.suffix}"


def read(folder: pathlib.Path) -> RunLog:
    """Reads the file.

    Raises:
        ValueError: if it is not what `RunLog.write` wrote; the message is what is wrong with it.
    """
    values = _json(folder / NAME)
    _expect(isinstance(values, dict), "it holds no object")
    if "sha256" not in values and "stages" in values:
        raise ValueError(
            f"it was written by keras-mot {str(values.get('keras_mot'))[:20]}, without digests of its files"
        )
    for key, kind in (("identity", dict), ("names", list), ("stages", list), ("sha256", dict)):
        _expect(isinstance(values.get(key), kind), f"'{key}' is missing or of another type")
    identity, names, digests = values["identity"], values["names"], values["sha256"]
    _expect(all(isinstance(value, str) for value in identity.values()), "'identity' holds something else than texts")
    _expect(all(isinstance(name, str) for name in names), "'names' holds something else than texts")
    _expect(len(values["stages"]) <= len(names), "it has more stages than names")
    stages = tuple(_stage(stage, number, names[number], folder) for number, stage in enumerate(values["stages"]))
    for stage in stages:
        for path in (stage.model_path, stage.artifact):
            _expect(isinstance(digests.get(path.name), str), f"the digest of '{path.name}' is missing")
    return RunLog(identity, tuple(names), stages, digests)


def digest(path: pathlib.Path) -> str:
    """The SHA-256 of a file, in hexadecimal digits."""
    state = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            state.update(block)
    return state.hexdigest()


def _json(path):
    status = path.stat()
    _expect(stat.S_ISREG(status.st_mode), "it is no regular file")
    _expect(status.st_size <= _LARGEST, f"it is of {status.st_size:,} bytes, more than any run writes")
    try:
        return json.loads(path.read_bytes())
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def _stage(values, number, name, folder):
    where = f"stage {number}"
    _expect(isinstance(values, dict), f"{where} is no object")
    values = {**_LATER, **values}
    fields = [field.name for field in dataclasses.fields(StageResult)]
    _expect(sorted(values) == sorted(fields), f"{where} has other fields than expected")
    for key, is_right in _FIELDS.items():
        _expect(is_right(values[key]), f"'{key}' of {where} is {str(values[key])[:50]!r}")
    checkpoint, file = files_of(number, name)
    file = checkpoint if values["artifact"] == checkpoint else file  # there may be none in floats
    for key, expected in (("name", name), ("model_path", checkpoint), ("artifact", file)):
        _expect(values[key] == expected, f"'{key}' of {where} is {str(values[key])[:50]!r}, not '{expected}'")
    operators = tuple(map(tuple, values["float_operators"]))
    paths = {"artifact": folder / file, "model_path": folder / checkpoint}
    return StageResult(**{**values, "float_operators": operators, **paths})


def _is_count(value: Any) -> bool:
    return is_whole(value) and 0 <= value < 2**63


def _is_number(value: Any) -> bool:
    return isinstance(value, float) or _is_count(value)  # a metric may well be infinite or no number


def _is_duration(value: Any) -> bool:
    return _is_number(value) and math.isfinite(value) and value >= 0


def _is_reasons(value: Any) -> bool:
    return isinstance(value, list | tuple) and all(
        isinstance(each, list | tuple) and len(each) == 3 and all(isinstance(part, str) for part in each)
        for each in value
    )


def _is_counts(value: Any) -> bool:
    return isinstance(value, dict) and all(map(_is_count, value.values()))


_FIELDS = {
    "keras_metric": _is_number,
    "metric": _is_number,
    "samples": _is_count,
    "bytes": _is_count,
    "zipped_bytes": _is_count,
    "sparsity": _is_number,
    "values": _is_count,
    "values_of_kernels": _is_counts,
    "latency_ms": lambda value: value is None or _is_duration(value),
    "seconds": _is_duration,
    "metrics": lambda value: isinstance(value, dict) and all(map(_is_number, value.values())),
    "collapsed": lambda value: isinstance(value, bool),
    "weights": lambda value: isinstance(value, str),
    "sparse_encoding": lambda value: isinstance(value, bool),
    "float_operators": _is_reasons,
    "brotli_bytes": lambda value: value is None or _is_count(value),
    "arena_bytes": lambda value: value is None or _is_count(value),
    "verification": lambda value: isinstance(value, str),
}
"""What the numbers of a stage must be; its names follow from its place."""
_LATER = {"float_operators": (), "brotli_bytes": None, "arena_bytes": None, "verification": ""}
"""What logs of earlier versions lack."""


def _expect(holds, otherwise):
    if not holds:
        raise ValueError(otherwise)
