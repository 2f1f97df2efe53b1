"""What an export to a `.tflite` file has written."""

import dataclasses
import pathlib
from typing import Any

from keras_mot.export import in_floats
from keras_mot.export.litert.ethos_u.compiling import EthosUFile
from keras_mot.export.litert.micro.runner import MicroRunner
from keras_mot.export.litert.micro.weights.choice import CompressedWeight
from keras_mot.export.litert.runner import LiteRTRunner
from keras_mot.export.running import run_like_model
from keras_mot.targets import LITERT, get


@dataclasses.dataclass(frozen=True)
class LiteRTExport:
    """What an export wrote; an `Export`.

    Attributes:
        path: Path of the file.
        bytes: Size of the file.
        weights: Data type of the weights, "float32", "float16", "int8", "integer" for a quantized model, or
            "dynamic" for one with dynamic ranges.
        sparse_encoding: Whether zeros are stored compactly.
        sparse_reason: Why sparse encoding was used or not.
        max_abs_error: Largest absolute difference between the file's outputs and the Keras model's on the
            verification data, or None if it was not verified.
        verification: What was compared, on what, and how near it is, in words.
        batch_size: Batch size that the file takes, or None for any.
        batch_reason: Why the batch size is what it is.
        engine: The engine that converted.
        input_names: Names of the file's inputs in the order of the Keras model's.
        output_names: Names of the file's outputs in the order of the Keras model's.
        target: Name of the `keras_mot.targets.Target` that it is for.
        arena_bytes: Of a file for microcontrollers that was verified, the smallest arena that it runs in (measured with
            pointers of 64 bits; of that, `activation_bytes` are shared by activations and decoded weights), or None.
        activation_bytes: See `arena_bytes`.
        operators: Of a file for microcontrollers, the operators that the program on the device has to register.
        float_operators: Of a quantized model, the operators that still compute in floats: (operator, the layer of
            yours that it belongs to, reason) of each; of a model that was loaded, the layer of the quantized one. With
            dynamic ranges, the dense layers and embeddings that have floats for weights: (class, layer, reason).
        compressed_weights: Of a file for microcontrollers, the weights that TFLM decodes while it runs: name, method,
            bytes, and bytes of the dense weight, of each.
        compression_reason: Why no more weights are compressed.
        dense_bytes: Size that the file would have with dense weights.
        compiled: Of a file for an Ethos-U NPU, the `EthosUFile` that was compiled from it, with what Vela estimates.

    `structure`, an argument alone, is the structure in which `run` returns the outputs.
    """

    path: pathlib.Path
    bytes: int
    weights: str
    sparse_encoding: bool
    sparse_reason: str
    max_abs_error: float | None
    batch_size: int | None
    batch_reason: str
    engine: str
    input_names: tuple[str, ...]
    output_names: tuple[str, ...]
    float_operators: tuple[tuple[str, str, str], ...] = ()
    verification: str = ""
    target: str = LITERT.name
    arena_bytes: int | None = None
    activation_bytes: int | None = None
    operators: tuple[str, ...] = ()
    compressed_weights: tuple[CompressedWeight, ...] = ()
    compression_reason: str = "not asked for"
    dense_bytes: int | None = None
    compiled: EthosUFile | None = None
    structure: dataclasses.InitVar[Any] = None

    def __post_init__(self, structure):
        object.__setattr__(self, "_form", structure)

    @property
    def structure_of_outputs(self) -> Any:
        """The names of the outputs in the structure that the model returns, or None where that is not known."""
        return self._form

    def run(self, inputs: Any) -> Any:
        """The outputs of the file for a batch, computed by the LiteRT runtime, or TFLM for a file of that.

        Args:
            inputs: as the Keras model takes them, or a list in the order of `input_names`, or a dictionary of these
                names; the batch first. A file of a fixed batch size is run as often as the batch needs.

        Returns:
            NumPy arrays in the structure of the Keras model's outputs, integers as the floats they stand for.

        Raises:
            ValueError: the file is not there any more or another one, or the inputs do not fit it.
        """
        runs = MicroRunner if get(self.target).runtime == "micro" else LiteRTRunner
        runner = runs(self.path, input_names=self.input_names)
        return run_like_model(runner, inputs, self.output_names, self._form)

    def __str__(self) -> str:
        verified = "not verified" if self.max_abs_error is None else f"max error {self.max_abs_error:.3g}"
        verified = self.verification or verified
        batch = "any" if self.batch_size is None else str(self.batch_size)
        return (
            f"{self.path}: {self.bytes:,} bytes, {self.weights} weights, {verified}\n"
            f"  sparse encoding: {'yes' if self.sparse_encoding else 'no'} ({self.sparse_reason})\n"
            f"  batch size: {batch} ({self.batch_reason})\n"
            f"  engine: {self.engine}"
            + self._on_device()
            + "".join(f"\n  in floats: {line}" for line in in_floats.lines(self.float_operators))
        )

    def _on_device(self):
        if self.compiled is not None:
            lines = str(self.compiled).replace("\n", "\n    ")
            return f"\n  target: {self.target}; compiled: {lines}"
        if not self.operators:
            return ""
        memory = (
            "not measured"
            if self.arena_bytes is None
            else f"{self.arena_bytes:,} bytes, of which activations take {self.activation_bytes:,}"
        )
        lines = [f"target: {self.target}; arena: {memory}", f"operators: {', '.join(self.operators)}"]
        if self.compression_reason != "not asked for" and not self.compressed_weights:
            lines.append(f"compressed weights: none; {self.compression_reason}")
        if self.compressed_weights:
            lines.append(f"compressed weights: instead of {self.dense_bytes:,} bytes; {self.compression_reason}")
            lines += [
                f"  {each.name}: {each.method}, {each.bytes:,} bytes instead of {each.dense_bytes:,}"
                for each in self.compressed_weights
            ]
        return "".join(f"\n  {line}" for line in lines)
