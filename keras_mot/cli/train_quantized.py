"""`keras-mot train-quantized`: fine-tunes a saved model in integers, and writes the file."""

import argparse

from keras_mot._formats import DEFAULT, KERAS
from keras_mot.cli import _options
from keras_mot.cli._fine_tuned import prepare, result_of, train_and_write
from keras_mot.cli._result import Result
from keras_mot.cli._schemes import TRAINED, scheme_named

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


def add_parser(commands: argparse._SubParsersAction, common: argparse.ArgumentParser) -> None:
    """Adds the command to the parser."""
    parser = commands.add_parser(
        "train-quantized",
        parents=[common],
        help="fine-tune a saved model in integers",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    _options.add_model(parser)
    _options.add_data(parser, "arrays to train and evaluate on")
    _options.add_output(parser, "file to write, .tflite")
    parser.add_argument("--keras", action="store_true", help="write the quantized Keras model beside it")
    how = parser.add_argument_group("how it is quantized")
    how.add_argument("--scheme", choices=TRAINED, default="int8", help="(default: int8)")
    how.add_argument("--learned-scales", action="store_true", help="train the scales too; for activations of 8 bits")
    _options.add_calibration(how)
    _options.add_skip(how)
    _options.add_training(parser, epochs=1, learning_rate=1e-4)
    _options.add_integer_file(parser)
    parser.set_defaults(run=run, check=check)


def check(options: argparse.Namespace) -> None:
    """Finds what is wrong with the arguments, before a backend is loaded."""
    _options.check_expressions(options.skip)
    _options.check_inputs(options)
    _outputs(options)


def run(options: argparse.Namespace) -> Result:
    """Runs the command."""
    import keras_mot
    from keras_mot.cli._schemes import calibration_samples

    def change(model, data, steps):
        return keras_mot.quantization.quantize_model(
            model,
            scheme_named(options.scheme, options.learned_scales),
            calibration_data=calibration_samples(data.x, options.calibration_samples, options.seed),
            overrides=dict.fromkeys(options.skip),
        )

    plan = prepare(options, _outputs(options), change)
    trained = train_and_write(
        options,
        plan,
        "training in integers",
        lambda quantized: quantized,
        measured_suffixes=(DEFAULT.suffix,),
        **_options.of_integer_file(options),
    )
    return result_of(trained, [], "quantized", scheme=options.scheme)


def _outputs(options):
    return _options.output_paths(options, (DEFAULT.suffix,), KERAS if options.keras else None)
