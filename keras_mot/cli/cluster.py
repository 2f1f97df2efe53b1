"""`keras-mot cluster`: gives the weights of a saved model few different values, and writes it."""

import argparse

from keras_mot.cli import _options
from keras_mot.cli._fine_tuned import prepare, result_of, train_and_write
from keras_mot.cli._result import Result

_DESCRIPTION = """\
Clusters the weights of a saved Keras model, so that each weight tensor has few
different values, fine-tunes it, and writes it. Such files are smaller zipped."""

_EPILOG = f"""\
{_options.PLAIN_OUTPUTS}

example:
  keras-mot cluster model.keras --data data.npz --clusters 16 -o small.keras"""


def add_parser(commands: argparse._SubParsersAction) -> None:
    """Adds the command to the parser."""
    parser = commands.add_parser(
        "cluster",
        help="give the weights of a saved model few different values",
        description=_DESCRIPTION,
        epilog=_EPILOG,
    )
    _options.add_model(parser)
    _options.add_data(parser, "arrays to train and evaluate on")
    _options.add_plain_outputs(parser)
    how = parser.add_argument_group("what is clustered")
    how.add_argument(
        "--clusters", type=_options.at_least(2), default=16, metavar="N", help="values of a weight (default: 16)"
    )
    how.add_argument("--per-channel", action="store_true", help="as many values for each output channel")
    how.add_argument("--preserve-sparsity", action="store_true", help="keep the zeros of a pruned model")
    _options.add_skip(how)
    _options.add_include_depthwise(how)
    training = _options.add_training(parser, epochs=1, learning_rate=1e-4)
    training.add_argument(
        "--frequency",
        type=_options.at_least(1),
        default=10,
        metavar="N",
        help="steps between assignments of weights to values (default: 10)",
    )
    parser.set_defaults(run=run, check=check)


def check(options: argparse.Namespace) -> None:
    """Finds what is wrong with the arguments, before a backend is loaded."""
    _options.check_expressions(options.skip)
    _options.check_inputs(options)
    _options.plain_outputs(options)


def run(options: argparse.Namespace) -> Result:
    """Runs the command."""
    import keras_mot
    from keras_mot.recipes import Cluster

    def stage_of(fine_tune):
        return Cluster(
            options.clusters,
            options.per_channel,
            options.preserve_sparsity,
            frequency=options.frequency,
            skip=options.skip,
            fine_tune=fine_tune,
            include_depthwise=options.include_depthwise or None,
        )

    plan = prepare(options, _options.plain_outputs(options), stage_of)
    trained = train_and_write(plan, "clustering", keras_mot.clustering.strip_clustering)
    report = keras_mot.clustering.clustering_report(plan.changed)
    clustered = [{"path": row.path, "unique_values": row.unique_values} for row in report.clustered]
    return result_of(trained, report.left_alone, "clustered", clustered=clustered)
