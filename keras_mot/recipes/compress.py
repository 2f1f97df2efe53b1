"""`compress`: a whole recipe in one call."""

import dataclasses
import os
import tempfile
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import numpy as np

from keras_mot import analysis
from keras_mot._formats import DEFAULT
from keras_mot._keras import flatten_layers, seed_generators
from keras_mot._progress import TrainingProgress, say
from keras_mot._retracing import without_retracing_warnings
from keras_mot.analysis.metrics import ResolvedMetric, make_metric, with_output_names
from keras_mot.data.arrangement import input_arrangement, with_outputs
from keras_mot.data.inputs import fixed_batch_size
from keras_mot.export.litert.ethos_u.compiling import compiled_for
from keras_mot.graph.agreement import unjudged
from keras_mot.layers import copy_model, update_step
from keras_mot.layers.updates import has_scheduled_transforms
from keras_mot.recipes import run_folder
from keras_mot.recipes._checks import (
    check_accuracy,
    check_inputs,
    check_model,
    check_seed,
    check_validation_labels,
    keras_metric,
    try_loss,
    try_metric,
    try_model,
)
from keras_mot.recipes._collapse import collapsed, warn_of_collapse
from keras_mot.recipes._objectives import choose_objectives
from keras_mot.recipes._resumable import check_resumable
from keras_mot.recipes._stage import check_skipped
from keras_mot.recipes._stage_files import export_once, export_options, plain_model, rehearse_export, told_from_refusals
from keras_mot.recipes.closing import on_device
from keras_mot.recipes.fine_tuning import FineTune, can_teach, train
from keras_mot.recipes.objective import Objective, choose_objective
from keras_mot.recipes.recipe import Recipe, find_recipe
from keras_mot.recipes.result import CompressionResult, StageResult
from keras_mot.recipes.training_data import TrainingData
from keras_mot.targets import Target

_REHEARSED_ON = 32  # samples
_WAY_OUT = " In a recipe that is `skip` of the stage, a list of regular expressions of paths (in YAML, `skip: [...]`)."
_TOLD_FROM_CHANCE = 0.1  # of the way from guessing to knowing: less than that nobody learns from


def compress(
    model: keras.Model,
    recipe: Recipe | str | os.PathLike,
    train_data: Any,
    validation_data: Any = None,
    *,
    metric: str | keras.metrics.Metric | Callable[[Any, Any], float] | Mapping[str, Any] | Sequence[Any] | None = None,
    loss: Any = None,
    target: Target | str | None = None,
    output_dir: str | os.PathLike | None = None,
    resume: bool = True,
    seed: int = 0,
    latency_runs: int = 50,
    progress: bool = True,
) -> CompressionResult:
    """Runs a recipe on a trained model: prunes, clusters, quantizes and fine-tunes it, exports and measures each stage.

    Every stage is tried out first, without training, so that whatever does not fit the model is an error at once.
    After each stage a checkpoint and a `.tflite` file are written to `output_dir` (no file of a stage in floats that
    LiteRT has no kernels for, if a later one quantizes), and at the end `report.json` and `report.md`; a run that was
    killed goes on after the last finished stage when it is called again, with the same result. No second run can use
    the folder meanwhile.

    Args:
        model: a built, trained Keras model of any kind. It is not changed.
        recipe: a `Recipe`, the name of a preset, such as `"size"`, or the path of a YAML file.
        train_data: tuple (x, y) of arrays, or an iterable of batches (x, y) that can be gone through many times. Ranges
            of activations are calibrated on a part of it, or after training on a part of the validation data. For
            several inputs, x is a list in the model's order or a dictionary of input names, and for several outputs so
            is y.
        validation_data: the same, to measure on, and for early stopping; by default the training data.
        metric: "accuracy", "f1", "auc", "mae" or another name, a `keras.metrics.Metric`, or a function
            (y_true, y_pred) -> float over all samples, as of `keras_mot.analysis.measure`; by default what suits the
            labels. More of a function is better, unless its attribute `greater_is_better` is `False` or it is called
            an error or a loss. For several outputs, a name is for each, and tables show the mean; a dictionary from
            outputs (or a list in their order) gives each its own, and tables show the mean if all are the same, else
            the first.
        loss: name of a Keras loss, or a loss itself; by default that of the compiled model, or what suits the labels.
            For several outputs, one for all, a dictionary from outputs, or a list.
        target: a `keras_mot.targets.Target` that the stages that quantize do it for, or its name, such as "micro" or
            "ethos-u"; by default what they say. For an NPU the last file is compiled, too.
        output_dir: folder for checkpoints, files and the log of the run; by default a new one for temporary files,
            whose path is in the result.
        resume: whether to go on with a run in `output_dir`; a stage whose files are missing or damaged is done again.
            With `False`, the files of that run are removed.
        seed: of the random numbers, from 0 to 2**32 - 1; each stage begins with one of its own, so that resumed runs
            equal others.
        latency_runs: timed runs of each file, on one thread; 0 to time nothing.
        progress: whether to show what is being done, on stderr.

    Returns:
        A `CompressionResult`.

    Raises:
        TypeError: if an argument is of the wrong type.
        ImportError: if a package that the target needs is not installed.
        ValueError: if the recipe, the data, the loss or the metric does not fit the model, the model has NaN or
            infinite weights, or `output_dir` holds another run, or is in use by one.
        OSError: if a file could not be written; the finished stages stay usable.
        FloatingPointError: if training diverges.

    Example:

    ```python
    result = keras_mot.compress(model, "balanced", (x_train, y_train), (x_test, y_test))
    print(result)
    result.artifact  # the `.tflite` file
    ```
    """
    DEFAULT.check_written()
    check_model(model, "compress")
    recipe = find_recipe(recipe) if target is None else find_recipe(recipe).for_target(target)
    seed = check_seed(seed)
    data = TrainingData(train_data, validation_data)
    with without_retracing_warnings():
        data, objective, metric = planned(model, data, loss, metric)
        run = Run(recipe, data, objective, metric, seed, latency_runs, progress)
        run.rehearse(model)
        identity = {"recipe": recipe.to_yaml(), "model": run_folder.fingerprint(model), "data": data.fingerprint()}
        identity |= {"seed": str(seed), "metric": metric.name, "loss": objective.description}
        if output_dir is None:
            output_dir = tempfile.mkdtemp(prefix="keras_mot_")
        with run_folder.run_folder(output_dir, identity, ("float", *recipe.stage_names), resume) as folder:
            result = run.work(model, folder)
            folder.report(result)
    return result


def planned(model, data, loss, metric):
    """The data as the model takes them, the `Objective`, and the `ResolvedMetric`, all tried out on the model."""
    arrangement = input_arrangement(model)
    data = data.arranged(arrangement)
    check_inputs(model, data)
    outputs = try_model(model, data)
    arrangement = with_outputs(arrangement, model, outputs)
    data = data.arranged(arrangement)
    names, flat, asked = arrangement.output_names, keras.tree.flatten(outputs), metric
    if names:
        named = dict(zip(names, flat, strict=True))
        objective = choose_objectives(model, loss, data.labels(), named, metric)
        metric = with_output_names(make_metric(objective.metric), names)
    else:
        named = {None: flat[0]}
        objective = choose_objective(model, loss, data.labels(), flat[0])
        metric = make_metric(objective.metric if metric is None else metric)
    check_accuracy(asked, objective.kinds)
    check_validation_labels(objective, data, named)
    try_loss(model, objective, data, outputs)
    try_metric(model, metric, data.evaluated)
    return data, objective, metric


@dataclasses.dataclass
class Run:
    """A recipe at work.

    Args:
        recipe: the `Recipe`.
        data: the `TrainingData`.
        objective: the `Objective`.
        metric: the `ResolvedMetric`.
        seed: as of `compress`.
        latency_runs: as of `compress`.
        progress: as of `compress`.
    """

    recipe: Recipe
    data: TrainingData
    objective: Objective
    metric: ResolvedMetric
    seed: int
    latency_runs: int
    progress: bool
    rehearsing: bool = False

    @property
    def quantizes(self) -> bool:
        """Whether a stage of the recipe quantizes."""
        return self.recipe.quantizes

    def steps(self, fine_tune: FineTune) -> int:
        """Training steps of a stage."""
        return self.data.steps(fine_tune.batch_size) * fine_tune.epochs

    def calibration(self, samples: int) -> Any:
        """Inputs to calibrate with."""
        return self.data.calibration(min(samples, _REHEARSED_ON) if self.rehearsing else samples, self.seed)

    def labelled(self, samples: int) -> tuple[Any, Any] | None:
        """Inputs and labels that no training has seen, and the loss, for models of one output; `None` without them."""
        if self.rehearsing or self.objective.outputs:
            return None
        data = self.data.unseen(samples, self.seed)
        return None if data is None else (data, self.objective.loss)

    def rehearse(self, model):
        """Goes through all stages without training, on few data, so that mistakes show before any work is done."""
        for stage in self.recipe.stages:
            check_skipped(stage, model)
            distils = stage.fine_tune is not None and stage.fine_tune.distillation
            if distils and self.objective.outputs:
                raise ValueError(
                    f"Stage '{stage.key}': `distillation` is for models of one output; this one has "
                    f"{list(self.objective.outputs)}. Set it to 0."
                )
            if distils and not self.objective.chooses_a_class:
                kind = self.objective.kinds.get(None)
                raise ValueError(
                    f"Stage '{stage.key}': `distillation` is for models that choose one of several classes; the labels "
                    f"here are {kind or 'of another kind'}. Set it to 0."
                )
        given, rehearsal = model, dataclasses.replace(self, rehearsing=True, progress=False)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for number, stage in enumerate(self.recipe.stages, 1):
                try:
                    model = rehearsal._applied(stage, model)
                    rehearse_export(stage, model)
                except (TypeError, ValueError) as error:
                    kind = TypeError if isinstance(error, TypeError) else ValueError
                    way = _WAY_OUT if "`overrides" in str(error) else ""
                    raise kind(f"Stage {number}, '{stage.key}': {error}{way}") from error
        check_resumable(given, model)

    def _rehearse_file(self, model):
        """Exports what the last stage leads to, before any training: without a file in floats, there may be none."""
        rehearsal = dataclasses.replace(self, rehearsing=True, progress=False)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for stage in self.recipe.stages:
                model = rehearsal._applied(stage, model)
            export_once(model, export_options(self.recipe.stages))

    def _applied(self, stage, model):
        """The model as the stage trains it, at the first step of its schedules."""
        with unjudged():  # by what it computes before its training
            model = stage.apply(model, self)
        if has_scheduled_transforms(model):
            update_step(model, 0)
        return model

    def work(self, model, folder):
        """Runs what is not finished yet; returns the `CompressionResult`."""
        teacher = model
        if folder.stages:
            done = len(folder.stages) > len(self.recipe.stages)
            after = "all stages are done" if done else f"going on after stage '{folder.stages[-1].name}'"
            self._say(f"{after} in {folder.path}")
        else:
            self._say(self.objective.description)
            if self.data.validation is None:
                self._say("no validation data: results are measured on the training data")
            self._finish("float", model, folder, 0.0, {})
        if not folder.stages[0].has_file and len(folder.stages) <= len(self.recipe.stages):
            self._rehearse_file(model)
        reached = 0  # the stage that `model` is of
        while (number := len(folder.stages)) <= len(self.recipe.stages):
            if number > reached + 1:  # what lies between was finished before
                model = folder.last_model()
            stage, name = self.recipe.stages[number - 1], self.recipe.stage_names[number - 1]
            keras.utils.set_random_seed((self.seed + number) % 2**32)
            start = time.perf_counter()
            model = self._applied(stage, model)
            _seed_layers(model, (self.seed, number))
            if stage.fine_tune is not None:
                taught = stage.taught and self._teaches(teacher, model, folder.stages[0].metric)
                self._train(model, stage.fine_tune.settled(taught), stage, teacher, f"stage {number}, {stage.key}")
                model = stage.trained(model)
            seconds = time.perf_counter() - start
            self._finish(name, model, folder, seconds, export_options(self.recipe.stages[:number]))
            reached = number
        if len(folder.stages) > reached + 1:
            model = folder.last_model()
        result = CompressionResult(
            plain_model(model),
            tuple(folder.stages),
            self.recipe.name,
            self.metric.name,
            folder.path,
            self.metric.greater_is_better,
            examples=self.data.examples(self.seed),
        )
        warn_of_collapse(result)
        return dataclasses.replace(result, compiled=compiled_for(self.recipe.target, result.artifact, result.model))

    def _teaches(self, teacher, model, accuracy):
        """Whether models learn from the float one by default: where it chooses classes, better than by chance."""
        if not self.objective.chooses_a_class or not can_teach(teacher, model):
            return False
        outputs = getattr(teacher, "outputs", None) or ()
        chance = 1 / max([2, *(each.shape[-1] or 2 for each in outputs)])
        return self.metric.name != "accuracy" or accuracy > chance + _TOLD_FROM_CHANCE * (1 - chance)

    def _train(self, model, settings, stage, teacher, title):
        by_accuracy = self.metric.name == "accuracy" and "accuracy" in self.objective.fit_metrics
        callbacks = []
        if self.progress:
            callbacks.append(TrainingProgress(title))
        try:
            train(
                model,
                settings,
                self.data,
                self.objective,
                teacher=copy_model(teacher) if settings.distillation else None,
                watched="accuracy" if by_accuracy else "loss",
                start_of_patience=stage.pruning_epochs(),
                callbacks=callbacks,
            )
        finally:
            for callback in callbacks:
                callback.close()

    def _finish(self, name, model, folder, seconds, options):
        """Writes, measures and notes a stage."""
        plain = plain_model(model)

        def export(path):
            # A model that prescribes a batch size is verified on random inputs.
            given = None if fixed_batch_size(plain) else self.data.head(3)[0]
            with told_from_refusals(plain, self.quantizes):
                return DEFAULT.functions.export(plain, path, verification_data=given, compiled=False, **options)

        checkpoint, file, exported = folder.add(name, model, export)
        if exported is None:
            self._say(f"{name}: LiteRT cannot run it in floats, so the Keras model is measured")
        report = analysis.measure(
            {"file": plain if exported is None else dataclasses.replace(exported, path=file)},
            data=self.data.evaluated,
            metric=self.metric,
            latency_runs=self.latency_runs,
            progress=self.progress,
        )
        row = report["file"]
        kernels = {tensor.name: tensor.unique_values for tensor in row.tensors if len(tensor.shape) > 1}
        result = StageResult(
            name=name,
            keras_metric=keras_metric(plain, self.metric, self.data.evaluated)[0],
            metric=row.metric,
            samples=report.samples,
            bytes=row.bytes,
            zipped_bytes=row.zipped_bytes,
            sparsity=row.sparsity,
            values=max(kernels.values(), default=0),
            values_of_kernels=kernels,
            latency_ms=row.latency_ms,
            seconds=seconds,
            artifact=file,
            model_path=checkpoint,
            metrics=dict(row.metrics),
            weights=getattr(exported, "weights", "float32"),
            sparse_encoding=getattr(exported, "sparse_encoding", False),
            float_operators=tuple(getattr(exported, "float_operators", ())),
            brotli_bytes=row.brotli_bytes,
            arena_bytes=getattr(exported, "arena_bytes", None),
            verification=getattr(exported, "verification", ""),
        )
        if folder.stages:
            result = dataclasses.replace(result, collapsed=collapsed(result, folder.stages[0], self.metric))
        folder.finish(result)
        where = "Keras" if exported is None else "the runtime"
        self._say(
            f"{name}: {report.metric_name} {row.metric:.4f} in {where}{' (!)' if result.collapsed else ''}, "
            f"{row.bytes:,} bytes, {row.zipped_bytes:,} zipped{on_device(exported)}"
        )

    def _say(self, message):
        if self.progress:
            say(message)


def _seed_layers(model, entropy):
    """Seeds the random numbers of layers such as dropout: a loaded model has others than one that went on."""
    for number, layer in enumerate(flatten_layers(model)):
        for place, generator in enumerate(seed_generators(layer)):
            state = np.random.default_rng((*entropy, number, place)).integers(0, 2**31, generator.state.shape)
            generator.state.assign(state.astype("uint32"))
