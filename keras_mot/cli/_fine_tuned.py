"""What the commands that train share: `factorize`, `prune`, `cluster` and `train-quantized`.

Whatever can be wrong is found by `prepare`; `train_and_write` then does the long work.
"""

import contextlib
import dataclasses
import pathlib
import tempfile
from collections.abc import Callable
from typing import Any

from keras_mot._formats import DEFAULT, KERAS, format_of_name
from keras_mot._tables import wrapped
from keras_mot.cli._errors import UsageError, blamed_on_input
from keras_mot.cli._models import load_model
from keras_mot.cli._result import Result


@dataclasses.dataclass(frozen=True)
class Plan:
    """Everything that was checked before training.

    Attributes:
        model: the given model.
        stage: the `Stage` of recipes that the command runs.
        changed: the model to train, as the stage makes it.
        data: the `Data`.
        training: the `TrainingData` of it.
        objective: the `Objective`.
        outputs: paths to write.
    """

    model: Any
    stage: Any
    changed: Any
    data: Any
    training: Any
    objective: Any
    outputs: tuple[pathlib.Path, ...]


@dataclasses.dataclass(frozen=True)
class Trained:
    """What came of it: a `Report` with the models before and after, and the logs of the last epoch."""

    plan: Plan
    measured: Any
    logs: dict[str, float]


@dataclasses.dataclass(frozen=True)
class StageRun:
    """What a stage is told of a run, of that of a command; see `keras_mot.recipes.Stage.apply`."""

    data: Any
    seed: int
    quantizes: bool = False
    progress: bool | None = None
    rehearsing: bool = False

    def steps(self, fine_tune):
        """Training steps."""
        return self.data.steps(fine_tune.batch_size) * fine_tune.epochs

    def labelled(self, samples):
        """Nothing: ranges are chosen without labels."""

    def calibration(self, samples):
        """So many of the samples, drawn at random: data are often sorted by class."""
        return self.data.calibration(samples, self.seed)


def prepare(options, outputs, stage_of: Callable[[Any], Any], change=None) -> Plan:
    """Loads model and data, checks that they fit each other, and changes the model.

    Args:
        options: those of the command.
        outputs: paths to write.
        stage_of: function from a `FineTune` to the `Stage` of recipes that the command runs.
        change: function of (stage, model, run) that returns the model to train; by default the stage's `apply`.
    """
    import keras

    from keras_mot.cli._data import check_against_model, load_data
    from keras_mot.graph.agreement import unjudged
    from keras_mot.recipes import FineTune
    from keras_mot.recipes.objective import choose_objective
    from keras_mot.recipes.training_data import TrainingData

    for format in filter(None, map(format_of_name, outputs)):
        format.check_written()
    data = load_data(options.data)
    model = load_model(options.model, compile=True)
    check_plain(model, options.model)
    keras.utils.set_random_seed(options.seed)
    outputs_of_model = check_against_model(data, model)
    with blamed_on_input():
        objective = choose_objective(model, options.loss, data.y, outputs_of_model)
        training = TrainingData((data.x, data.y), None)
        stage = stage_of(FineTune(options.epochs, options.learning_rate, batch_size=options.batch_size))
    with blamed_on_input(" On the command line: `--skip REGEX`."):
        run = StageRun(training, options.seed)
        with unjudged(bool(stage.fine_tune)):
            changed = stage.apply(model, run) if change is None else change(stage, model, run)
    return Plan(model, stage, changed, data, training, objective, outputs)


def check_plain(model, path):
    """Refuses a model that has no weights yet, or is in the middle of something."""
    from keras_mot.layers import transformed_weights
    from keras_mot.layers.activation_quantizer import is_quantized

    if not model.built:
        raise UsageError(f"The model in '{path}' is not built: call it once on data before saving it.")
    if is_quantized(model):
        raise UsageError(f"The model in '{path}' is quantized already: give the float model.")
    if transformed_weights(model):
        raise UsageError(
            f"The model in '{path}' was saved in the middle of pruning or clustering. Load it in Python and go on with "
            "`fit`, or make it final with `keras_mot.sparsity.strip_pruning` or "
            "`keras_mot.clustering.strip_clustering`."
        )


def train_and_write(
    plan: Plan,
    activity: str,
    finish: Callable[[Any], Any],
    measured_suffixes=(KERAS, DEFAULT.suffix),
    **export,
) -> Trained:
    """Trains the changed model, writes it, and measures it beside the given one.

    Args:
        plan: what `prepare` returned.
        activity: what the progress is called, such as "pruning".
        finish: function from the trained model to the one that is written.
        measured_suffixes: which of the outputs are measured.
        **export: arguments of the exporter for the file of the changed model.
    """
    import keras_mot
    from keras_mot._files import naming, replacing
    from keras_mot._progress import say
    from keras_mot.cli._training import trained

    say(plan.objective.description)
    say_what_it_is_measured_on(plan.data)
    subjects = {}
    # The outputs are put in place together, when all is done: a command that fails leaves none of them.
    with contextlib.ExitStack() as stack:
        folder = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="keras_mot_")))
        temporaries = [stack.enter_context(replacing(path)) for path in plan.outputs]
        before = None
        if any(map(format_of_name, plan.outputs)):
            # Before the training, so that a model that cannot be exported costs none.
            say(f"exporting the given model to {DEFAULT.runtime}, to compare with")
            before = write_file(plan.model, folder / f"before{DEFAULT.suffix}", plan.data)
        settings, logs = plan.stage.fine_tune, {}
        if settings is not None:
            logs = trained(plan.changed, settings, plan.training, plan.objective, activity)
        final = finish(plan.changed)
        for path, temporary in zip(plan.outputs, temporaries, strict=True):
            if path.suffix == KERAS:
                with naming(path):
                    final.save(temporary)
                pair = sides(KERAS, plan.model, final)
            else:
                say(f"exporting the new model to {DEFAULT.runtime}")
                with naming(path):
                    after = write_file(final, temporary, plan.data, **export)
                say(f"sparse encoding: {'yes' if after.sparse_encoding else 'no'}, {after.sparse_reason}")
                pair = sides(DEFAULT.suffix, before, after)
            if path.suffix in measured_suffixes:
                subjects |= pair
        measured = keras_mot.analysis.measure(subjects, data=plan.data.evaluation, metric=plan.objective.metric)
    return Trained(plan, measured, logs)


def say_what_it_is_measured_on(data):
    """Says so, where there is nothing else than the training data to measure on."""
    from keras_mot._progress import say

    if data.evaluation_name == "x_train":
        say("no 'x_test' and 'y_test' in the data: evaluating on the training data")


def sides(suffix, before, after):
    """Both by their names in reports."""
    return {f"before ({suffix})": before, f"after ({suffix})": after}


def put_in_place(rows, outputs):
    """Names in reports the files that were measured before they were put in place, and so under other names."""
    written = {f"after ({path.suffix})": str(path) for path in outputs if path.suffix != KERAS}
    for row in rows:
        row["path"] = written.get(row["name"])


def write_file(model, path, data, **arguments):
    """Exports a model, verified on samples of the data, or on random ones where there are none."""
    import keras_mot  # noqa: F401  (chooses the backend)
    from keras_mot.cli._data import first_samples

    samples = None if data is None else first_samples(data.evaluation[0], model)
    return DEFAULT.functions.export(model, path, verification_data=samples, compiled=False, **arguments)


def compiled_files(options, outputs):
    """What to compile once the outputs are written, found out before any work: pairs of settings of Vela and paths."""
    from keras_mot.export.dependencies import check_runtime
    from keras_mot.export.litert.ethos_u.compiling import beside
    from keras_mot.export.litert.ethos_u.vela import Settings
    from keras_mot.targets import get

    target = get(options.target)
    if target.accelerator is None:
        return []
    check_runtime(target)
    with blamed_on_input():
        return [(Settings(target.accelerator), path, beside(path)) for path in outputs if path.suffix != KERAS]


def with_compiled(result: Result, files) -> Result:
    """The `Result` of a command that has written its outputs, with what came of compiling these."""
    from keras_mot.export.litert.ethos_u.compiling import compiled_file

    made = [compiled_file(path, settings, output).write() for settings, path, output in files]
    if not made:
        return result
    data = {**result.data, "compiled": [each.to_dict() for each in made]}
    return Result("\n".join([result.text, *map(str, made)]), data)


def result_of(trained: Trained, left_alone, verb: str, **more) -> Result:
    """The `Result` of a command.

    Args:
        trained: what `train_and_write` returned.
        left_alone: (path, reason) of weights that were left as they are.
        verb: what was not done to them, such as "pruned".
        **more: JSON values of this command alone.
    """
    plan = trained.plan
    left_alone = [{"path": path, "reason": reason} for path, reason in left_alone]
    data = {
        "files": [str(path) for path in plan.outputs],
        "loss": plan.objective.description.removeprefix("loss: "),
        "evaluated_on": plan.data.evaluation_name,
        "training": trained.logs,
        "left_alone": left_alone,
        **more,
        **trained.measured.to_dict(),
    }
    put_in_place(data["measurements"], plan.outputs)
    lines = [str(trained.measured), f"Wrote {' and '.join(data['files'])}."]
    if left_alone:
        by_reason = {}
        for item in left_alone:
            by_reason.setdefault(item["reason"], []).append(item["path"])
        told = [f"{', '.join(paths)} ({reason})" for reason, paths in by_reason.items()]
        lines.insert(1, wrapped(f"Not {verb}: {'; '.join(told)}."))
    return Result("\n".join(lines), data)
