"""Which losses and metrics suit a model of several outputs."""

from collections.abc import Mapping

from keras_mot._messages import nearest
from keras_mot.analysis.metrics import labels_by_name
from keras_mot.recipes.objective import (
    Objective,
    check_unusual,
    kind_of_labels,
    loss_and_description,
    saved_loss_weights,
    suitable_metrics,
)


def choose_objectives(model, losses, labels, outputs, metric=None):
    """What to train a model of several outputs for, and what to report: see `choose_objective`.

    Args:
        model: the model, compiled if it was saved so.
        losses: one loss for all outputs; a dictionary from outputs to losses, or a list in their order, with `None` for
            those to be inferred; or `None`.
        labels: list or dictionary of arrays, as the outputs.
        outputs: dictionary from the names of the outputs to arrays, for the first samples.
        metric: as of `compress`.
    """
    names = list(outputs)
    saved = model.loss if losses is None and model.compiled else None
    weights = saved_loss_weights(model) if saved is not None else None
    asked, saved = by_output(losses, names, "loss"), by_output(saved, names, "loss")
    chosen, metrics, kinds, descriptions = {}, {}, {}, []
    for name, array in labels_by_name(labels, names).items():
        try:
            kind = kind_of_labels(array, outputs[name])
            loss, description = loss_and_description(asked[name], saved[name], kind, array, outputs[name])
            if kind is None:
                check_unusual(loss, array, outputs[name])
        except ValueError as error:
            raise ValueError(f"Output '{name}': {error}") from error
        chosen[name], metrics[name], kinds[name] = loss, suitable_metrics(kind, outputs[name])[0], kind
        descriptions.append(f"{description} for '{name}'")
    weights = None if weights is None else by_output(weights, names, "loss_weights")

    def as_outputs(values):
        return values if values is None or isinstance(labels, dict) else [values[name] for name in names]

    return Objective(
        as_outputs(chosen),
        as_outputs(weights),
        f"losses: {', '.join(descriptions)}",
        _metric_by_output(metrics if metric is None else metric, names),
        fit_metrics=[],
        probabilities=False,
        kinds=kinds,
    )


def by_output(value, names, argument):
    """A dictionary from outputs, of one value for all, of a list in their order, or of a dictionary of their names."""
    if isinstance(value, Mapping):
        unknown = [name for name in value if name not in names]
        if unknown:
            raise ValueError(
                f"`{argument}` names the outputs {unknown}; the model has {names}.{nearest(unknown[0], names)}"
            )
        return {name: value.get(name) for name in names}
    if isinstance(value, list | tuple):
        if len(value) != len(names):
            raise ValueError(f"`{argument}` has {len(value)} items; the model has the outputs {names}.")
        return dict(zip(names, value, strict=True))
    return dict.fromkeys(names, value)


def _metric_by_output(metric, names):
    if isinstance(metric, list | tuple):
        return by_output(metric, names, "metric")
    if isinstance(metric, Mapping):
        by_output(metric, names, "metric")  # names that there are
    return metric
