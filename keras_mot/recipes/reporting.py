"""The report of a result, and results that are read from the folder of a run."""

import json
import math
import os
import pathlib
from typing import Any

import keras

from keras_mot._messages import describe
from keras_mot._model_files import load_model_file
from keras_mot.analysis import ModelReport, Sensitivity
from keras_mot.analysis.reporting.contents import Candidate, Variant, check_page
from keras_mot.analysis.reporting.gathering import Made, gather
from keras_mot.analysis.reporting.measured import candidates_of, environment, timed_in
from keras_mot.data.pairs import is_pair
from keras_mot.recipes import _run_log
from keras_mot.recipes.result import CompressionResult, StageResult
from keras_mot.recipes.searching.budget import Budget
from keras_mot.recipes.searching.result import SearchResult, Trial, measured

_SEARCH, _SENSITIVITY, _REPORT = "search.json", "sensitivity.json", "report.json"
_KEPT = 256  # samples


def report_of(
    result: CompressionResult, path: str | os.PathLike | None, data: Any, sensitivity: Sensitivity | None
) -> ModelReport:
    """The `ModelReport` of a result; see `CompressionResult.report`."""
    if path is not None:
        path = check_page(path)
    if sensitivity is not None and not isinstance(sensitivity, Sensitivity):
        raise TypeError(f"`sensitivity` should be what `sensitivity` returned; received {describe(sensitivity)}.")
    gone = [stage.artifact for stage in (result.stages[0], result.stages[-1]) if not stage.artifact.is_file()]
    if gone:
        raise ValueError(f"The files of the run are gone: '{gone[0]}' is not there. Run the recipe again.")
    last = result.stages[-1]
    variants = [_variant(stage) for stage in result.stages]
    made = Made(
        title=result.model.name,
        before=result.stages[0].artifact,
        after=last.artifact,
        model=_with_transforms(result),
        inputs=_inputs(result, data),
        in_floats=last.float_operators,
        settings=_settings(result),
        sensitivity=sensitivity or _searched(result),
    )
    timed = [variant for variant in variants if variant.latency_ms is not None]
    found = gather(
        made,
        variants,
        _candidates(result, variants),
        metric_name=result.metric_name,
        greater_is_better=result.greater_is_better,
        samples=result.samples,
        runtime=timed_in(["litert"], None, 1) if timed else "",
    )
    if path is not None:
        found.save(path)
    return found


def read_result(folder: str | os.PathLike) -> CompressionResult:
    """The result of a finished run of `compress` or `search`, from its folder.

    Args:
        folder: that `output_dir` named.

    Returns:
        A `CompressionResult`, or a `SearchResult` for the folder of a search.

    Raises:
        ValueError: if there is no finished run in the folder, its files are damaged, or its last model cannot be loaded
            here.
    """
    folder = pathlib.Path(folder)
    if (folder / _SEARCH).is_file():
        return _read_search(folder)
    return _read_run(folder)


def _read_run(folder):
    if not (folder / _run_log.NAME).is_file():
        raise ValueError(f"'{folder}' holds no run of `compress` or `search`: '{_run_log.NAME}' is not there.")
    try:
        log = _run_log.read(folder)
    except (OSError, ValueError) as error:
        raise ValueError(f"'{folder / _run_log.NAME}' is damaged, or of no run: {error}.") from error
    if len(log.stages) < len(log.names):
        raise ValueError(
            f"The run in '{folder}' is not finished: stage '{log.names[len(log.stages)]}' is missing. Call it again."
        )
    values = _json(folder / _REPORT)
    name, better = values.get("recipe"), values.get("greater_is_better")
    if not isinstance(name, str) or not isinstance(better, bool) or not isinstance(values.get("metric_name"), str):
        raise ValueError(f"'{folder / _REPORT}' is damaged, or of no run.")
    for stage in log.stages:
        if not stage.artifact.is_file():
            raise ValueError(f"'{stage.artifact}' is missing.")
    model = load_model_file(log.stages[-1].model_path)
    return CompressionResult(model, log.stages, name, values["metric_name"], folder, better)


def _read_search(folder):
    values = _json(folder / _SEARCH)
    try:
        trials = tuple(_trial(folder, trial) for trial in values["trials"])
        (best,) = (trial for trial in trials if trial.number == values["best_trial"])
        budget, seconds = Budget(**values["budget"]), float(values["seconds"])
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"'{folder / _SEARCH}' is damaged, or of no search: {error}") from error
    run = _read_run(best.folder)
    fields = (run.model, run.stages, run.recipe, run.metric_name, run.output_dir, run.greater_is_better)
    return SearchResult(*fields, budget=budget, trials=trials, best_trial=best, seconds=seconds)


def _trial(folder, values):
    name = values["folder"]
    if name is not None and (not isinstance(name, str) or pathlib.Path(name).name != name):
        raise ValueError(f"{describe(name)} is no name of a trial's folder")
    excess = math.inf if values["excess"] is None else values["excess"]
    return Trial(**{**values, "folder": None if name is None else folder / name, "excess": excess})


def _json(path):
    try:
        values = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"'{path}' cannot be read: {error}.") from error
    if not isinstance(values, dict):
        raise ValueError(f"'{path}' holds no object.")
    return values


def _variant(stage: StageResult) -> Variant:
    return Variant(
        name=stage.name,
        kind="litert" if stage.has_file else "keras",
        bytes=stage.bytes,
        zipped_bytes=stage.zipped_bytes,
        sparsity=stage.sparsity,
        values=stage.values,
        metric=stage.metric,
        metrics=dict(stage.metrics),
        latency_ms=stage.latency_ms,
        keras_metric=stage.keras_metric,
        seconds=stage.seconds,
        file=stage.artifact.name,
        weights=stage.weights,
        collapsed=stage.collapsed,
        brotli_bytes=stage.brotli_bytes,
        arena_bytes=stage.arena_bytes,
        verification=stage.verification,
    )


def _candidates(result, variants):
    if not isinstance(result, SearchResult):
        return candidates_of(variants)
    first = result.stages[0]
    trials = [
        Candidate(f"trial {trial.number}", trial.zipped, trial.metric, trial.family, trial == result.best_trial)
        for trial in measured(result.trials)
    ]
    return [Candidate("float", first.zipped_bytes, first.metric, "float"), *trials]


def _with_transforms(result):
    """The last model with its masks and codebooks, which a plain result has no more."""
    path = result.stages[-1].model_path
    if not path.is_file():
        return result.model
    from keras_mot.layers import transformed_weights

    if transformed_weights(result.model):
        return result.model
    try:
        return load_model_file(path)
    except ValueError:  # layers of the user's own that are not registered
        return result.model


def _inputs(result, data):
    if data is None:
        return result.examples
    data = data[0] if is_pair(data) else data
    leaves = keras.tree.flatten(data)
    if not leaves or not all(hasattr(leaf, "shape") and len(leaf.shape) for leaf in leaves):
        raise TypeError(
            f"`data` should be arrays, the batch first, or a tuple (x, y) of them; received {describe(data)}."
        )
    return keras.tree.map_structure(lambda leaf: leaf[:_KEPT], data)


def _settings(result):
    """The recipe and everything else that a run must have in common with one that repeats it."""
    settings = {"Recipe": result.recipe, "Folder of the run": str(result.output_dir)}
    if isinstance(result, SearchResult):
        settings |= {"Budget": str(result.budget), "Trials": f"{len(result.trials)}, {result.seconds:.0f} s in all"}
        settings |= {"Best trial": f"{result.best_trial.number}, {result.best_trial.family}"}
    try:
        identity = _run_log.read(pathlib.Path(result.output_dir)).identity
    except (OSError, ValueError):
        identity = {}
    for key, label in (("seed", "Seed"), ("metric", "Metric"), ("loss", "Loss")):
        if key in identity:
            settings[label] = identity[key].removeprefix("loss: ")
    settings |= environment()
    if "recipe" in identity:
        settings["Recipe as YAML, for `keras-mot compress --recipe FILE.yaml`"] = identity["recipe"]
    return settings


def _searched(result):
    """The sensitivities that a search has found, or `None`."""
    path = pathlib.Path(result.output_dir).parent / _SENSITIVITY
    if not isinstance(result, SearchResult) or not path.is_file():
        return None
    try:
        return Sensitivity.from_dict(json.loads(path.read_bytes()))
    except (OSError, ValueError, KeyError, TypeError):
        return None
