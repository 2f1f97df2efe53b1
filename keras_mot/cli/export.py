"""`keras-mot export`: writes a saved model as a file for LiteRT, or for ONNX runtimes."""

import argparse
import dataclasses
import pathlib
import re

from keras_mot._formats import DEFAULT, format_of_name, suffixes
from keras_mot.cli import _options
from keras_mot.cli._errors import UsageError, blamed_on_input
from keras_mot.cli._models import load_model
from keras_mot.cli._result import Result

_DESCRIPTION = """\
Writes a saved Keras model as a file for LiteRT, or as ONNX if OUT ends in .onnx,
runs it in the runtime, and compares its outputs with the model's. A quantized
model becomes a file that computes in integers."""

_EPILOG = """\
With `--data` the two are compared on samples of the data, else on random ones.

example:
  keras-mot export model.keras --weights float16 -o model.tflite"""

_SUFFIXES = suffixes()
_SPARSE = {"auto": "auto", "yes": True, "no": False}


def add_parser(commands: argparse._SubParsersAction) -> None:
    """Adds the command to the parser."""
    parser = commands.add_parser(
        "export",
        help="write a saved model as a .tflite or .onnx file",
        description=_DESCRIPTION,
        epilog=_EPILOG,
    )
    _options.add_model(parser)
    _options.add_output(parser, "file to write, .tflite or .onnx")
    _options.add_data(parser, "arrays to compare on", required=False)
    parser.add_argument(
        "--weights",
        choices=("float32", "float16", "int8"),
        default="float32",
        help="how a float model's weights are stored (default: float32)",
    )
    parser.add_argument(
        "--sparse",
        choices=_SPARSE,
        default="auto",
        help="store only what is not zero: where it is safe and smaller (auto, the default), always, or never",
    )
    _options.add_batch_size_of_file(parser)
    _options.add_integer_file(parser)
    _add_micro(parser)
    parser.set_defaults(run=run, check=check)


def _add_micro(parser):
    group = parser.add_argument_group("files for microcontrollers")
    group.add_argument(
        "--compress-weights",
        choices=("auto", "no"),
        default="no",
        help="store kernels as look-up tables, Huffman codes or bit masks, which TFLM decodes (default: no)",
    )
    group.add_argument(
        "--arena-limit",
        type=_options.size,
        metavar="N",
        help="most bytes of the arena, in which decoded kernels stand, too: 145000, 145kB (default: any)",
    )
    group.add_argument(
        "--c-sources", metavar="FOLDER", help="write the file as a C array there too, with a program that runs it"
    )


def check(options: argparse.Namespace) -> None:
    """Finds what is wrong with the arguments, before a backend is loaded."""
    _options.check_inputs(options)
    (path,) = _options.output_paths(options, _SUFFIXES)
    _check_folder(options.c_sources)
    if path.suffix != DEFAULT.suffix:
        types = (f"--{side}-type" for side in ("input", "output") if getattr(options, f"{side}_type") is not None)
        others = ("--weights",) * (options.weights != "float32") + ("--sparse",) * (options.sparse != "auto")
        micro = ("--compress-weights",) * (options.compress_weights != "no")
        micro += ("--arena-limit",) * (options.arena_limit is not None)
        micro += ("--c-sources",) * (options.c_sources is not None)
        for name in (*types, *others, *micro):
            raise UsageError(f"`{name}` is for `{DEFAULT.suffix}` files: leave it out.")


def _check_folder(path):
    """Refuses a folder that cannot be made, without making it."""
    folder = None if path is None else pathlib.Path(path)
    if folder is not None and folder.exists() and not folder.is_dir():
        raise UsageError(f"`--c-sources {path}` is a file; expected a folder.")
    if folder is not None and not folder.parent.is_dir():
        raise UsageError(f"The folder '{folder.parent}' of `--c-sources {path}` does not exist: create it first.")


def run(options: argparse.Namespace) -> Result:
    """Runs the command."""
    (path,) = _options.output_paths(options, _SUFFIXES)
    format = format_of_name(path)
    format.check_written()
    if options.c_sources is not None:
        from keras_mot.export.dependencies import check_installed

        check_installed("tflite_micro", purpose="sources for microcontrollers")
    samples, model = _loaded(options)
    if options.c_sources is not None:
        _check_target(model)
    arguments = {"batch_size": options.batch_size, "verification_data": samples}
    if format is DEFAULT:
        arguments |= {"weights": options.weights, "sparse_encoding": _SPARSE[options.sparse]}
        arguments |= _options.of_integer_file(options)
        arguments["compress_weights"] = "auto" if options.compress_weights == "auto" else False
        arguments["arena_limit"] = options.arena_limit
    else:
        arguments["strict"] = options.strict
    with blamed_on_input():
        exported = format.functions.export(model, path, **arguments)
        values, texts = {**dataclasses.asdict(exported), "path": str(path)}, [str(exported)]
        if options.c_sources is not None:
            sources = _write_sources(options, exported)
            texts.append(str(sources))
            values["sources"] = [str(each) for each in (sources.header, sources.source, sources.program)]
    compiled = getattr(exported, "compiled", None)
    if compiled is not None:
        values["compiled"] = compiled.to_dict()
    return Result("\n".join(texts), values)


def _check_target(model):
    """Refuses a model whose file could not run where the sources are for."""
    from keras_mot.layers.activation_quantizer import is_quantized
    from keras_mot.targets import target_of

    if not is_quantized(model) or target_of(model).runtime != "micro":
        raise UsageError("`--c-sources` is for microcontrollers: quantize the model with `--target micro`.")


def _write_sources(options, exported):
    from keras_mot.export import write_micro_sources

    return write_micro_sources(exported, options.c_sources, _c_name(exported.path.stem))


def _c_name(text):
    """A name in C that is like the name of a file."""
    name = re.sub(r"\W", "_", text, flags=re.ASCII)
    return name if name[:1].isalpha() else f"model_{name}"


def _loaded(options):
    """Samples to compare on, or `None`, and the model."""
    from keras_mot.cli._data import check_against_model, first_samples, load_data

    data = None if options.data is None else load_data(options.data)
    model = load_model(options.model)
    if data is None:
        return None, model
    check_against_model(data, model)
    return first_samples(data.evaluation[0], model), model
