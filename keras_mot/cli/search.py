"""`keras-mot search`: finds the recipe for a budget."""

import argparse

from keras_mot.cli._errors import FailedError, UsageError, blamed_on_input
from keras_mot.cli._models import load_model
from keras_mot.cli._options import at_least, by_output, check_inputs, positive, size, with_unit
from keras_mot.cli._result import Result

_DESCRIPTION = """\
Finds the recipe for a budget: the most accurate model of a size or latency, or
the smallest of an accuracy. Recipes are tried without training first; the
better ones are trained, for a short time, and the best of them in full. A
search that was stopped goes on when it is started again, also with another
budget, more trials or more time."""

_EPILOG = """\
The data are the arrays x_train and y_train, and x_val and y_val (or x_test and
y_test) that trials are compared on. DIR receives a folder for each trial, with
its recipe and report, the files of the trials that no other beats, and
search.json. The trials are an Optuna study, "keras-mot". It ends with 1 if no
trial keeps to the budget.

example:
  keras-mot search model.keras --data data.npz --zipped 40kB --drop 0.01 -o found"""

_SECONDS = {"s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "": 1.0}


def add_parser(commands: argparse._SubParsersAction) -> None:
    """Adds the command to the parser."""
    parser = commands.add_parser(
        "search",
        help="find the recipe for a budget of size, latency or accuracy",
        description=_DESCRIPTION,
        epilog=_EPILOG,
    )
    parser.add_argument("model", metavar="MODEL.keras", help="the trained model")
    parser.add_argument("--data", metavar="FILE.npz", required=True, help="arrays to train and compare on")
    parser.add_argument("-o", "--output", metavar="DIR", required=True, help="folder of the search")
    budget = parser.add_argument_group("budget: at least one; all that are given hold together")
    budget.add_argument("--bytes", type=size, metavar="N", help="of the file: 150000, 150kB, 0.5MB")
    budget.add_argument("--zipped", type=size, metavar="N", help="of a zip archive that holds the file")
    budget.add_argument("--latency-ms", type=positive(float), metavar="MS", help="of one sample on this machine")
    budget.add_argument(
        "--drop", type=_fall, metavar="D", help="how much the metric may fall; 0.01 is a point of accuracy"
    )
    how = parser.add_argument_group("what is tried")
    how.add_argument("--trials", type=positive(int), default=24, metavar="N", help="in all (default: 24)")
    how.add_argument("--time", type=_duration, metavar="T", help="that this call may take: 90s, 20m, 1.5h")
    how.add_argument(
        "--epochs", type=at_least(0), default=4, metavar="N", help="of a stage, in full (default: 4; 0: no training)"
    )
    how.add_argument("--learning-rate", type=positive(float), default=1e-3, metavar="R", help="(default: 0.001)")
    how.add_argument("--batch-size", type=positive(int), default=128, metavar="N", help="(default: 128)")
    how.add_argument("--families", metavar="NAMES", help="some of dense,pruned,low-rank-bits,... (default: all)")
    how.add_argument("--executor", choices=("local", "processes", "ray"), default="local", help="(default: local)")
    how.add_argument("--workers", type=positive(int), metavar="N", help="trials at once, with processes or ray")
    how.add_argument("--storage", metavar="URL", help="where Optuna keeps the trials (default: a file in DIR)")
    how.add_argument("--metric", metavar="NAME", action="append", help="as of `keras-mot compress`")
    how.add_argument("--loss", metavar="NAME", action="append", help="as of `keras-mot compress`")
    how.add_argument("--seed", type=int, default=0, metavar="N", help="(default: 0)")
    parser.set_defaults(run=run, check=check)


def _duration(text):
    value = with_unit(text, _SECONDS, "a time such as 90s, 20m or 1.5h")
    if not 0 < value < 2**31:
        raise argparse.ArgumentTypeError(f"a time above 0; received {text!r}")
    return value


def _fall(text):
    try:
        value = float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"a number such as 0.01; received {text!r}") from None
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"should be 0 or more; received {text}")
    return value


def check(options: argparse.Namespace) -> None:
    """Finds what is wrong with the arguments, before a backend is loaded."""
    if all(limit is None for limit in (options.bytes, options.zipped, options.latency_ms, options.drop)):
        raise UsageError("A budget is needed: one at least of --bytes, --zipped, --latency-ms and --drop.")
    if options.workers is not None and options.executor == "local":
        raise UsageError("`--workers` goes with `--executor processes` or `ray`: locally, one trial runs at a time.")
    check_inputs(options)


def run(options: argparse.Namespace) -> Result:
    """Runs the command."""
    from keras_mot.cli._data import check_names_and_shapes, load_data
    from keras_mot.recipes import Budget, FineTune, Processes, Ray, search

    metric, loss = by_output("--metric", options.metric), by_output("--loss", options.loss)
    data = load_data(options.data)
    model = load_model(options.model, compile=True)
    fine_tune = None
    if options.epochs:
        fine_tune = FineTune(options.epochs, options.learning_rate, schedule="cosine", batch_size=options.batch_size)
    with blamed_on_input():
        check_names_and_shapes(data, model)
        executor = options.executor
        if options.workers is not None:
            executor = {"processes": Processes, "ray": Ray}[executor](options.workers)
    try:
        with blamed_on_input():
            result = search(
                model,
                (data.x, data.y),
                None if data.evaluation_name == "x_train" else data.evaluation,
                budget=Budget(options.bytes, options.zipped, options.latency_ms, options.drop),
                output_dir=options.output,
                trials=options.trials,
                time_limit=options.time,
                fine_tune=fine_tune,
                families=options.families.split(",") if options.families else None,
                executor=executor,
                storage=options.storage,
                metric=metric,
                loss=loss,
                seed=options.seed,
            )
    except (FloatingPointError, RuntimeError) as error:
        raise FailedError(str(error)) from error
    return Result(f"{result}\nThe best file: {result.artifact}", result.to_dict(), 0 if result.met else 1)
