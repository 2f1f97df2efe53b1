"""`compress`: a whole recipe in one call."""

import dataclasses
import os
import tempfile
import time
import warnings
from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from keras_mot import analysis
from keras_mot._progress import TrainingProgress, say
from keras_mot.analysis._data import batches
from keras_mot.analysis._metrics import make_metric
from keras_mot.analysis._subjects import fixed_batch_size, predict
from keras_mot.export import export_litert
from keras_mot.export._dependencies import check_installed
from keras_mot.layers import copy_model, transformed_weights, update_step
from keras_mot.layers._find import require_built
from keras_mot.layers._technique import strip_model
from keras_mot.layers._updates import has_scheduled_transforms
from keras_mot.layers.activation_quantizer import is_quantized
from keras_mot.recipes import _run_folder
from keras_mot.recipes._objective import choose_objective
from keras_mot.recipes._resumable import check_resumable
from keras_mot.recipes._training_data import TrainingData
from keras_mot.recipes.fine_tuning import FineTune, train
from keras_mot.recipes.recipe import Recipe, find_recipe
from keras_mot.recipes.result import CompressionResult, StageResult
from keras_mot.recipes.stages import check_skipped

_REHEARSED_ON = 32  # samples


def compress(
    model: keras.Model,
    recipe: Recipe | str | os.PathLike,
    train_data: Any,
    validation_data: Any = None,
    *,
    metric: str | keras.metrics.Metric | Callable[[Any, Any], float] | None = None,
    loss: Any = None,
    output_dir: str | os.PathLike | None = None,
    resume: bool = True,
    seed: int = 0,
    latency_runs: int = 50,
    progress: bool = True,
) -> CompressionResult:
    """Runs a recipe on a trained model: prunes, clusters, quantizes and fine-tunes it, exports and measures each stage.

    Every stage is tried out first, without training, so that whatever does not fit the model is an error at once.
    After each stage a checkpoint and a `.tflite` file are written to `output_dir`, and at the end `report.json` and
    `report.md`; a run that was killed goes on after the last finished stage when it is called again, with the same
    result. No second run can use the folder meanwhile.

    Args:
        model: a built, trained Keras model of any kind. It is not changed.
        recipe: a `Recipe`, the name of a preset, such as `"size"`, or the path of a YAML file.
        train_data: tuple (x, y) of arrays, or an iterable of batches (x, y) that can be gone through many times. Ranges
            of activations are calibrated on a part of it.
        validation_data: the same, to measure on, and for early stopping; by default the training data.
        metric: "accuracy", the name of another Keras metric, a `keras.metrics.Metric`, or a function
            (y_true, y_pred) -> float over all samples; by default what suits the labels.
        loss: name of a Keras loss, or a loss itself; by default that of the compiled model, or what suits the labels.
        output_dir: folder for checkpoints, files and the log of the run; by default a new one for temporary files,
            whose path is in the result.
        resume: whether to go on with a run in `output_dir`; a stage whose files are missing or damaged is done again.
            With `False`, the files of that run are removed.
        seed: of the random numbers; each stage begins with one of its own, so that resumed runs equal others.
        latency_runs: timed runs of each file, on one thread; 0 to time nothing.
        progress: whether to show what is being done, on stderr.

    Returns:
        A `CompressionResult`.

    Raises:
        TypeError: if an argument is of the wrong type.
        ValueError: if the recipe, the data or the metric does not fit the model, or `output_dir` holds another run, or
            is in use by one.
        OSError: if a file could not be written; the finished stages stay usable.
        FloatingPointError: if training diverges.

    Example:

    ```python
    result = keras_mot.compress(model, "balanced", (x_train, y_train), (x_test, y_test))
    print(result)
    result.artifact  # the `.tflite` file
    ```
    """
    check_installed("tensorflow", "ai_edge_litert")
    _check_model(model)
    recipe = find_recipe(recipe)
    if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
        raise ValueError(f"`seed` should be an integer of at least 0; received {seed!r}.")
    data = TrainingData(train_data, validation_data)
    outputs = _outputs(model, data)
    objective = choose_objective(model, loss, data.labels(), outputs)
    metric = objective.metric if metric is None else metric
    metric_name, _ = make_metric(metric)
    run = Run(recipe, data, objective, metric, seed, latency_runs, progress)
    run.rehearse(model)
    identity = {"recipe": recipe.to_yaml(), "model": _run_folder.fingerprint(model), "data": data.fingerprint()}
    identity |= {"seed": str(seed), "metric": metric_name, "loss": objective.description}
    if output_dir is None:
        output_dir = tempfile.mkdtemp(prefix="keras_mot_")
    with _run_folder.run_folder(output_dir, identity, ("float", *recipe.stage_names), resume) as folder:
        result = run.work(model, folder)
        folder.report(result)
    return result


def _check_model(model):
    if not isinstance(model, keras.Model):
        raise TypeError(f"`compress` expects a Keras model; received {model!r}.")
    require_built(model, "compress")
    if not model.weights:
        raise ValueError(f"'{model.name}' has no weights: there is nothing to compress.")
    if is_quantized(model) or transformed_weights(model):
        raise ValueError(
            f"'{model.name}' is pruned, clustered or quantized already: strip it, or pass the float model."
        )


def _outputs(model, data):
    x, _ = data.head()
    try:
        outputs = predict(model, x)  # in one batch: on JAX, a failing `model.predict` takes the variables with it
    except Exception as error:
        raise ValueError(f"'{model.name}' cannot be called on the training data: {error}") from error
    if not hasattr(outputs, "ndim"):
        raise ValueError(f"'{model.name}' has several outputs; recipes train models with one.")
    return outputs


@dataclasses.dataclass
class Run:
    """A recipe at work.

    Args:
        recipe: the `Recipe`.
        data: the `TrainingData`.
        objective: the `Objective`.
        metric: as of `compress`.
        seed: as of `compress`.
        latency_runs: as of `compress`.
        progress: as of `compress`.
    """

    recipe: Recipe
    data: TrainingData
    objective: Any
    metric: Any
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

    def rehearse(self, model):
        """Goes through all stages without training, on few data, so that mistakes show before any work is done."""
        for stage in self.recipe.stages:
            check_skipped(stage, model)
            distils = stage.fine_tune is not None and stage.fine_tune.distillation
            if distils and self.objective.kind not in ("classes", "one-hot"):
                raise ValueError(
                    f"Stage '{stage.key}': `distillation` is for models that choose one of several classes; the labels "
                    f"here are {self.objective.kind or 'of another kind'}. Set it to 0."
                )
        given, rehearsal = model, dataclasses.replace(self, rehearsing=True, progress=False)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for number, stage in enumerate(self.recipe.stages, 1):
                try:
                    model = rehearsal._applied(stage, model)
                except (TypeError, ValueError) as error:
                    raise type(error)(f"Stage {number}, '{stage.key}': {error}") from error
        check_resumable(given, model)

    def _applied(self, stage, model):
        """The model as the stage trains it, at the first step of its schedules."""
        model = stage.apply(model, self)
        if has_scheduled_transforms(model):
            update_step(model, 0)
        return model

    def work(self, model, folder):
        """Runs what is not finished yet; returns the `CompressionResult`."""
        teacher = model
        if folder.stages:
            self._say(f"going on after stage '{folder.stages[-1].name}' in {folder.path}")
        else:
            self._say(self.objective.description)
            self._finish("float", model, folder, 0.0, {})
        reached = 0  # the stage that `model` is of
        while (number := len(folder.stages)) <= len(self.recipe.stages):
            if number > reached + 1:  # what lies between was finished before
                model = folder.last_model()
            stage, name = self.recipe.stages[number - 1], self.recipe.stage_names[number - 1]
            keras.utils.set_random_seed(self.seed + number)
            start = time.perf_counter()
            model = self._applied(stage, model)
            _seed_layers(model, (self.seed, number))
            if stage.fine_tune is not None:
                self._train(model, stage, teacher, f"stage {number}, {stage.key}")
                model = stage.trained(model)
            self._finish(name, model, folder, time.perf_counter() - start, stage.export_options())
            reached = number
        if len(folder.stages) > reached + 1:
            model = folder.last_model()
        name, _ = make_metric(self.metric)
        return CompressionResult(_plain(model), tuple(folder.stages), self.recipe.name, name, folder.path)

    def _train(self, model, stage, teacher, title):
        settings = stage.fine_tune
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
                watched="accuracy" if self.metric == "accuracy" else "loss",
                start_of_patience=stage.pruning_epochs(),
                callbacks=callbacks,
            )
        finally:
            for callback in callbacks:
                callback.close()

    def _finish(self, name, model, folder, seconds, export_options):
        """Writes, measures and notes a stage."""
        plain = _plain(model)

        def export(path):
            # A model that prescribes a batch size is verified on random inputs.
            given = None if fixed_batch_size(plain) else self.data.head(3)[0]
            return export_litert(plain, path, verification_data=given, **export_options)

        checkpoint, file, exported = folder.add(name, model, export)
        report = analysis.measure(
            {"file": dataclasses.replace(exported, path=file)},
            data=self.data.evaluated,
            metric=self.metric,
            latency_runs=self.latency_runs,
            progress=self.progress,
        )
        row = report["file"]
        kernels = {tensor.name: tensor.unique_values for tensor in row.tensors if len(tensor.shape) > 1}
        result = StageResult(
            name=name,
            keras_metric=self._keras_metric(plain),
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
        )
        folder.finish(result)
        self._say(
            f"{name}: {report.metric_name} {row.metric:.4f} in the runtime, {row.bytes:,} bytes, "
            f"{row.zipped_bytes:,} zipped"
        )

    def _keras_metric(self, model):
        accumulator = make_metric(self.metric)[1]()
        for x, y in batches(self.data.evaluated, 256):
            accumulator.add(y, predict(model, x))
        return accumulator.result()

    def _say(self, message):
        if self.progress:
            say(message)


def _seed_layers(model, entropy):
    """Seeds the random numbers of layers such as dropout: a loaded model has others than one that went on."""
    for number, layer in enumerate(model._flatten_layers()):
        for place, generator in enumerate(getattr(layer, "_seed_generators", ())):
            state = np.random.default_rng((*entropy, number, place)).integers(0, 2**31, generator.state.shape)
            generator.state.assign(state.astype("uint32"))


def _plain(model):
    """What a stage ships: a quantized model as it is, others without transforms."""
    if is_quantized(model) or not transformed_weights(model):
        return model
    return strip_model(model, inplace=False)
