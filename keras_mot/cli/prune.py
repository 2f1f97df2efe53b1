"""`keras-mot prune`: prunes a saved model while fine-tuning it, and writes the small one."""

import argparse
import contextlib
import dataclasses
import pathlib
import re
import tempfile

from keras_mot._files import naming, replacing
from keras_mot.cli._errors import UsageError, blamed_on_input
from keras_mot.cli._files import writable_file
from keras_mot.cli._models import load_model
from keras_mot.cli._result import Result

_DESCRIPTION = """\
Prunes a saved Keras model while fine-tuning it, and writes the small model. The sparsity rises over the first
three quarters of the training; the rest lets the remaining weights recover."""

_EPILOG = """\
The data are the arrays x_train and y_train, and optionally x_test and y_test (or x_val and y_val) to
evaluate on. OUT ending in .keras holds a plain Keras model, which loads without keras-mot; OUT ending in
.tflite a file for LiteRT, verified in the runtime."""


def add_parser(commands: argparse._SubParsersAction, common: argparse.ArgumentParser) -> None:
    """Adds the command to the parser."""
    parser = commands.add_parser(
        "prune",
        parents=[common],
        help="prune a saved model while fine-tuning it",
        description=_DESCRIPTION,
        epilog=_EPILOG,
    )
    parser.add_argument("model", metavar="MODEL.keras", help="the trained model")
    parser.add_argument("--data", metavar="FILE.npz", required=True, help="arrays to train and evaluate on")
    parser.add_argument("-o", "--output", metavar="OUT", required=True, help="file to write, .keras or .tflite")
    parser.add_argument("--tflite", action="store_true", help="write a .tflite file beside a .keras output too")
    how = parser.add_argument_group("what is pruned")
    how.add_argument("--sparsity", type=float, metavar="S", help="final fraction of zeros, in [0, 1), such as 0.9")
    how.add_argument("--initial-sparsity", type=float, metavar="S", help="fraction at the start (default: 0.5 or less)")
    pattern = how.add_mutually_exclusive_group()
    pattern.add_argument("--block", type=_block, metavar="RxC", help="prune blocks of inputs x outputs, such as 1x2")
    pattern.add_argument(
        "--n-m", type=_n_m, metavar="N:M", help="N zeros in every M inputs, such as 2:4; fixes the sparsity"
    )
    pattern.add_argument(
        "--channels",
        action="store_true",
        help="prune whole channels, but not those of the outputs, and cut them out at the end",
    )
    how.add_argument(
        "--scope",
        choices=["layer", "model"],
        default="layer",
        help="what is ranked together (default: layer)",
    )
    how.add_argument(
        "--skip",
        action="append",
        default=[],
        metavar="REGEX",
        help="leave layers alone whose path matches; may be repeated",
    )
    training = parser.add_argument_group("training")
    training.add_argument("--epochs", type=_positive(int), default=2, metavar="N", help="(default: 2)")
    training.add_argument("--batch-size", type=_positive(int), default=128, metavar="N", help="(default: 128)")
    training.add_argument(
        "--learning-rate", type=_positive(float), default=1e-3, metavar="R", help="of Adam (default: 0.001)"
    )
    training.add_argument(
        "--frequency",
        type=_positive(int),
        default=100,
        metavar="N",
        help="steps between updates (default: 100)",
    )
    training.add_argument(
        "--loss", metavar="NAME", help="a Keras loss (default: that of the saved model, else inferred)"
    )
    training.add_argument("--seed", type=int, default=0, metavar="N", help="(default: 0)")
    parser.set_defaults(run=run)


@dataclasses.dataclass(frozen=True)
class _Plan:
    """Everything that was checked before training."""

    model: object
    pruned: object
    data: object
    objective: object
    outputs: tuple[pathlib.Path, ...]


def run(options: argparse.Namespace) -> Result:
    """Runs the command."""
    plan = _check(options)
    return _work(options, plan)


def _check(options):
    """Finds whatever is wrong with the arguments, files and arrays, before any long work."""
    outputs = _outputs(options)
    _check_expressions(options.skip)
    schedule_arguments = _sparsities(options)
    from keras_mot.cli._data import check_against_model, load_data

    data = load_data(options.data)
    model = load_model(options.model, compile=True)

    import keras

    import keras_mot
    from keras_mot.recipes._objective import choose_objective
    from keras_mot.sparsity.channels import layers_before_outputs

    _check_plain(model, options.model)
    keras.utils.set_random_seed(options.seed)
    outputs_of_model = check_against_model(data, model)
    with blamed_on_input():
        objective = choose_objective(model, options.loss, data.y, outputs_of_model)
    steps = -(-len(data.x) // options.batch_size) * options.epochs
    with blamed_on_input(" On the command line: `--skip REGEX`."):
        skipped = [*options.skip, *(layers_before_outputs(model) if options.channels else ())]
        pruned = keras_mot.sparsity.prune_low_magnitude(
            model,
            _schedule(schedule_arguments, steps, options.frequency),
            granularity=keras_mot.sparsity.Channel() if options.channels else None,
            block_size=options.block or (1, 1),
            sparsity_m_by_n=options.n_m,
            scope=keras_mot.sparsity.WholeModel() if options.scope == "model" else None,
            overrides=dict.fromkeys(skipped),
        )
    return _Plan(model, pruned, data, objective, outputs)


def _outputs(options):
    path = writable_file(options.output, ".keras", ".tflite")
    model = pathlib.Path(options.model)
    if path.exists() and model.exists() and path.samefile(model):
        raise UsageError(f"The output '{path}' is the model itself: name another file.")
    paths = (path,)
    if path.suffix == ".keras" and options.tflite:
        paths = (path, writable_file(path.with_suffix(".tflite"), ".tflite"))
    if paths[-1].suffix == ".tflite":
        from keras_mot.export._dependencies import check_installed

        check_installed("tensorflow", "ai_edge_litert")
    return paths


def _check_expressions(expressions):
    for expression in expressions:
        try:
            re.compile(expression)
        except re.error as error:
            raise UsageError(f"`--skip {expression}` is not a regular expression: {error}.") from error


def _sparsities(options):
    """The initial and the final sparsity."""
    final = options.sparsity
    if options.n_m is not None:
        fixed = options.n_m[0] / options.n_m[1]
        if final is not None and abs(final - fixed) > 1e-9:
            raise UsageError(f"`--n-m` fixes the sparsity at {fixed:g}: leave `--sparsity {final:g}` out.")
        if options.initial_sparsity is not None:
            raise UsageError(f"`--n-m` fixes the sparsity at {fixed:g}: leave `--initial-sparsity` out.")
        return fixed, fixed
    if final is None:
        raise UsageError("Give the sparsity to reach, such as `--sparsity 0.9`, or a pattern, such as `--n-m 2:4`.")
    for name, value in (("--sparsity", final), ("--initial-sparsity", options.initial_sparsity)):
        if value is not None and not 0.0 <= value < 1.0:
            raise UsageError(
                f"`{name}` should be in [0, 1), the fraction of weights that become zero; received {value:g}."
            )
    initial = min(0.5, final) if options.initial_sparsity is None else options.initial_sparsity
    if initial > final:
        raise UsageError(f"`--initial-sparsity {initial:g}` should not be above `--sparsity {final:g}`.")
    return initial, final


def _schedule(sparsities, steps, frequency):
    from keras_mot.sparsity import PolynomialDecay

    return PolynomialDecay(*sparsities, begin_step=0, end_step=max(1, steps * 3 // 4), frequency=frequency)


def _check_plain(model, path):
    from keras_mot.layers import transformed_weights

    if not model.built:
        raise UsageError(f"The model in '{path}' is not built: call it once on data before saving it.")
    if transformed_weights(model):
        raise UsageError(
            f"The model in '{path}' was saved in the middle of pruning. Load it in Python and go on with "
            "`fit`, or make it final with `keras_mot.sparsity.strip_pruning`."
        )


def _work(options, plan):
    import keras

    import keras_mot
    from keras_mot._progress import say
    from keras_mot.cli._training import fit

    say(plan.objective.description)
    if plan.data.evaluation_name == "x_train":
        say("no 'x_test' and 'y_test' in the data: evaluating on the training data")
    subjects = {}
    # The outputs are put in place together, when all is done: a command that fails leaves none of them.
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="keras_mot_"))
        temporaries = [stack.enter_context(replacing(path)) for path in plan.outputs]
        exporting = plan.outputs[-1].suffix == ".tflite"
        if exporting:  # before the training, so that a model that cannot be exported costs none
            say("exporting the given model to LiteRT, to compare with")
            before = _export(plan.model, pathlib.Path(folder) / "before.tflite", plan.data)
        plan.pruned.compile(
            keras.optimizers.Adam(options.learning_rate),
            plan.objective.loss,
            loss_weights=plan.objective.loss_weights,
            metrics=plan.objective.fit_metrics,
        )
        arguments = {"epochs": options.epochs, "batch_size": options.batch_size}
        logs = fit(plan.pruned, plan.data.x, plan.data.y, "pruning", **arguments)
        report = keras_mot.sparsity.pruning_report(plan.pruned)
        small = keras_mot.sparsity.strip_pruning(plan.pruned)
        if options.channels:
            small = keras_mot.sparsity.remove_pruned_channels(small)
        for path, temporary in zip(plan.outputs, temporaries, strict=True):
            if path.suffix == ".keras":
                with naming(path):
                    small.save(temporary)
                subjects |= {"before (.keras)": plan.model, "after (.keras)": small}
            else:
                say("exporting the pruned model to LiteRT")
                with naming(path):
                    after = _export(small, temporary, plan.data)
                say(f"sparse encoding: {'yes' if after.sparse_encoding else 'no'}, {after.sparse_reason}")
                subjects |= {"before (.tflite)": before, "after (.tflite)": after}
        measured = keras_mot.analysis.measure(subjects, data=plan.data.evaluation, metric=plan.objective.metric)
    return _result(plan, measured, report, logs)


def _export(model, path, data):
    import keras_mot
    from keras_mot.cli._data import first_samples

    samples = first_samples(data.evaluation[0], model)
    return keras_mot.export.export_litert(model, path, verification_data=samples)


def _result(plan, measured, report, logs):
    left_alone = [{"path": path, "reason": reason} for path, reason in report.left_alone]
    data = {
        "files": [str(path) for path in plan.outputs],
        "loss": plan.objective.description.removeprefix("loss: "),
        "evaluated_on": plan.data.evaluation_name,
        "training": logs,
        "left_alone": left_alone,
        **measured.to_dict(),
    }
    for row in data["measurements"]:
        # Measured before they were put in place, so under other names.
        row["path"] = str(plan.outputs[-1]) if row["name"] == "after (.tflite)" else None
    written = f"Wrote {' and '.join(data['files'])}."
    unpruned = f"Not pruned: {', '.join(item['path'] for item in left_alone)}.\n" if left_alone else ""
    return Result(f"{measured}\n{unpruned}{written}", data)


def _positive(kind):
    def parse(text):
        value = kind(text)
        if not 0 < value < float("inf"):
            raise argparse.ArgumentTypeError(f"should be greater than 0; received {text}")
        return value

    parse.__name__ = "number" if kind is float else "integer"
    return parse


def _block(text):
    return _two_integers(text, "x", "two positive integers with an x between, such as 1x2")


def _n_m(text):
    n, m = _two_integers(text, ":", "two integers with a colon between, such as 2:4")
    if n >= m:
        raise argparse.ArgumentTypeError(f"N should be smaller than M, as in 2:4; received {text}")
    return n, m


def _two_integers(text, separator, expected):
    parts = text.lower().split(separator)
    if len(parts) != 2 or not all(part.isdecimal() and int(part) > 0 for part in parts):
        raise argparse.ArgumentTypeError(f"should be {expected}; received {text!r}")
    return int(parts[0]), int(parts[1])
