"""When a metric has collapsed: more is lost than a recipe that suits a model loses."""

import math

from keras_mot._warnings import warn

_LARGEST_LOSS = 0.1  # share of the float's value, of metrics of which more is better
_LARGEST_GROWTH = 2.0  # times the float's value, of errors


def collapsed(stage, plain, metric):
    """Whether the file of a stage has lost more than a tenth of the float's metric, or more than doubled its error.

    Args:
        stage: the `StageResult`.
        plain: that of the float model.
        metric: the `ResolvedMetric`.
    """
    if _is_lost(stage.metric, plain.metric, metric.greater_is_better):
        return True
    return any(
        _is_lost(value, plain.metrics[output], metric.directions.get(output, metric.greater_is_better))
        for output, value in stage.metrics.items()
        if output in plain.metrics
    )


def _is_lost(value, reference, greater_is_better):
    if not math.isfinite(value):
        return True
    if greater_is_better:
        return value < reference - _LARGEST_LOSS * abs(reference)
    return value > _LARGEST_GROWTH * reference > 0


def warn_of_collapse(result):
    """Warns if the last file of a run has collapsed, and says what else there is."""
    last, plain = result.stages[-1], result.stages[0]
    if not last.collapsed:
        return
    changes = [(f"'{name}'", plain.metrics.get(name, math.nan), value) for name, value in last.metrics.items()]
    changes = changes or [(result.metric_name, plain.metric, last.metric)]
    told = [f"{name} went from {before:.4g} to {after:.4g}" for name, before, after in changes]
    better = [stage for stage in result.stages[1:] if not stage.collapsed]
    way_out = "Ask for less (a lower sparsity, more values, more bits), or train longer"
    if better:
        smallest = min(better, key=lambda stage: stage.zipped_bytes)
        way_out += f"; or take '{smallest.artifact.name}' ({result.metric_name} {smallest.metric:.4g})"
    warn(
        f"By the last stage, '{last.name}', {', '.join(told)}: recipe '{result.recipe}' takes more than "
        f"this model can give. {way_out}. `result.best()` chooses."
    )
