"""Reports for tests, made without a model: with all sections, and with names that try to break out of the page."""

import numpy as np

from keras_mot.analysis import ActivationRange, DriftReport, ModelReport, Sensitivity, SensitivityRow, TensorDrift
from keras_mot.analysis.operator_times import OperatorTime
from keras_mot.analysis.reporting.advice import advice_for
from keras_mot.analysis.reporting.contents import Candidate, Variant
from keras_mot.analysis.reporting.kernels import kernel_changes
from keras_mot.analysis.reporting.words import details, headline
from keras_mot.export.litert.litert_file import ConstantTensor

EVIL = (
    "<script>document.title='broken'</script>",
    '"><img src="http://example.invalid/x.png" onerror="document.title=1">',
    "</style></svg></pre><iframe src='http://example.invalid'>",
    "']]>&amp;--><!-- \u202e $x^2$ {{7*7}} javascript:alert(1) \x00",
)
LONG = "a_block_of_a_network_that_somebody_named_with_care/" * 4 + "kernel"
FIGURES = ("against size", "bytes", "histogram", "range", "drift", "sensitivity", "time")
"""What each figure of the whole report has in its label."""


def tensors(count: int = 4, size: int = 40, names=()) -> tuple[list[ConstantTensor], list[ConstantTensor]]:
    """Kernels in floats, and pruned and rounded to 8 bits."""
    generator, before, after = np.random.default_rng(0), [], []
    for number in range(count):
        name = names[number] if number < len(names) else f"layer_{number}/kernel"
        values = generator.normal(0, 0.1, (size, size)).astype("float32")
        integers = np.where(np.abs(values) < 0.1, 0, np.clip(np.round(values / 0.003), -127, 127)).astype("int8")
        before.append(ConstantTensor(name, "float32", values, False, 0))
        after.append(ConstantTensor(name, "int8", integers, False, 0, np.full((1, 1), 0.003, "float32")))
    return before, after


def whole_report(names=(), count: int = 4, size: int = 40, **changes) -> ModelReport:
    """A `ModelReport` with every section; `names` are those of layers, files and everything else."""
    named = [*names, *(f"name_{number}" for number in range(12))]
    before, after = tensors(count, size, names)
    variants = (
        Variant("float", "litert", 400_000, 350_000, 0.0, 1600, 0.91, {}, 1.2, 0.91, 0.0, "00-float.tflite", "float32"),
        Variant(named[0], "litert", 390_000, 90_000, 0.7, 900, 0.9, {}, 1.3, 0.9, 20.0, "01-prune.tflite", "float32"),
        Variant(named[1], "litert", 110_000, 40_000, 0.7, 120, 0.85, {}, 0.4, 0.86, 9.0, named[2], "integer"),
    )
    parts = {
        "variants": variants,
        "candidates": tuple(
            Candidate(each.name, each.zipped_bytes, each.metric, named[3], each is variants[-1]) for each in variants
        ),
        "metric_name": "accuracy",
        "greater_is_better": True,
        "samples": 1000,
        "runtime": "LiteRT, median of 50 runs, 1 thread",
        "kernels": kernel_changes(before, after),
        "operators": ((named[0], "int8", 3), ("SOFTMAX", "float32", 1)),
        "in_floats": (("SOFTMAX", named[1], f"it has no kernel, says {named[2]}"),),
        "left_alone": (("pruning", named[0], named[1]),),
        "ranges": tuple(
            ActivationRange(name, 8, -1.0, 1.0, False, -2.0, 0.5, -1.5, 0.4, 0.02, 0.1) for name in named[:6]
        ),
        "drift": DriftReport(tuple(TensorDrift(name, 0.1, 0.9, 0.93, 3) for name in named[:6])),
    }
    rows = [
        SensitivityRow(name, technique, 0.5, 0.1 * number, 9.0, 0.1, 100, 50)
        for technique in ("sparsity", "values")
        for number, name in enumerate(named[:5])
    ]
    first, last = variants[0], variants[-1]
    values = {
        "title": named[0],
        "headline": headline(first, last, "accuracy", True),
        "details": details(first, last, "accuracy", 1000, parts["runtime"], False),
        "sensitivity": Sensitivity(tuple(rows), "KL divergence", 256),
        "advice": advice_for(parts),
        "settings": {"Recipe": named[0], "Recipe as YAML": f"name: {named[1]}\nstages:\n- prune: {named[2]}\n"},
        "missing": {"Times of another machine": f"nobody told `{named[0]}`"},
        "operator_times": tuple(
            OperatorTime(name, "int8", name, None if number == 3 else 0.1 / (1 + number), "" if number != 3 else name)
            for number, name in enumerate(named[:6])
        ),
    }
    return ModelReport(**{**parts, **values, **changes})
