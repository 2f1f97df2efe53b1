"""Export to LiteRT (`.tflite`), the runtime formerly called TensorFlow Lite."""

import contextlib
import dataclasses
import os
from typing import Any, Literal

import keras
import numpy as np

from keras_mot._files import write_bytes
from keras_mot._messages import describe, shortened
from keras_mot.data.typical_samples import remembered
from keras_mot.export.dependencies import check_compiler, check_installed, check_runtime
from keras_mot.export.litert import checks
from keras_mot.export.litert.dynamic.engine import DynamicEngine
from keras_mot.export.litert.engines.conversion import ConversionRequest
from keras_mot.export.litert.engines.in_child import convert_in_child
from keras_mot.export.litert.engines.in_process import convert_in_process
from keras_mot.export.litert.engines.tensor_order import in_model_order
from keras_mot.export.litert.ethos_u.compiling import beside, compiled_file, layers_of
from keras_mot.export.litert.ethos_u.vela import Settings
from keras_mot.export.litert.integers.engine import IntegerEngine
from keras_mot.export.litert.integers.operators import operators_of
from keras_mot.export.litert.judging import RULES, exactly
from keras_mot.export.litert.litert_file import parse_model
from keras_mot.export.litert.micro.runner import MicroRunner
from keras_mot.export.litert.micro.verification import MicroVerifier
from keras_mot.export.litert.micro.weights.choice import MicroFile
from keras_mot.export.litert.micro.weights.choice import choose as choose_weights
from keras_mot.export.litert.precision import check_precision, full_precision
from keras_mot.export.litert.random_inputs import fitting_inputs, positive
from keras_mot.export.litert.result import LiteRTExport
from keras_mot.export.litert.signature import check_inputs, read_signature
from keras_mot.export.litert.sparse.choice import choose, is_worth_trying
from keras_mot.export.litert.verification import ExportVerificationError, Verifier
from keras_mot.graph.functional import as_functional
from keras_mot.graph.output_kinds import outputs_are_probabilities
from keras_mot.layers.activation_quantizer import in_input_ranges, is_quantized
from keras_mot.layers.dynamic_quantizer import is_dynamic
from keras_mot.quantization.simulation.placement import quantizer_of
from keras_mot.quantization.simulation.sources import hand_on_sources
from keras_mot.quantization.simulation.trained_batch_norm import fold_trained_batch_norm
from keras_mot.targets import LITERT, Target, get, target_of

# An engine takes a model, its signature and a `ConversionRequest`, and returns a `Conversion`.
_ENGINES = {"tensorflow": convert_in_process, "tensorflow-subprocess": convert_in_child}
_VERIFICATION_SAMPLES = 3


def export_litert(
    model: keras.Model,
    path: str | os.PathLike,
    *,
    weights: Any = "float32",
    sparse_encoding: Literal["auto"] | bool = "auto",
    batch_size: int | None = None,
    input_signature: Any = None,
    verify: bool = True,
    verification_data: Any = None,
    tolerance: float | None = None,
    input_type: Literal["float32", "int8", "uint8", "int16"] | None = None,
    output_type: Literal["float32", "int8", "uint8", "int16"] | None = None,
    strict: bool = False,
    target: Target | str | None = None,
    compress_weights: Literal["auto", False] = False,
    arena_limit: int | None = None,
    compiled: bool = True,
) -> LiteRTExport:
    """Exports a Keras model to a `.tflite` file and proves it by running it in the LiteRT runtime.

    Works on every Keras backend. On TensorFlow it converts in this process; on JAX and PyTorch it saves the
    model and converts it in a child process under TensorFlow, for which custom layers must be registered
    with Keras in a module that can be imported. The file uses LiteRT's own operators only.

    The file appears complete or not at all: a failed export leaves an older file at `path` as it was.

    Sparse encoding stores only the values that are not zero. The file becomes smaller without compression;
    the runtime expands the weights when it loads them, so it makes nothing faster by itself. It works with
    float32 and float16 weights alike. "auto" uses it where the file becomes smaller, runs in the runtime,
    agrees with the model, and is not of a shape for which XNNPACK's sparse inference on Arm may give wrong
    outputs.

    A quantized model (of `keras_mot.quantization`) becomes a file that computes in integers, with the scales that
    the model simulates; it needs no data. Batch normalization that it trains is folded, as by `freeze_batch_norm`.
    What the runtime has no integer kernel for stays in floats, is listed in the result, and is an error with
    `strict=True`.

    A model with dynamic ranges (`keras_mot.quantization.DYNAMIC_INT4`) becomes a file of floats whose dense layers and
    embeddings hold the very integers of the model, in kernels that round each row of their inputs as the model does.

    A model that is quantized for microcontrollers (`target="micro"`) becomes a file of batch size 1 that takes and
    returns int8. It is proved in TFLM's own interpreter, of the package `tflite-micro`: the result says which share of
    the outputs is equal to the model's (as it computes within `keras_mot.quantization.reference_rounding`), which
    tensor is the first that differs if not all are, and how large an arena the file needs.

    A model that is quantized for an Ethos-U NPU (`target="ethos-u"` or "ethos-u85") becomes such a file, too. It is
    proved in LiteRT, and compiled by Arm's Vela, of the package `ethos-u-vela`, to a second file beside it,
    `NAME_vela.tflite`. That one runs on devices alone; it holds the same integers.

    Args:
        model: A built Keras model without weight transforms (strip a pruned model first), or a quantized one.
        path: Path of the file to write, `.tflite`; its directory must exist. Suffixes of other formats are refused, and
            so is whatever is no regular file. Of a symbolic link, the target is written.
        weights: "float32"; "float16" for weights of half the size that are computed with in float32; or "int8" for
            large weights of a quarter of the size beside float activations (dynamic range quantization: LiteRT's
            converter rounds them, and its kernels round activations as they run, by ranges that they measure). The
            schemes `keras_mot.quantization.FLOAT16` and `DYNAMIC_RANGE` stand for the last two.
        sparse_encoding: "auto", True (insist: an error where it cannot be done safely) or False.
        batch_size: Batch size of the file. None, the default, keeps it open where the converter can; models
            with recurrent layers fall back to 1, and the result says so.
        input_signature: The input structure of a subclassed model whose inputs are not known or are not of
            its input dtype: a `keras.InputSpec(shape=..., dtype=...)` or a list or dictionary of them.
        verify: Whether to run the file and compare it with the model. Defaults to True.
        verification_data: Inputs to verify on, in the model's input structure, the batch first. Defaults to some of
            the samples that a quantized model was calibrated on, while it is in memory; else to three random ones:
            standard normal for floats (for a quantized model within the ranges of its inputs; positive where the model
            gives no finite results otherwise), numbers of an embedding where one reads them, 0 and 1 for other
            integers. Sizes that the model leaves open become 16, or another power of two up to 512 that it gives
            results for.
        tolerance: Largest accepted error of any value of an output, relative to the output's largest magnitude. By
            default nearly all values have to agree, and what is left may be noise of a small part of the output's
            variance; single values may differ more, as those do that are rounded another way. It finds broken files,
            not lost accuracy.
        input_type: Of a quantized model, the type of the file's inputs: "float32", or an integer type to be given
            numbers as the first quantizer rounds them. By default, what the target takes: int8 on microcontrollers,
            else floats.
        output_type: The same for its outputs.
        strict: Whether a quantized model must compute in integers throughout; with dynamic ranges, whether all dense
            layers and embeddings must have integers for weights.
        target: The target that a quantized model was made for, where that shall be checked; by default it is what the
            model says.
        compress_weights: Of a model for microcontrollers, "auto" to store each kernel as a look-up table and indices
            (clustered ones), as a Huffman code, or as a bit mask and what is not zero (pruned ones), whichever is the
            smallest, where that saves 5 % of it or more. TFLM decodes it in the arena whenever its layer computes;
            LiteRT cannot run the file. The outputs are the same to the last bit. Defaults to False.
        arena_limit: Of a model for microcontrollers, the most bytes that its arena may have: kernels stay dense until
            it fits. Measured with pointers of 64 bits. Defaults to None, any number.
        compiled: Of a target with an NPU, whether the compiled file is written, too.

    Returns:
        A `LiteRTExport`.

    Raises:
        TypeError: An argument is of the wrong type.
        ValueError: An argument has a wrong value, no file can be written at `path`, the model cannot be exported
            (not built, transforms not stripped, weights not finite, an operation that LiteRT or the target lacks),
            it was made for another target, `sparse_encoding=True` cannot be fulfilled, or the arena would be larger
            than `arena_limit` with dense weights already.
        ExportVerificationError: The file does not compute what the model computes.
        ImportError: TensorFlow or ai-edge-litert is not installed, or, to verify a file for microcontrollers or to
            measure its arena, tflite-micro, or, to compile one, ethos-u-vela.

    Example:

        result = keras_mot.export.export_litert(model, "model.tflite", weights="float16")
        print(result)
    """
    weights = getattr(weights, "weights", weights)
    checks.check_options(weights, sparse_encoding, batch_size, verify, tolerance, compiled)
    path = checks.check_path(path)
    checks.check_model(model)
    check_precision(model)
    target = _target(model, target)
    checks.check_micro_options(target, compress_weights, arena_limit)
    types = tuple(target.file_type if kind is None else kind for kind in (input_type, output_type))
    integers = _check_integers(model, weights, sparse_encoding, *types)
    check_installed("tensorflow", "ai_edge_litert")
    on_micro = target.runtime == "micro"
    npu = _npu(target, path) if compiled and integers else None
    if verify or arena_limit is not None:
        check_runtime(target, compiled)
    given, typical = model, remembered(model)
    model = fold_trained_batch_norm(model)
    hand_on_sources(given, model)
    with full_precision(model):
        signature = read_signature(model, input_signature)
        batch_sizes = _plan_batch_sizes(signature, batch_size, target)
        data, others, source = None, None, ""
        if verify:
            data, others, source = verification_inputs(model, signature, verification_data, typical, batch_size)
        dynamic = is_dynamic(model)
        kind = "dynamic" if dynamic else "integer" if integers else weights
        rule = RULES[kind] if tolerance is None else exactly(tolerance)
        squashed = outputs_are_probabilities(model) if tolerance is None else None
        proves = MicroVerifier if on_micro and verify else Verifier
        verifier = proves(model, signature, data, rule, batch_size, output_steps(model), others, squashed)
        engine = "tensorflow" if keras.backend.backend() == "tensorflow" else "tensorflow-subprocess"
        request = ConversionRequest(
            weights=weights,
            batch_sizes=batch_sizes,
            dense=sparse_encoding is not True,
            sparse=sparse_encoding is True
            or (sparse_encoding == "auto" and kind not in ("int8", "integer", "dynamic") and is_worth_trying(model)),
            marked=integers,
        )
        convert = _ENGINES[engine]
        if integers:
            convert = DynamicEngine(convert, strict) if dynamic else IntegerEngine(convert, *types, strict)
            sparse_encoding = False
        conversion, choice = _convert_and_choose(convert, model, signature, request, sparse_encoding, verifier)
    made = None if npu is None else compiled_file(choice.content, *npu, layers_of(model))
    file = MicroFile(choice.content)
    if compress_weights or arena_limit is not None:
        file = choose_weights(choice.content, bool(compress_weights), arena_limit, _arena_of, given.name)
        if file.weights and verify:
            verifier.check_same(file.content)
    write_bytes(path, file.content)
    if made is not None:
        made.write()
    return LiteRTExport(
        path=path,
        bytes=len(file.content),
        weights=kind,
        sparse_encoding=choice.sparse,
        sparse_reason=choice.reason,
        max_abs_error=choice.error,
        batch_size=conversion.batch_size,
        batch_reason=_batch_reason(signature, batch_size, conversion),
        engine=engine,
        input_names=tuple(tensor.name for tensor in signature.inputs),
        output_names=conversion.output_names,
        float_operators=convert.floats if integers else (),
        verification=verifier.report.describe(source),
        target=target.name,
        arena_bytes=getattr(verifier, "arena_bytes", None),
        activation_bytes=getattr(verifier, "activation_bytes", None),
        operators=operators_of(parse_model(file.content)) if on_micro else (),
        compressed_weights=file.weights,
        compression_reason=file.reason or "not asked for",
        dense_bytes=len(choice.content),
        compiled=None if made is None else made.file,
        structure=_structure(model, conversion.output_names),
    )


def _arena_of(content):
    return MicroRunner(content).arena_bytes


def _target(model, asked):
    """The target of a quantized model, `LITERT` for others; raises a ValueError if another one was asked for."""
    own = target_of(model) if is_quantized(model) else LITERT
    if asked is not None and get(asked) != own:
        made = f"was quantized for the target '{own.name}'" if is_quantized(model) else "is not quantized"
        raise ValueError(
            f"'{model.name}' {made}, and cannot be exported for '{get(asked).name}': quantize the float model with "
            f"`target='{get(asked).name}'`."
        )
    return own


def _npu(target, path):
    """What Vela compiles for, and where to, or `None` for targets without an NPU."""
    if target.accelerator is None:
        return None
    check_compiler()
    return Settings(target.accelerator), beside(path)


def _structure(model, names):
    """The names of the outputs in the structure that the model returns; `None` where that is not known."""
    structure = getattr(model, "output", None) if getattr(model, "inputs", None) else None
    if structure is None or len(keras.tree.flatten(structure)) != len(names):
        return None
    return keras.tree.pack_sequence_as(structure, list(names))


def _check_integers(model, weights, sparse_encoding, input_type, output_type):
    """Whether the model is a quantized one; raises a ValueError for options that do not go together."""
    for name, value in (("input_type", input_type), ("output_type", output_type)):
        if value not in ("float32", "int8", "uint8", "int16"):
            raise ValueError(f"`{name}` must be 'float32', 'int8', 'uint8' or 'int16'. Received: {describe(value)}.")
    quantized = is_quantized(model)
    if sparse_encoding is True and (quantized or weights == "int8"):
        raise ValueError("`sparse_encoding=True` is for float weights: runtimes refuse sparse integer weights.")
    if quantized and is_dynamic(model) and (input_type, output_type) != ("float32", "float32"):
        raise ValueError(
            "A model with dynamic ranges takes and returns floats: leave `input_type` and `output_type` at 'float32'."
        )
    if quantized:
        checks.check_ranges(model)
        if weights != "float32":
            raise ValueError("A quantized model has integer weights: leave `weights` at its default.")
        return True
    if (input_type, output_type) != ("float32", "float32"):
        raise ValueError("`input_type` and `output_type` are for quantized models; this one computes in floats.")
    return False


def _converted(engine, model, signature, request):
    """The conversion of an engine, with the inputs and outputs of its files in the order of the model's."""
    conversion = engine(model, signature, request)
    inputs, outputs = [tensor.name for tensor in signature.inputs], conversion.output_names
    files = {name: getattr(conversion, name) for name in ("dense", "sparse")}
    files = {name: in_model_order(content, inputs, outputs) for name, content in files.items() if content is not None}
    return dataclasses.replace(conversion, **files)


def _convert_and_choose(engine, model, signature, request, sparse_encoding, verifier):
    conversion = _converted(engine, model, signature, request)
    try:
        return conversion, choose(conversion, sparse_encoding, verifier.named(conversion.output_names))
    except (ValueError, ExportVerificationError) as error:
        # A graph may convert with an open batch dimension and yet have the batch size 1 built in somewhere.
        if conversion.batch_size is not None or len(request.batch_sizes) == 1:
            raise
        failure = str(error)
    request = dataclasses.replace(request, batch_sizes=request.batch_sizes[1:])
    conversion = dataclasses.replace(_converted(engine, model, signature, request), open_failure=failure)
    return conversion, choose(conversion, sparse_encoding, verifier.named(conversion.output_names))


def _plan_batch_sizes(signature, batch_size, target):
    """Batch sizes to try, in order."""
    fixed = signature.fixed_batch_size
    if fixed is not None and batch_size not in (None, fixed):
        raise ValueError(
            f"The model prescribes a batch size of {fixed}. Expected: batch_size={fixed} or None. Received: "
            f"{batch_size}. Build the model with an open batch dimension to choose another."
        )
    one_at_a_time = target.runtime == "micro" or target.accelerator is not None
    if one_at_a_time and (fixed or batch_size or 1) != 1:
        raise ValueError(
            f"Target '{target.name}' takes one sample at a time: `batch_size` should be 1 or None; received "
            f"{fixed or batch_size}."
        )
    if fixed is not None or batch_size is not None:
        return (fixed or batch_size,)
    return (None, 1) if target.open_batch else (1,)


def _batch_reason(signature, asked, conversion):
    if signature.fixed_batch_size is not None:
        return "the model prescribes it"
    if asked is not None:
        return "as asked for"
    if conversion.batch_size is None:
        return "the batch dimension is open"
    if not conversion.open_failure:
        return "the target takes no open batch dimension"
    failure = shortened(conversion.open_failure, 300)
    return f"an open batch dimension, which recurrent layers usually do not take, fails: {failure}"


def verification_inputs(model, signature, data, typical, batch_size):
    """Flat arrays to verify on, others if the model is not finite on these (or `None`), and what they are in words."""
    if data is not None:
        return check_inputs(signature, signature.flatten(data)), None, "of your samples"
    if typical is not None:
        with contextlib.suppress(ValueError):
            return _of_batches(signature, check_inputs(signature, signature.flatten(typical)), batch_size)
    count = signature.fixed_batch_size or batch_size or _VERIFICATION_SAMPLES
    arrays = fitting_inputs(model, signature, count)
    return in_input_ranges(model, arrays), positive(arrays), "random samples"


def _of_batches(signature, arrays, batch_size):
    """As many of the calibration samples as make full batches."""
    size = signature.fixed_batch_size or batch_size or 1
    count = max(len(arrays[0]) // size, 1) * size
    chosen = np.arange(count) % len(arrays[0])
    return [array[chosen] for array in arrays], None, "samples of the calibration data"


def output_steps(model):
    """The distance of two numbers of each output of a quantized model, 0 where it is not rounded; `None` for others."""
    if not is_quantized(model) or is_dynamic(model) or as_functional(model) is None:
        return None
    quantizers = [quantizer_of(tensor) for tensor in as_functional(model).outputs]
    return [0.0 if quantizer is None else float(quantizer.parameters().scale) for quantizer in quantizers]
