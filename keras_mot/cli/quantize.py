"""`keras-mot quantize`: makes a saved model compute in integers without training, and writes the file."""

import argparse
import contextlib
import pathlib
import tempfile

from keras_mot._formats import DEFAULT, KERAS
from keras_mot.cli import _fine_tuned, _options
from keras_mot.cli._errors import UsageError, blamed_on_input
from keras_mot.cli._fine_tuned import StageRun, check_plain, say_what_it_is_measured_on, write_file
from keras_mot.cli._models import load_model
from keras_mot.cli._result import Result
from keras_mot.cli._schemes import DYNAMIC, TRAINED, WEIGHTS_ALONE, check_scheme, scheme_named, settings_of

_DESCRIPTION = """\
Quantizes a saved Keras model after training, without training it further, and
writes a file for LiteRT, verified in the runtime."""

_EPILOG = """\
schemes:
  int8            weights and activations of 8 bits
  int16x8         weights of 8 bits, activations of 16
  int4-weights    weights of 4 bits, activations of 8
  dynamic-int8    dense layers and embeddings with weights of 8 bits in a model
                  of floats; needs no data
  dynamic-int4    the same with weights of 4 bits, rounded by data if there are
  float16         weights of 16 bits; computes in floats, needs no data
  dynamic-range   large weights of 8 bits; computes in floats, needs no data

The data are the arrays x_train, on some of which ranges are calibrated, and
y_train, and optionally x_test and y_test (or x_val and y_val) to evaluate on.

example:
  keras-mot quantize model.keras --data data.npz --scheme int8 -o small.tflite"""

_NOT_OF_FLOATS = ("skip", "strict", "keras", "placement", "rounding", "per_tensor")


def add_parser(commands: argparse._SubParsersAction) -> None:
    """Adds the command to the parser."""
    parser = commands.add_parser(
        "quantize",
        help="quantize a saved model, without training",
        description=_DESCRIPTION,
        epilog=_EPILOG,
    )
    _options.add_model(parser)
    _options.add_data(parser, "arrays to calibrate and evaluate on", required=False)
    _options.add_output(parser, "file to write, .tflite")
    parser.add_argument("--keras", action="store_true", help="write the quantized Keras model beside it")
    how = parser.add_argument_group("how it is quantized")
    how.add_argument("--scheme", choices=(*TRAINED, *WEIGHTS_ALONE), default="int8", help="(default: int8)")
    _options.add_blocks(how)
    _options.add_target(how)
    _options.add_calibration(how)
    _options.add_skip(how)
    _options.add_seed(how)
    _options.add_integer_file(parser)
    _options.add_batch_size_of_file(parser)
    parser.set_defaults(run=run, check=check)


def check(options: argparse.Namespace) -> None:
    """Finds what is wrong with the arguments, before a backend is loaded."""
    _options.check_expressions(options.skip)
    if options.scheme in WEIGHTS_ALONE:
        _check_weights_alone(options)
    elif options.data is None and options.scheme not in DYNAMIC:
        raise UsageError(f"`--scheme {options.scheme}` needs `--data FILE.npz`, to calibrate on.")
    check_scheme(options)
    if options.data is None and options.rounding in ("gptq", "adaround"):
        raise UsageError(f"`--rounding {options.rounding}` needs `--data FILE.npz`, to round by.")
    _options.check_inputs(options)
    _outputs(options)


def _check_weights_alone(options):
    integers = [(f"--{name.replace('_', '-')}", getattr(options, name)) for name in _NOT_OF_FLOATS]
    types = [
        (f"--{side}-type", getattr(options, f"{side}_type") not in (None, "float32")) for side in ("input", "output")
    ]
    for name, given in (*integers, *types, ("--target", options.target != "litert")):
        if given:
            raise UsageError(f"`--scheme {options.scheme}` computes in floats: leave `{name}` out.")


def _outputs(options):
    return _options.output_paths(options, (DEFAULT.suffix,), KERAS if options.keras else None)


def run(options: argparse.Namespace) -> Result:
    """Runs the command."""
    from keras_mot.quantization import quantize_post_training
    from keras_mot.recipes import PostTraining, StoreWeights
    from keras_mot.recipes.training_data import TrainingData

    outputs = _outputs(options)
    DEFAULT.check_written()
    files = _fine_tuned.compiled_files(options, outputs)
    model, data = _loaded(options)
    if options.scheme in WEIGHTS_ALONE:
        stage = StoreWeights(scheme_named(options.scheme).weights)
        return _write(options, outputs, model, model, data, stage.export_options())
    with blamed_on_input(" On the command line: `--skip REGEX`."):
        stage = PostTraining(**settings_of(options))
        if data is None:
            quantized = quantize_post_training(model, stage.scheme(), overrides=dict.fromkeys(stage.skip))
        else:
            quantized = stage.apply(model, StageRun(TrainingData((data.x, data.y), None), options.seed))
    written = _write(options, outputs, model, quantized, data, stage.export_options())
    return _fine_tuned.with_compiled(written, files)


def _loaded(options):
    """The model, and the data, checked against it; `None` where there are none."""
    from keras_mot.cli._data import check_against_model, load_data

    data = None if options.data is None else load_data(options.data)
    model = load_model(options.model)
    check_plain(model, options.model)
    if data is not None:
        check_against_model(data, model)
    return model, data


def _write(options, outputs, model, quantized, data, arguments):
    from keras_mot._files import replacing
    from keras_mot._progress import say
    from keras_mot.export import in_floats

    with contextlib.ExitStack() as stack:
        folder = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="keras_mot_")))
        temporaries = {path.suffix: stack.enter_context(replacing(path)) for path in outputs}
        say("exporting to LiteRT")
        with blamed_on_input():
            after = write_file(quantized, temporaries[DEFAULT.suffix], data, batch_size=options.batch_size, **arguments)
            before = _before(model, folder / f"before{DEFAULT.suffix}", data)
        if KERAS in temporaries:
            quantized.save(temporaries[KERAS])
        measured = _measured(model, _fine_tuned.sides(DEFAULT.suffix, before, after), data)
    values = {
        "files": [str(path) for path in outputs],
        "scheme": options.scheme,
        "evaluated_on": None if data is None else data.evaluation_name,
        "float_operators": [
            {"operator": name, "result": result, "reason": reason} for name, result, reason in after.float_operators
        ],
        **measured.to_dict(),
    }
    _fine_tuned.put_in_place(values["measurements"], outputs)
    floats = "".join(f"In floats: {line}.\n" for line in in_floats.lines(after.float_operators))
    return Result(f"{measured}\n{floats}Wrote {' and '.join(values['files'])}.", values)


def _before(model, path, data):
    """The file in floats to compare with or, where there can be none, the model itself."""
    from keras_mot._progress import say

    try:
        return write_file(model, path, data)
    except ValueError as error:  # integers may be possible all the same: a table stands for a function without a kernel
        say(f"there is no file in floats to compare with, so the Keras model is: {error}")
        return model


def _measured(model, subjects, data):
    import keras_mot
    from keras_mot.cli._data import first_samples
    from keras_mot.recipes.objective import choose_objective

    if data is None:
        return keras_mot.analysis.measure(subjects)
    say_what_it_is_measured_on(data)
    with blamed_on_input():
        # The loss does not matter here: it is named so that none has to suit.
        outputs = model.predict_on_batch(first_samples(data.x, model))
        metric = choose_objective(model, "mean_squared_error", data.y, outputs).metric
    return keras_mot.analysis.measure(subjects, data=data.evaluation, metric=metric)
