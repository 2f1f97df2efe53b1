"""`search`: the recipe for a budget, found by trying."""

import contextlib
import dataclasses
import json
import math
import os
import pathlib
import tempfile
from typing import Any

import keras

from keras_mot import analysis
from keras_mot._files import replacing, writable_folder, write_text
from keras_mot._formats import DEFAULT
from keras_mot._lock import locked
from keras_mot._messages import describe
from keras_mot._progress import say
from keras_mot._retracing import without_retracing_warnings
from keras_mot.recipes import run_folder
from keras_mot.recipes._checks import check_model, check_seed
from keras_mot.recipes.compress import compress, planned
from keras_mot.recipes.fine_tuning import FineTune, check_whole
from keras_mot.recipes.recipe import Recipe
from keras_mot.recipes.searching.budget import Budget
from keras_mot.recipes.searching.executors import Executor, LostTrialError, find_executor, first_done
from keras_mot.recipes.searching.families import FAMILIES, Proposal, recipe_of, smallest, useful
from keras_mot.recipes.searching.layer_options import SPARSITIES, VALUES, choices_of
from keras_mot.recipes.searching.planning import is_new, next_size
from keras_mot.recipes.searching.result import SearchResult, best_of, front_of, measured
from keras_mot.recipes.searching.stored_data import store_data
from keras_mot.recipes.searching.study import Study, check_installed, families_for
from keras_mot.recipes.searching.worker import DATA, MODEL, RECIPE, SETTINGS, trial_folder
from keras_mot.recipes.training_data import TrainingData

_SENSITIVITY = "sensitivity.json"
_REPORT = "search.json"
_SAMPLES = 256  # that sensitivities are measured on
_HOPELESS = 3  # trials that all fail before one has a result
_RATE = 1e-3  # of recipes that train nothing: it is of no meaning there


def search(
    model: keras.Model,
    train_data: Any,
    validation_data: Any = None,
    *,
    budget: Budget,
    output_dir: str | os.PathLike | None = None,
    trials: int = 16,
    fine_tune: FineTune | None = FineTune(4, 1e-3, schedule="cosine"),  # noqa: B008 (it is frozen)
    families: list[str] | None = None,
    executor: Executor | str = "local",
    storage: Any = None,
    metric: Any = None,
    loss: Any = None,
    seed: int = 0,
    latency_runs: int = 50,
    progress: bool = True,
) -> SearchResult:
    """Finds a recipe that keeps to a budget: the most accurate model of a size, or the smallest of an accuracy.

    How much of each layer is pruned, and how many different values it keeps, follows from what the outputs lose when
    that layer alone is changed (`keras_mot.analysis.sensitivity`): least loss for a size, by an integer programme. The
    recipes that come of it, and others that prune channels or factorize kernels, are run by `compress`, each of them a
    trial. What a trial shows, of the size that its file really has and of what training makes up for, corrects the
    next; every other one is proposed by Optuna's tree-structured Parzen estimator. All that was tried is kept in
    `output_dir`: a search that was stopped goes on there when it is called again, also with another budget, or with
    more `trials`.

    Args:
        model: a built, trained Keras model. It is not changed.
        train_data: as of `compress`.
        validation_data: as of `compress`: what trials are compared on. The best of many trials is a little better on
            it than on new data: keep a test set apart.
        budget: a `Budget`.
        output_dir: folder for all trials; by default a new one for temporary files, whose path is in the result.
        trials: how many are made in all, those of earlier calls included.
        fine_tune: how the stages of a recipe train: the one that prunes or clusters so, and the one that quantizes half
            as long, at a tenth of the learning rate. Models that choose one of several classes learn from the float
            model, too, unless `distillation` is 0. `None` for no training: post-training
            quantization alone, and what is left of pruned kernels solved for by least squares.
        families: which kinds of recipes to try, of "dense" (8 bits and nothing else), "pruned", "clustered",
            "pruned-clustered", "channels" and "low-rank"; by default all.
        executor: where trials run: "local", in this process, one after the other; "processes", each in one of its own,
            two at a time; "ray", on a Ray cluster; or an `Executor`, such as `Processes(4)`. A killed worker loses its
            trial and nothing else. Beside "local", the data are arrays, loss and metric are names, and layers of your
            own are in a module that can be imported, and registered with Keras.
        storage: where Optuna keeps the trials, as `optuna.create_study` takes it, such as "sqlite:///search.db"; by
            default a file in `output_dir`. The study's name is "keras-mot".
        metric: as of `compress`.
        loss: as of `compress`.
        seed: of the random numbers, as of `compress`.
        latency_runs: as of `compress`.
        progress: whether to show what is being done, on stderr.

    Returns:
        A `SearchResult`: what `compress` returned for the best trial, with all trials and the Pareto front beside it.
        Without a trial that keeps to the budget it is that of the nearest, and `what_stood_in_the_way()` says why.

    Raises:
        TypeError: if an argument is of the wrong type.
        ValueError: if the data, the loss or the metric does not fit the model, or `output_dir` is in use, or holds a
            search for another model or other data.
        ImportError: if Optuna or SciPy is not installed, or Ray where it is asked for.
        RuntimeError: if the first trials all fail, with their reason.

    Example:

    ```python
    result = keras_mot.recipes.search(model, (x_train, y_train), (x_val, y_val), budget=Budget(zipped=40_000))
    print(result)
    result.artifact  # the `.tflite` file of the best trial
    ```

    References: Akiba et al., 2019, "Optuna" (arXiv:1907.10902); Bergstra et al., 2011, "Algorithms for Hyper-Parameter
    Optimization"; for the choice by sensitivities and an integer programme, Hubara et al., 2021, "Accurate Post
    Training Quantization With Small Calibration Sets" (arXiv:2006.10518).
    """
    DEFAULT.check_written()
    check_installed()
    if not isinstance(budget, Budget):
        raise TypeError(f"`budget` should be a `Budget`, such as `Budget(zipped=40_000)`; received {describe(budget)}.")
    check_whole("trials", trials, 1)
    check_whole("latency_runs", latency_runs, 0)
    if fine_tune is not None and not isinstance(fine_tune, FineTune):
        raise TypeError(f"`fine_tune` should be a `FineTune` or None; received {describe(fine_tune)}.")
    if budget.latency_ms is not None and not latency_runs:
        raise ValueError("The budget limits `latency_ms`, and `latency_runs` is 0: nothing would be timed.")
    families, executor = families_for(families), find_executor(executor)
    check_model(model)
    check_seed(seed)
    settings = {"metric": metric, "loss": loss, "seed": seed, "latency_runs": latency_runs}
    if not executor.shares_process:
        _check_names(settings)
    data = TrainingData(train_data, validation_data)
    with without_retracing_warnings():
        arranged, _, resolved = planned(model, data, loss, metric)
    if output_dir is None:
        output_dir = tempfile.mkdtemp(prefix="keras_mot_search_")
    folder = writable_folder(output_dir, parents=True)
    identity = {"model": run_folder.fingerprint(model), "data": arranged.fingerprint(), "metric": resolved.name}
    with locked(folder):
        work = _Search(model, (train_data, validation_data), folder, settings, budget, fine_tune, executor, progress)
        work.prepare(arranged, identity, storage, families, seed)
        with executor.running():
            work.run(trials)
        return work.result()


def _check_names(settings):
    for name in ("metric", "loss"):
        if not isinstance(settings[name], str | None):
            raise ValueError(
                f"`{name}` should be a name where trials run in other processes; received {describe(settings[name])}. "
                "Give a name, or `executor='local'`."
            )


class _Search:
    """A search at work; arguments as of `search`."""

    def __init__(self, model, data, folder, settings, budget, fine_tune, executor, progress):
        self._model, self._data, self._folder, self._settings = model, data, folder, settings
        self._budget, self._fine_tune, self._executor, self._progress = budget, fine_tune, executor, progress
        self._rate = self._fine_tune.learning_rate if self._fine_tune else _RATE

    def prepare(self, arranged, identity, storage, families, seed):
        """Everything that comes before the first trial, in an order in which mistakes show first."""
        self._families = useful(families, self._budget)
        known = self._folder / _SENSITIVITY
        # Refuses another search's folder before anything is computed.
        self._study = Study(self._folder, storage, self._budget, self._rate, seed, identity)
        if self._executor.shares_process:
            self._executor.bind(self._run_here)
        else:
            store_data(self._folder / DATA, *self._data)
            with replacing(self._folder / MODEL, owned=True) as temporary:
                self._model.save(temporary)
            write_text(self._folder / SETTINGS, json.dumps(self._settings), owned=True)
        self._choices = choices_of(self._model, self._losses(known, arranged, seed))
        self._dense = sum(layer.dense for layer in self._choices)
        if not self._dense:
            self._families = [name for name in self._families if not FAMILIES[name]] or ["dense"]
            self._dense = 1.0

    def _losses(self, path, arranged, seed):
        """What the outputs lose by each layer and setting; read from the folder, if they are there."""
        table = None
        if path.is_file():
            with contextlib.suppress(ValueError, KeyError, TypeError):
                table = analysis.Sensitivity.from_dict(json.loads(path.read_text()))
        if table is None:
            self._say("how sensitive each layer is to zeros and to shared values")
            inputs = arranged.calibration(_SAMPLES, seed)
            table = analysis.sensitivity(self._model, inputs, sparsity=SPARSITIES, values=VALUES, max_samples=_SAMPLES)
            write_text(path, json.dumps(table.to_dict()), owned=True)
        return {(row.layer, row.technique, row.setting): row.loss for row in table.rows}

    def run(self, trials):
        """Runs trials until there are so many."""
        running, begun = {}, len(self._study.trials)
        if begun:
            self._say(f"going on after {begun} trials in {self._folder}")
        try:
            while begun < trials or running:
                # Until a file was measured, nothing is known of what surrounds the kernels in it.
                places = self._executor.workers if measured(self._study.trials) else 1
                while begun < trials and len(running) < places:
                    number, place = self._begin(running)
                    running[number], begun = place, begun + 1
                number = first_done({each: place[1] for each, place in running.items()})
                self._end(*running.pop(number))
                self._check_hope()
        except BaseException:
            for trial, handle, _ in running.values():
                handle.stop()
                self._study.fail(trial, "it was interrupted")
            raise

    def _begin(self, running):
        proposal = self._planned([place[2] for place in running.values()])
        trial, proposal = self._study.begin(proposal, self._dense, self._families)
        folder = trial_folder(self._folder, trial.number)
        folder.mkdir(exist_ok=True)
        recipe, predicted = recipe_of(proposal, self._choices, self._fine_tune, f"search-{trial.number:04d}")
        recipe.to_yaml(folder / RECIPE)
        self._study.note(trial, proposal, predicted)
        return trial.number, (trial, self._executor.submit(self._folder, trial.number), proposal)

    def _planned(self, running):
        """What to try next, or `None` to leave it to Optuna: first each family, then what is near the budget."""
        done = self._study.trials
        tried = {trial.family for trial in done} | {proposal.family for proposal in running}
        sizes = {family: next_size(self._budget, done, family, self._dense) for family in self._families}
        least = {family: smallest(family, self._choices) for family in self._families}
        some_fit = any(sizes[family] >= least[family] for family in self._families)
        for family in self._families:
            if family in tried or (some_fit and FAMILIES[family] and sizes[family] < least[family]):
                continue
            size = max(sizes[family], least[family])
            return Proposal(family, size if FAMILIES[family] else self._dense, self._rate)
        best = best_of(done, self._budget)
        if best is None or len(done) % 2:
            return None
        size = next_size(self._budget, done, best.family, self._dense)
        if not FAMILIES[best.family] or not is_new(size, done, best.family):
            return None
        return Proposal(best.family, max(size, smallest(best.family, self._choices)), best.learning_rate)

    def _run_here(self, number):
        folder = trial_folder(self._folder, number)
        train, validation = self._data
        return compress(
            self._model,
            Recipe.from_yaml(folder / RECIPE),
            train,
            validation,
            output_dir=folder,
            progress=False,
            **self._settings,
        )

    def _end(self, trial, handle, proposal):
        start = f"trial {trial.number}, {proposal.family}"
        try:
            handle.wait()
            values = self._values(trial.number)
        except (LostTrialError, OSError, ValueError, KeyError) as error:
            self._study.fail(trial, str(error)[:2000])
            self._say(f"{start}: no result: {str(error)[:300]}")
            return
        self._study.finish(trial, values)
        met = "keeps to the budget" if self._budget.is_met(values) else "beyond the budget"
        self._say(
            f"{start}: {self._metric_name} {values['metric']:.4f}, {values['bytes']:,} bytes, "
            f"{values['zipped']:,} zipped, {met} ({values['seconds']:.0f} s)"
        )
        self._tidy()

    def _values(self, number):
        """What the report of a trial says of its last stage."""
        report = json.loads((trial_folder(self._folder, number) / "report.json").read_text())
        first, last = report["stages"][0], report["stages"][-1]
        self._metric_name = report["metric_name"]
        drop = (first["metric"] - last["metric"]) * (1 if report["greater_is_better"] else -1)
        if math.isnan(drop):
            raise ValueError(f"The metric of its file is {last['metric']}.")
        return {
            "bytes": last["bytes"],
            "zipped": last["zipped_bytes"],
            "latency_ms": last["latency_ms"],
            "metric": last["metric"],
            "drop": drop,
            "seconds": sum(stage["seconds"] for stage in report["stages"]),
        }

    def _tidy(self):
        """Removes the models of trials that others beat in every respect; their reports and recipes stay."""
        done = self._study.trials
        kept = {trial.number for cost in ("zipped", "bytes", "latency_ms") for trial in front_of(done, cost)}
        best = best_of(done, self._budget)
        for trial in measured(done):
            if trial.number in kept or trial is best or trial.folder is None or not trial.folder.is_dir():
                continue
            for file in trial.folder.iterdir():
                if run_folder.is_file_of_a_stage(file.name):
                    file.unlink()

    def _check_hope(self):
        done = self._study.trials
        if len(done) >= _HOPELESS and not measured(done):
            raise RuntimeError(
                f"The first {len(done)} trials have no result. The last: {done[-1].failure or 'it was interrupted'}"
            )

    def result(self):
        """The `SearchResult`, also written to the folder."""
        done = self._study.trials
        best = best_of(done, self._budget)
        if best is None:
            raise RuntimeError(f"No trial has a result. The last: {done[-1].failure or 'it was interrupted'}")
        self._say(f"the best is trial {best.number}, {best.family}")
        known = self._run_here(best.number)  # all of it is there: it is loaded
        fields = {field.name: getattr(known, field.name) for field in dataclasses.fields(known)}
        result = SearchResult(
            **fields,
            budget=self._budget,
            trials=done,
            best_trial=best,
            seconds=sum(trial.seconds for trial in done),
        )
        write_text(pathlib.Path(self._folder) / _REPORT, json.dumps(result.to_dict(), indent=2), owned=True)
        return result

    def _say(self, message):
        if self._progress:
            say(message)
