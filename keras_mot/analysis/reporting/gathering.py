"""Everything that a report says, from the files and the model that were made."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import keras

from keras_mot.analysis._drift import measure_drift
from keras_mot.analysis.activation_ranges import activation_ranges
from keras_mot.analysis.operator_times import operator_times
from keras_mot.analysis.reporting.advice import advice_for
from keras_mot.analysis.reporting.contents import Candidate, ModelReport, Variant
from keras_mot.analysis.reporting.kernels import kernel_changes
from keras_mot.analysis.reporting.words import details, headline
from keras_mot.analysis.sensitivity_report import Sensitivity
from keras_mot.analysis.subjects import open_subject
from keras_mot.clustering import clustering_report
from keras_mot.data.arrays import part, sample_count
from keras_mot.data.inputs import fixed_batch_size
from keras_mot.layers import transformed_weights
from keras_mot.layers.activation_quantizer import is_quantized
from keras_mot.sparsity import pruning_report
from keras_mot.targets import target_of

_DRIFT_SAMPLES = 64
_NO_DATA = "no data were given: pass `data`, some hundred typical inputs (on the command line `--data`)"


@dataclasses.dataclass(frozen=True)
class Made:
    """What a report is made of, beside the numbers of its variants.

    Attributes:
        title: name of the model.
        before: what is compared with: a path, an export, or a Keras model.
        after: what the report is about.
        model: the Keras model that `after` was made from, with its transforms; or `None`.
        inputs: arrays in the structure of the model's inputs, the batch first; or `None`.
        in_floats: as of `ModelReport`.
        settings: as of `ModelReport`.
        sensitivity: as of `ModelReport`.
    """

    title: str
    before: Any
    after: Any
    model: keras.Model | None = None
    inputs: Any = None
    in_floats: tuple[tuple[str, str, str], ...] = ()
    settings: Mapping[str, str] = dataclasses.field(default_factory=dict)
    sensitivity: Sensitivity | None = None


def gather(
    made: Made,
    variants: Sequence[Variant],
    candidates: Sequence[Candidate],
    *,
    metric_name: str | None,
    greater_is_better: bool,
    samples: int,
    runtime: str,
) -> ModelReport:
    """The `ModelReport` of what was made; the arguments are its fields."""
    before, after = open_subject(made.before), open_subject(made.after)
    if variants[-1].arena_bytes is not None:  # times of this machine say nothing of a microcontroller's
        variants = [dataclasses.replace(each, latency_ms=None) for each in variants]
        runtime = ""
    first, last = variants[0], variants[-1]
    ranges, drift, missing = _of_integers(made, after)
    if made.sensitivity is None:
        missing["Sensitivities"] = (
            "they were not computed: pass `sensitivity=keras_mot.analysis.sensitivity(model, data)` of the float model"
        )
    times = ()
    if last.arena_bytes is not None:
        missing["Time of a sample"] = "the file is for microcontrollers, and none was at hand to time it on"
        missing["Time per operator"] = missing["Time of a sample"]
    elif last.latency_ms is None:
        missing["Time per operator"] = "nothing was timed"
    elif after.kind != "litert":
        missing["Time per operator"] = "operators are timed in LiteRT's files alone"
    else:
        times = operator_times(after.path)
    parts = {
        "variants": tuple(variants),
        "candidates": tuple(candidates),
        "metric_name": metric_name,
        "greater_is_better": greater_is_better,
        "samples": samples,
        "runtime": runtime,
        "kernels": kernel_changes(before.constants(), after.constants(), _names_in_order(made.model)),
        "operators": tuple((*key, count) for key, count in sorted(after.operators().items(), key=_most_first)),
        "in_floats": tuple(made.in_floats),
        "left_alone": _left_alone(made.model),
        "ranges": ranges,
        "drift": drift,
        "operator_times": times,
    }
    only = len(variants) == 1
    return ModelReport(
        title=made.title,
        headline=headline(first, last, metric_name, greater_is_better) if not only else _single(last),
        details=details(first, last, metric_name, samples, runtime, only),
        sensitivity=made.sensitivity,
        advice=advice_for(parts),
        settings=dict(made.settings),
        missing=missing,
        **parts,
    )


def _names_in_order(model):
    """The names of weights as files have them, in the order in which the model has them."""
    return [] if model is None else [weight.path.removeprefix(f"{model.name}/") for weight in model.weights]


def _single(variant):
    return f"'{variant.name}' as it is: there is nothing to compare it with."


def _most_first(item):
    (name, kind), count = item
    return -count, name, kind


def _of_integers(made, after):
    """Ranges and drift, where there are any; and why not, elsewhere."""
    names = ("Ranges of activations", "Drift")
    if made.model is None or not is_quantized(made.model):
        reason = "it is of quantized models; this one computes in floats"
        if made.model is None:
            reason = "it needs the quantized Keras model, which was not given"
        return (), None, dict.fromkeys(names, reason)
    if made.inputs is None:
        return (), None, dict.fromkeys(names, _NO_DATA)
    ranges = activation_ranges(made.model, made.inputs, fixed_batch_size(made.model) or 32)
    if after.kind != "litert":
        return ranges, None, {names[1]: "inner values are read from LiteRT's files alone"}
    if target_of(made.model).runtime == "micro":
        return ranges, None, {names[1]: "the file is for microcontrollers, and was proved there to the last bit"}
    count = min(sample_count(made.inputs), _DRIFT_SAMPLES)
    step = fixed_batch_size(made.model)
    if step:
        count -= count % step
    if not count:
        return ranges, None, {names[1]: f"the file takes batches of {step}, and there are fewer samples"}
    try:
        return ranges, measure_drift(made.model, after.path, part(made.inputs, slice(count))), {}
    except ValueError as error:  # a file of another model, or one whose inner values have other names
        return ranges, None, {names[1]: str(error)}


def _left_alone(model):
    """(technique, weight, reason) of what pruning and clustering left alone, if they were at work."""
    rows = []
    if model is None or not transformed_weights(model):
        return ()
    pruned, clustered = pruning_report(model), clustering_report(model)
    if pruned.pruned:
        rows += [("pruning", path, reason) for path, reason in pruned.left_alone]
    if clustered.clustered:
        rows += [("clustering", path, reason) for path, reason in clustered.left_alone]
    return tuple(rows)
