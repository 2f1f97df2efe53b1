"""`search`: the recipe for a budget, found by trying."""

import math
import os
import tempfile
from typing import Any

import keras

from keras_mot._files import writable_folder
from keras_mot._formats import DEFAULT
from keras_mot._lock import locked
from keras_mot._messages import describe
from keras_mot._numbers import check_whole
from keras_mot._retracing import without_retracing_warnings
from keras_mot.recipes import run_folder
from keras_mot.recipes._checks import check_model, check_seed
from keras_mot.recipes.compress import planned
from keras_mot.recipes.fine_tuning import FineTune, check_number
from keras_mot.recipes.searching.budget import Budget
from keras_mot.recipes.searching.executors import Executor, find_executor
from keras_mot.recipes.searching.result import SearchResult
from keras_mot.recipes.searching.study import check_installed, families_for
from keras_mot.recipes.searching.trials import Trials
from keras_mot.recipes.training_data import TrainingData


def search(
    model: keras.Model,
    train_data: Any,
    validation_data: Any = None,
    *,
    budget: Budget,
    output_dir: str | os.PathLike | None = None,
    trials: int = 24,
    time_limit: float | None = None,
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

    How much of each layer is pruned, and how many different values or bits it keeps, follows from what the outputs lose
    when that layer alone is changed (`keras_mot.analysis.sensitivity`): least loss for a size, by an integer programme.
    The recipes that come of it, and others that prune channels or factorize kernels, are run by `compress`, each of
    them a trial. Trials begin without training, which takes seconds; a third of them is trained a fourth as long as
    asked, half of those in full. What a trial shows of the size that its file really has corrects the next; new ones
    are proposed by Optuna's tree-structured Parzen estimator once each family was tried. All that was tried is kept in
    `output_dir`: a search that was stopped goes on there when it is called again, also with another budget, or with
    more `trials`; other `families` or another `fine_tune` count for the trials that are still to come. A best file
    that has lost more than a tenth of the metric is warned of, if the budget does not allow that.

    Args:
        model: a built, trained Keras model. It is not changed.
        train_data: as of `compress`.
        validation_data: as of `compress`: what trials are compared on. The best of many trials is a little better on
            it than on new data: keep a test set apart.
        budget: a `Budget`.
        output_dir: folder for all trials; by default a new one for temporary files, whose path is in the result.
        trials: how many are made in all, those of earlier calls included. With fewer than two for each family, and no
            `time_limit`, all are trained in full.
        time_limit: seconds that this call may take. No trial begins, after the first, that is not expected to end by
            then; after half of the time, the best so far is trained, as long as the rest allows.
        fine_tune: how the best trials train: the stage that prunes or clusters so, and the one that quantizes half
            as long, at a tenth of the learning rate. Models that choose one of several classes learn from the float
            model, too, unless `distillation` is 0. `None` for no training: post-training
            quantization alone, and what is left of pruned kernels solved for by least squares.
        families: which kinds of recipes to try, of "dense" (8 bits and nothing else), "bits" (4 or 8 for each layer),
            "pruned", "clustered", "channels", "low-rank", "pruned-bits", "pruned-clustered", "low-rank-bits",
            "low-rank-pruned-clustered" and "channels-pruned-clustered"; by default all.
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
            search for another model, other data, or with another metric, loss or seed.
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
    trials = check_whole("trials", trials, 1)
    if time_limit is not None:
        check_number("time_limit", time_limit, 0.0, math.inf)
    latency_runs = check_whole("latency_runs", latency_runs, 0)
    if fine_tune is not None and not isinstance(fine_tune, FineTune):
        raise TypeError(f"`fine_tune` should be a `FineTune` or None; received {describe(fine_tune)}.")
    if budget.latency_ms is not None and not latency_runs:
        raise ValueError("The budget limits `latency_ms`, and `latency_runs` is 0: nothing would be timed.")
    families, executor = families_for(families), find_executor(executor)
    check_model(model, "search")
    seed = check_seed(seed)
    settings = {"metric": metric, "loss": loss, "seed": seed, "latency_runs": latency_runs}
    if not executor.shares_process:
        _check_names(settings)
    data = TrainingData(train_data, validation_data)
    with without_retracing_warnings():
        arranged, objective, resolved = planned(model, data, loss, metric)
    if not callable(metric):  # a function may count in any unit, whatever its name
        budget.check_metric(resolved.name)
    if output_dir is None:
        output_dir = tempfile.mkdtemp(prefix="keras_mot_search_")
    folder = writable_folder(output_dir, parents=True)
    identity = {"model": run_folder.fingerprint(model), "data": arranged.fingerprint(), "metric": resolved.name}
    identity |= {"seed": str(seed), "loss": objective.description}
    with locked(folder):
        work = Trials(model, (train_data, validation_data), folder, settings, budget, fine_tune, executor, progress)
        work.prepare(arranged, identity, storage, families, seed)
        with executor.running():
            work.run(trials, time_limit)
        return work.result()


def _check_names(settings):
    for name in ("metric", "loss"):
        if not isinstance(settings[name], str | None):
            raise ValueError(
                f"`{name}` should be a name where trials run in other processes; received {describe(settings[name])}. "
                "Give a name, or `executor='local'`."
            )
