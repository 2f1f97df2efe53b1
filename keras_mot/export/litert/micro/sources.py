"""A file for microcontrollers as sources in C++: the array that holds it, and a program that runs it."""

import dataclasses
import os
import pathlib
import re

import numpy as np

from keras_mot._files import replacing, writable_file, writable_folder
from keras_mot._messages import describe
from keras_mot.export.litert.litert_file import read_content
from keras_mot.export.litert.micro.runner import MicroRunner
from keras_mot.export.protocol import Export
from keras_mot.targets import LITERT, get

_IRREGULAR = {
    "BATCH_MATMUL": "BatchMatMul",
    "CUMSUM": "CumSum",
    "PADV2": "PadV2",
    "TFLM_DECODE": "Decode",
    "UNIDIRECTIONAL_SEQUENCE_LSTM": "UnidirectionalSequenceLSTM",
}
"""What TFLM's resolver calls operators whose names do not follow the rule."""
_PER_LINE = 12

_HEADER = """\
// {title}
#ifndef {guard}
#define {guard}

extern const unsigned char {name}_tflite[];
extern const unsigned int {name}_tflite_bytes;

#endif  // {guard}
"""

_SOURCE = """\
// {title}
#include "{name}.h"

alignas(16) const unsigned char {name}_tflite[] = {{
{values}
}};
const unsigned int {name}_tflite_bytes = {size};
"""

_PROGRAM = """\
// Runs {name} once: {size:,} bytes, in an arena of {arena:,}.
#include <cstddef>
#include <cstdint>

#include "{name}.h"
#include "tensorflow/lite/micro/micro_interpreter.h"
#include "tensorflow/lite/micro/micro_log.h"
#include "tensorflow/lite/micro/micro_mutable_op_resolver.h"
#include "tensorflow/lite/micro/system_setup.h"
#include "tensorflow/lite/schema/schema_generated.h"

namespace {{

// Measured with pointers of 64 bits; where they have 32, the interpreter takes less: see arena_used_bytes().
constexpr size_t kArenaBytes = {arena};
alignas(16) uint8_t arena[kArenaBytes];

using Resolver = tflite::MicroMutableOpResolver<{count}>;

TfLiteStatus AddOperators(Resolver& resolver) {{
{operators}
  return kTfLiteOk;
}}

}}  // namespace

int main() {{
  tflite::InitializeTarget();
  const tflite::Model* model = tflite::GetModel({name}_tflite);
  if (model->version() != TFLITE_SCHEMA_VERSION) {{
    MicroPrintf("the file has another version");
    return 1;
  }}
  Resolver resolver;
  if (AddOperators(resolver) != kTfLiteOk) return 1;
  tflite::MicroInterpreter interpreter(model, resolver, arena, kArenaBytes);
  if (interpreter.AllocateTensors() != kTfLiteOk) return 1;
  MicroPrintf("arena: %u bytes", static_cast<unsigned>(interpreter.arena_used_bytes()));

{inputs}
  if (interpreter.Invoke() != kTfLiteOk) return 1;

{outputs}
  return 0;
}}
"""

_INPUT = """\
  // {described}
  TfLiteTensor* input{place} = interpreter.input({place});
  for (size_t i = 0; i < input{place}->bytes; ++i) input{place}->data.uint8[i] = 0;  // a sample goes here
"""

_OUTPUT = """\
  // {described}
  TfLiteTensor* output{place} = interpreter.output({place});
  for (size_t i = 0; i < output{place}->bytes; ++i) MicroPrintf("%d", output{place}->data.int8[i]);
"""


@dataclasses.dataclass(frozen=True)
class MicroSources:
    """What was written.

    Attributes:
        header: path of the header.
        source: path of the file with the array.
        program: path of a program that runs it.
        operators: the operators that the program adds to its resolver.
        arena_bytes: the arena of the program, measured.
    """

    header: pathlib.Path
    source: pathlib.Path
    program: pathlib.Path
    operators: tuple[str, ...]
    arena_bytes: int

    def __str__(self) -> str:
        return (
            f"{self.source}, {self.header.name} and {self.program.name}: arena of {self.arena_bytes:,} bytes, "
            f"{len(self.operators)} operators"
        )


def write_micro_sources(
    file: Export | str | os.PathLike | bytes, folder: str | os.PathLike, name: str = "model"
) -> MicroSources:
    """Writes a file for microcontrollers as C++: `NAME.h` and `NAME.cc` with an array, and `NAME_main.cc` that runs it.

    The program makes the resolver with the operators that the file has, and an arena as large as it takes, which is
    measured in TFLM's interpreter here. It is to be built with the sources of LiteRT for Microcontrollers.

    Args:
        file: what `export_litert` returned, or the path or the content of a `.tflite` file.
        folder: where the sources go; it is made where it is missing.
        name: what the names of the files begin with, and that of the array, `NAME_tflite`.

    Returns:
        `MicroSources`.

    Raises:
        TypeError: an argument is of the wrong type.
        ValueError: `name` cannot begin a name in C, the export is for another target, the file is damaged, does not
            run in TFLM, or has an operator that TFLM's resolver does not know by name; or the folder cannot be written
            to.
        ImportError: `tflite-micro` is not installed.

    Example:

        exported = keras_mot.export.export_litert(for_device, "device.tflite", compress_weights="auto")
        print(keras_mot.export.write_micro_sources(exported, "firmware", "keywords"))
    """
    _check_name(name)
    if isinstance(file, Export) and get(getattr(file, "target", LITERT.name)).runtime != "micro":
        raise ValueError(
            f"'{file.path}' is not made for microcontrollers: quantize the model with `target='micro'`, and export "
            "that. Of a file from elsewhere, give the path."
        )
    content, label = read_content(file.path if isinstance(file, Export) else file)
    runner = MicroRunner(content)
    values = {"name": name, "size": len(content), "title": f"{name}: {len(content):,} bytes for TFLM."}
    values |= {"guard": f"{name.upper()}_H_", "arena": runner.arena_bytes, "count": len(runner.operators)}
    values["operators"] = "\n".join(
        f"  TF_LITE_ENSURE_STATUS(resolver.{_method(each, label)}());" for each in runner.operators
    )
    values["values"] = _array(content)
    for side, tensors, template in (("inputs", runner.inputs, _INPUT), ("outputs", runner.outputs, _OUTPUT)):
        texts = (template.format(place=place, described=_described(each)) for place, each in enumerate(tensors))
        values[side] = "\n".join(texts)
    folder = writable_folder(folder)
    texts = {f"{name}.h": _HEADER, f"{name}.cc": _SOURCE, f"{name}_main.cc": _PROGRAM}
    paths = [writable_file(folder / each, (pathlib.Path(each).suffix,)) for each in texts]
    for path, template in zip(paths, texts.values(), strict=True):
        with replacing(path) as temporary:
            temporary.write_text(template.format_map(values), encoding="ascii")
    return MicroSources(*paths, runner.operators, runner.arena_bytes)


def _check_name(name):
    if not isinstance(name, str):
        raise TypeError(f"`name` must be a string. Received: {describe(name)}.")
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]*", name):
        raise ValueError(f"`name` must be a letter, and letters, digits and '_' behind it. Received: {describe(name)}.")


def _method(operator, label):
    """The method of TFLM's resolver that adds an operator."""
    if operator != operator.upper() or (operator.startswith("TFLM_") and operator not in _IRREGULAR):
        raise ValueError(f"{label} has the operator '{operator}', which TFLM's resolver does not know by name.")
    parts = (part if part[0].isdigit() else part.capitalize() for part in operator.split("_"))
    return "Add" + _IRREGULAR.get(operator, "".join(parts))


def _array(content):
    numbers = [f"0x{value:02x}," for value in range(256)]
    texts = [numbers[value] for value in np.frombuffer(content, "uint8").tolist()]
    return "\n".join("  " + " ".join(texts[at : at + _PER_LINE]) for at in range(0, len(texts), _PER_LINE))


def _described(tensor):
    shape = "x".join(map(str, tensor.shape)) or "scalar"
    scale, zero_point = tensor.quantization
    meaning = f", q stands for (q - {zero_point}) * {scale!r}".replace("- -", "+ ") if scale else ""
    name = tensor.name.encode("ascii", "replace").decode().replace("\n", " ").replace("\\", "/")
    return f"'{name}': {tensor.dtype}, {shape}{meaning}"
