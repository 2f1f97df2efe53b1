"""Compiled files for Ethos-U NPUs, beside the files that they are made from."""

import dataclasses
import os
import pathlib
import re
from collections.abc import Callable
from typing import Any

import keras

from keras_mot._files import writable_file, write_bytes
from keras_mot.export.dependencies import check_compiler
from keras_mot.export.litert.checks import SUFFIXES
from keras_mot.export.litert.ethos_u.estimate import EthosUEstimate, estimated
from keras_mot.export.litert.ethos_u.vela import Settings
from keras_mot.export.litert.integers.user_layers import UserLayers
from keras_mot.graph.functional import as_functional
from keras_mot.layers.activation_quantizer import activation_quantizers, is_quantized
from keras_mot.targets import Target

_TABLE = re.compile(r".*/([^/]+)_table_\d+(?:_\d+)?/[^/]*")
ENDING = "_vela"
"""What the names of compiled files end in, in front of their suffix."""


@dataclasses.dataclass(frozen=True)
class EthosUFile:
    """A compiled file.

    Attributes:
        path: of it.
        bytes: its size.
        estimate: the `EthosUEstimate`: what runs on the NPU, memory, cycles and time.
    """

    path: pathlib.Path
    bytes: int
    estimate: EthosUEstimate

    def to_dict(self) -> dict[str, Any]:
        """The file as a dictionary of JSON values."""
        return {"path": str(self.path), "bytes": self.bytes, "estimate": self.estimate.to_dict()}

    def __str__(self) -> str:
        return f"{self.path}: {self.bytes:,} bytes\n{self.estimate}"


def compile_ethos_u(
    path: str | os.PathLike,
    accelerator: str = "ethos-u55-128",
    *,
    output: str | os.PathLike | None = None,
    system_config: str | None = None,
    memory_mode: str | None = None,
    config: str | os.PathLike | None = None,
) -> EthosUFile:
    """Compiles an integer `.tflite` file for an Ethos-U NPU with Arm's Vela.

    The compiled file runs on a device with the NPU alone. It holds the same integers, so that what the file that it was
    made from computes is what it computes: measure that one.

    Args:
        path: of the `.tflite` file, such as one that was exported for the target "ethos-u".
        accelerator: the NPU and its multiplications in a cycle: "ethos-u55-32" to "ethos-u55-256", "ethos-u65-256",
            "ethos-u65-512", or "ethos-u85-128" to "ethos-u85-2048".
        output: path of the compiled file; by default, `NAME_vela.tflite` beside `path`.
        system_config: clock and bandwidths, by their name in Vela's configuration file; by default Vela's.
        memory_mode: which memory holds what, by its name there; by default Vela's.
        config: path of a configuration file of one's own.

    Returns:
        An `EthosUFile`.

    Raises:
        TypeError: an argument is of the wrong type.
        ValueError: the file is damaged or compiled already, no file can be written, an argument has a wrong value, or
            Vela fails at the file.
        ImportError: `ethos-u-vela` is not installed (the extra `ethos-u`).

    Example:

    ```python
    keras_mot.export.export_litert(quantized, "model.tflite")
    print(keras_mot.export.compile_ethos_u("model.tflite", accelerator="ethos-u85-256"))
    ```
    """
    settings = Settings(accelerator, system_config, memory_mode, config)
    check_compiler()
    source = existing_file(path)
    output = beside(source) if output is None else writable_file(output, SUFFIXES, "output")
    if output.exists() and output.samefile(source):
        raise ValueError(f"`output` is the file itself, '{output}': name another one.")
    return compiled_file(source, settings, output).write()


@dataclasses.dataclass(frozen=True)
class Unwritten:
    """The content of a compiled file, and the `EthosUFile` that it is once `write` has written it."""

    content: bytes
    file: EthosUFile

    def write(self) -> EthosUFile:
        """Writes it, whole or not at all."""
        write_bytes(self.file.path, self.content)
        return self.file


def compiled_file(
    source: Any, settings: Settings, output: pathlib.Path, layer_of: Callable[[str], str | None] = lambda label: None
) -> Unwritten:
    """Compiles a file, given as a path or its content, and writes nothing yet; arguments as of `estimated`."""
    estimate, compiled = estimated(source, settings, layer_of)
    return Unwritten(compiled.content, EthosUFile(output, len(compiled.content), estimate))


def compiled_for(target: Target, path: pathlib.Path, model: keras.Model) -> EthosUFile | None:
    """Compiles a file of a quantized model for the NPU of its target, beside it; `None` for targets without."""
    if target.accelerator is None:
        return None
    return compiled_file(path, Settings(target.accelerator), beside(path), layers_of(model)).write()


def beside(path: pathlib.Path) -> pathlib.Path:
    """The path of a file's compiled form, checked."""
    return writable_file(path.with_name(f"{path.stem}{ENDING}{path.suffix or SUFFIXES[0]}"), SUFFIXES)


def existing_file(path: Any) -> pathlib.Path:
    """A path as such; raises a ValueError if no file is there."""
    if not isinstance(path, str | os.PathLike):
        raise TypeError(f"Expected the path of a `.tflite` file; received {type(path).__name__}.")
    path = pathlib.Path(path)
    if not path.is_file():
        raise ValueError(f"Expected the path of a `.tflite` file; received '{path}', not a file.")
    return path


def layers_of(model: keras.Model) -> Callable[[str], str | None]:
    """A function from names of tensors in the file of a quantized model to the user's layers, or `None`."""
    if not is_quantized(model) or as_functional(model) is None:
        return lambda label: None
    layers, quantizers = UserLayers(model, (), ""), {each.name for each in activation_quantizers(model)}

    def layer_of(label):
        source = layers.of(_TABLE.sub(r"\1_quantizer", label))  # what a table stands in for is rounded by a quantizer
        if source is not None and source.name in quantizers:  # what it rounds comes from a layer
            source = layers.of(source.name)
        return None if source is None else source.name

    return layer_of
