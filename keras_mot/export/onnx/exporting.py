"""Export to ONNX (`.onnx`)."""

import dataclasses
import os
import pathlib
import tempfile
from typing import Any

import keras

from keras_mot._files import writable_file, write_bytes
from keras_mot._messages import describe
from keras_mot.data.naming import unique_names
from keras_mot.data.typical_samples import remembered
from keras_mot.export import in_floats
from keras_mot.export.dependencies import check_installed
from keras_mot.export.litert import checks
from keras_mot.export.litert.exporting import export_litert, output_steps, verification_inputs
from keras_mot.export.litert.judging import RULES, exactly
from keras_mot.export.litert.precision import full_precision
from keras_mot.export.litert.signature import check_inputs, read_signature
from keras_mot.export.litert.verification import Verifier
from keras_mot.export.onnx.conversion import to_onnx
from keras_mot.export.onnx.openvino_runner import OpenVINORunner
from keras_mot.export.onnx.runner import OnnxRunner
from keras_mot.export.running import run_like_model
from keras_mot.graph.output_kinds import outputs_are_probabilities
from keras_mot.layers.activation_quantizer import is_quantized
from keras_mot.layers.dynamic_quantizer import is_dynamic
from keras_mot.quantization.simulation.sources import hand_on_sources
from keras_mot.quantization.simulation.trained_batch_norm import fold_trained_batch_norm

SUFFIXES = (".onnx",)
RUNTIMES = {"onnxruntime": OnnxRunner, "openvino": OpenVINORunner}
"""The runners that prove a file, by their packages."""


@dataclasses.dataclass(frozen=True)
class OnnxExport:
    """What an export wrote; an `Export`.

    Attributes:
        path: path of the file.
        bytes: size of the file.
        weights: "float32", or "integer" for a quantized model.
        max_abs_error: largest absolute difference between the file's outputs and the Keras model's on the verification
            data, or None if it was not verified.
        verification: what was compared, on what, and how near it is, in words.
        batch_size: batch size that the file takes, or None for any.
        input_names: names of the file's inputs in the order of the Keras model's.
        output_names: names of the file's outputs in the order of the Keras model's; one that is called like an input
            there has a number behind its name, as ONNX wants it.
        float_operators: of a quantized model, what is in floats: (operator, layer, reason) of each.
        runtime: what the file was proved in, and what `run` runs it in: "onnxruntime" or "openvino".

    `structure`, an argument alone, is the structure in which `run` returns the outputs.
    """

    path: pathlib.Path
    bytes: int
    weights: str
    max_abs_error: float | None
    verification: str
    batch_size: int | None
    input_names: tuple[str, ...]
    output_names: tuple[str, ...]
    float_operators: tuple[tuple[str, str, str], ...] = ()
    structure: dataclasses.InitVar[Any] = None
    runtime: str = "onnxruntime"

    def __post_init__(self, structure):
        object.__setattr__(self, "_form", structure)

    def run(self, inputs: Any) -> Any:
        """The outputs of the file for a batch, computed by `runtime`.

        Args:
            inputs: as the Keras model takes them, or a list in the order of `input_names`, or a dictionary of these
                names; the batch first.

        Returns:
            NumPy arrays in the structure of the Keras model's outputs.

        Raises:
            ValueError: the file is not there any more or another one, or the inputs do not fit it.
        """
        runner = RUNTIMES[self.runtime](self.path, input_names=self.input_names)
        return run_like_model(runner, inputs, self.output_names, self._form)

    def __str__(self) -> str:
        batch = "any" if self.batch_size is None else str(self.batch_size)
        return (
            f"{self.path}: {self.bytes:,} bytes, {self.weights} weights, {self.verification}\n"
            f"  batch size: {batch}; runtime: {self.runtime}"
            + "".join(f"\n  in floats: {line}" for line in in_floats.lines(self.float_operators))
        )


class _OnnxVerifier(Verifier):
    """A `Verifier` that runs files in ONNX Runtime, or in another runtime of `RUNTIMES`."""

    runner = OnnxRunner

    def _load(self, content):
        self.runner(content)

    def _received(self, content):
        return self.runner(content, input_names=self._input_names).run(self._arrays)

    def _is_exact(self, content, output_names):
        return False


def export_onnx(
    model: keras.Model,
    path: str | os.PathLike,
    *,
    batch_size: int | None = None,
    input_signature: Any = None,
    verify: bool = True,
    verification_data: Any = None,
    tolerance: float | None = None,
    strict: bool = False,
    runtime: str = "onnxruntime",
) -> OnnxExport:
    """Exports a Keras model to an `.onnx` file and proves it by running it in ONNX Runtime, or in OpenVINO.

    A quantized model (of `keras_mot.quantization`) becomes a file with QuantizeLinear and DequantizeLinear around each
    operator, with the very scales, zero points and integers that the model simulates and `export_litert` writes:
    weights of 8 bits with a scale for each channel, biases of 32 bits, activations of 8 bits without a sign (by 128
    more, as ONNX Runtime's kernels take them). Other models become files in floats. Inputs and outputs are floats.

    Works on every Keras backend; it goes through the converter of LiteRT, as `export_litert` does, and needs
    TensorFlow. Images have their channels last outside, as in the Keras model.

    The file appears complete or not at all: a failed export leaves an older file at `path` as it was.

    Args:
        model: a built Keras model without weight transforms, or a quantized one.
        path: path of the file to write, `.onnx`; its directory must exist.
        batch_size: batch size of the file; by default open where it can be, see `export_litert`.
        input_signature: as in `export_litert`.
        verify: whether to run the file and compare it with the model.
        verification_data: as in `export_litert`.
        tolerance: as in `export_litert`.
        strict: whether a quantized model must compute in integers throughout.
        runtime: what the file is proved in: "onnxruntime", or "openvino" (the extra `openvino`).

    Returns:
        An `OnnxExport`.

    Raises:
        TypeError: an argument is of the wrong type.
        ValueError: an argument has a wrong value, no file can be written at `path`, or the model cannot be exported;
            operators without a translation are named.
        ExportVerificationError: the file does not compute what the model computes.
        ImportError: TensorFlow, ai-edge-litert, onnx or, to verify, the runtime is not installed.

    Example:

        result = keras_mot.export.export_onnx(quantized, "model.onnx")
        print(result)
    """
    checks.check_options("float32", False, batch_size, verify, tolerance)
    if not isinstance(runtime, str) or runtime not in RUNTIMES:
        raise ValueError(f"`runtime` must be one of {', '.join(RUNTIMES)}. Received: {describe(runtime)}.")
    path = writable_file(path, SUFFIXES)
    checks.check_model(model)
    if is_dynamic(model):
        raise ValueError(
            f"'{model.name}' has dynamic ranges, which are exported to LiteRT alone: use `export_litert`, or quantize "
            "the float model with `INT8` for ONNX."
        )
    check_installed("tensorflow", "ai_edge_litert", "onnx", *((runtime,) if verify else ()), purpose="ONNX files")
    if verify and verification_data is not None:
        with full_precision(model):
            signature = read_signature(model, input_signature)
            check_inputs(signature, signature.flatten(verification_data))
    with tempfile.TemporaryDirectory(prefix="keras_mot_") as folder:
        exported = export_litert(
            model,
            pathlib.Path(folder) / "model.tflite",
            sparse_encoding=False,
            batch_size=batch_size,
            input_signature=input_signature,
            verify=False,
            input_type="float32",
            output_type="float32",
            strict=strict,
        )
        litert = exported.path.read_bytes()
    output_names = _output_names(exported)
    content = to_onnx(litert, exported.input_names, output_names, model.name)
    verifier = _verifier(model, exported, verify, verification_data, tolerance, input_signature)
    verifier.runner = RUNTIMES[runtime]
    error = verifier.named(tuple(output_names.values()))(content, must_load=verify)
    write_bytes(path, content)
    return OnnxExport(
        path=path,
        bytes=len(content),
        weights=exported.weights,
        max_abs_error=error,
        verification=verifier.report.describe(verifier.source),
        batch_size=exported.batch_size,
        input_names=exported.input_names,
        output_names=tuple(output_names.values()),
        float_operators=exported.float_operators,
        structure=exported.structure_of_outputs,
        runtime=runtime,
    )


def _output_names(exported):
    """By the names of outputs in LiteRT, those in ONNX, where none is called like an input."""
    taken = unique_names([*exported.input_names, *exported.output_names])
    return dict(zip(exported.output_names, taken[len(exported.input_names) :], strict=True))


def _verifier(model, exported, verify, data, tolerance, input_signature):
    typical, given = remembered(model), model
    model = fold_trained_batch_norm(model)
    hand_on_sources(given, model)
    with full_precision(model):
        signature = read_signature(model, input_signature)
        arrays, others, source = None, None, ""
        if verify:
            arrays, others, source = verification_inputs(model, signature, data, typical, exported.batch_size)
        rule = RULES["integer" if is_quantized(model) else "float32"] if tolerance is None else exactly(tolerance)
        squashed = outputs_are_probabilities(model) if tolerance is None else None
        steps = output_steps(model)
        verifier = _OnnxVerifier(model, signature, arrays, rule, exported.batch_size, steps, others, squashed)
    verifier.source = source
    return verifier
