"""`keras-mot train-quantized`: fine-tunes a saved model in integers, and writes the file."""

import argparse

from keras_mot._formats import DEFAULT, KERAS
from keras_mot.cli import _options
from keras_mot.cli._fine_tuned import compiled_files, prepare, result_of, train_and_write, with_compiled
from keras_mot.cli._result import Result
from keras_mot.cli._schemes import TRAINED, check_scheme, settings_of

_DESCRIPTION = """\
Fine-tunes a saved Keras model with weights and activations rounded as integers
round them (quantization-aware training), and writes a file that computes in
integers. For where `keras-mot quantize` costs accuracy."""

_EPILOG = """\
The data are the arrays x_train and y_train, and optionally x_test and y_test (or
x_val and y_val) to evaluate on. OUT is a file for LiteRT, verified in the runtime;
a .keras file beside it holds the quantized Keras model, which needs keras-mot.

example:
  keras-mot train-quantized model.keras --data data.npz --epochs 2 -o small.tflite"""


def add_parser(commands: argparse._SubParsersAction) -> None:
    """Adds the command to the parser."""
    parser = commands.add_parser(
        "train-quantized",
        help="fine-tune a saved model in integers",
        description=_DESCRIPTION,
        epilog=_EPILOG,
    )
    _options.add_model(parser)
    _options.add_data(parser, "arrays to train and evaluate on")
    _options.add_output(parser, "file to write, .tflite")
    parser.add_argument("--keras", action="store_true", help="write the quantized Keras model beside it")
    how = parser.add_argument_group("how it is quantized")
    how.add_argument("--scheme", choices=TRAINED, default="int8", help="(default: int8)")
    how.add_argument("--learned-scales", action="store_true", help="train the scales too; for activations of 8 bits")
    _options.add_blocks(how)
    _options.add_target(how)
    _options.add_calibration(how)
    _options.add_skip(how)
    _options.add_training(parser, epochs=1, learning_rate=1e-4)
    _options.add_integer_file(parser)
    parser.set_defaults(run=run, check=check)


def check(options: argparse.Namespace) -> None:
    """Finds what is wrong with the arguments, before a backend is loaded."""
    _options.check_expressions(options.skip)
    check_scheme(options)
    _options.check_inputs(options)
    _outputs(options)


def run(options: argparse.Namespace) -> Result:
    """Runs the command."""
    from keras_mot.recipes import QuantizeAware

    def stage_of(fine_tune):
        settings = settings_of(options)
        return QuantizeAware(**settings, learned_scales=options.learned_scales, fine_tune=fine_tune)

    outputs = _outputs(options)
    files = compiled_files(options, outputs)
    plan = prepare(options, outputs, stage_of)
    trained = train_and_write(
        plan,
        "training in integers",
        plan.stage.trained,
        measured_suffixes=(DEFAULT.suffix,),
        **plan.stage.export_options(),
    )
    return with_compiled(result_of(trained, [], "quantized", scheme=options.scheme), files)


def _outputs(options):
    return _options.output_paths(options, (DEFAULT.suffix,), KERAS if options.keras else None)
