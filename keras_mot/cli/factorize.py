"""`keras-mot factorize`: makes kernels of a saved model products of smaller ones, and writes the small model."""

import argparse

from keras_mot.cli import _options
from keras_mot.cli._errors import UsageError
from keras_mot.cli._fine_tuned import prepare, result_of, train_and_write
from keras_mot.cli._result import Result

_DESCRIPTION = """\
Replaces the kernels of a saved Keras model by products of smaller ones, of low
rank, chosen by the outputs of each layer on the data; fine-tunes the model, and
writes it. A layer is replaced only where that saves parameters."""

_EPILOG = f"""\
{_options.PLAIN_OUTPUTS}

example:
  keras-mot factorize model.keras --data data.npz --parameters 0.25 -o small.keras"""


def add_parser(commands: argparse._SubParsersAction) -> None:
    """Adds the command to the parser."""
    parser = commands.add_parser(
        "factorize",
        help="make kernels of a saved model products of smaller ones",
        description=_DESCRIPTION,
        epilog=_EPILOG,
    )
    _options.add_model(parser)
    _options.add_data(parser, "arrays to approximate, train and evaluate on")
    _options.add_plain_outputs(parser)
    how = parser.add_argument_group("what is factorized")
    ranks = how.add_mutually_exclusive_group()
    ranks.add_argument(
        "--parameters", type=float, metavar="S", help="share of the kernels' parameters that stays (default: 0.5)"
    )
    ranks.add_argument("--energy", type=float, metavar="S", help="share of the energy of each layer's outputs")
    ranks.add_argument("--rank", type=_options.positive(int), metavar="N", help="one rank for all layers")
    how.add_argument(
        "--decomposition",
        choices=("output_channels", "input_channels", "spatial", "tucker"),
        help="of convolutions (default: what is best for each layer)",
    )
    how.add_argument(
        "--calibration-samples",
        type=_options.at_least(0),
        default=512,
        metavar="N",
        help="samples of x_train that outputs are approximated on; 0 approximates kernels (default: 512)",
    )
    _options.add_skip(how)
    training = _options.add_training(parser, epochs=1, learning_rate=1e-4)
    training.add_argument("--no-training", action="store_true", help="do not fine-tune")
    parser.set_defaults(run=run, check=check)


def check(options: argparse.Namespace) -> None:
    """Finds what is wrong with the arguments, before a backend is loaded."""
    _options.check_expressions(options.skip)
    if options.parameters is not None and not 0 < options.parameters < 1:
        raise UsageError(f"`--parameters` should be from above 0 to below 1; received {options.parameters:g}.")
    if options.energy is not None and not 0 < options.energy <= 1:
        raise UsageError(f"`--energy` should be from above 0 to 1; received {options.energy:g}.")
    _options.check_inputs(options)
    _options.plain_outputs(options)


def run(options: argparse.Namespace) -> Result:
    """Runs the command."""
    import dataclasses

    from keras_mot.recipes import Factorize

    plans = []

    def stage_of(fine_tune):
        return Factorize(
            *(options.parameters, options.energy, options.rank, options.decomposition, options.calibration_samples),
            skip=options.skip,
            fine_tune=None if options.no_training else fine_tune,
        )

    def change(stage, model, run):
        plans.append(stage.plan(model, run))
        if not plans[0].rows:
            reasons = "; ".join(f"{layer}: {reason}" for layer, reason in plans[0].skipped)
            raise ValueError(f"No layer of '{model.name}' is factorized. {reasons}.")
        return plans[0].build()

    plan = prepare(options, _options.plain_outputs(options), stage_of, change)
    trained = train_and_write(plan, "fine-tuning", lambda model: model)
    (chosen,) = plans
    result = result_of(trained, chosen.skipped, "factorized", factorized=[dataclasses.asdict(r) for r in chosen.rows])
    return Result(f"{chosen}\n\n{result.text}", result.data)
