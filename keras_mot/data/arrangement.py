"""Inputs and labels of models with several inputs and outputs, brought into the order of the model."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import keras

from keras_mot._messages import describe
from keras_mot.data.naming import input_name, name_outputs

Names = str | list[str] | dict[str, str] | None


@dataclasses.dataclass(frozen=True)
class Arrangement:
    """How a model takes its inputs and gives its outputs.

    Stages give layers, and so outputs, other names; the order, or the keys of a dictionary, stays.

    Attributes:
        inputs: the name of the one input, a list of names, or a dictionary with names as keys; `None` if the model does
            not tell, as subclassed ones do not.
        outputs: the same of the outputs.
    """

    inputs: Names
    outputs: Names = None

    @property
    def output_names(self) -> tuple[str, ...]:
        """Names of the outputs, where there are several."""
        return () if self.outputs is None or isinstance(self.outputs, str) else tuple(self.outputs)

    def arrange_inputs(self, x: Any, label: str) -> Any:
        """The inputs as the model takes them; raises a ValueError that calls them `label` if they do not fit."""
        return _arranged(x, self.inputs, label, "input")

    def arrange_labels(self, y: Any, label: str) -> Any:
        """The labels in the structure of the outputs; raises a ValueError as `arrange_inputs` does."""
        return _arranged(y, self.outputs, label, "output")

    def arrange(self, x: Any, y: Any) -> tuple[Any, Any]:
        """Inputs and labels of a batch; tuples in the place of lists, which Keras takes for arrays on TensorFlow."""
        return keras.tree.lists_to_tuples((self.arrange_inputs(x, "a batch"), self.arrange_labels(y, "a batch")))


def input_arrangement(model: keras.Model) -> Arrangement:
    """How a model takes its inputs."""
    tensors = getattr(model, "inputs", None)
    if not tensors:
        return Arrangement(None)
    structure = tensors[0] if isinstance(model, keras.Sequential) else getattr(model, "input", None)
    return Arrangement(_names(structure, [input_name(tensor) for tensor in keras.tree.flatten(structure)]))


def with_outputs(arrangement: Arrangement, model: keras.Model, outputs: Any) -> Arrangement:
    """The arrangement with what a model returned, as it returned it."""
    names, _ = name_outputs(model, outputs)
    if isinstance(model, keras.Sequential):
        names = [model.layers[-1].name]
    found = _names(outputs, names)
    if found is None:
        raise ValueError(
            f"'{model.name}' returns a nested structure of outputs; recipes take one output, a list, or a dictionary."
        )
    return dataclasses.replace(arrangement, outputs=found)


def _names(structure, flat):
    """The names of a flat structure, in it; `None` for nested ones."""
    if not keras.tree.is_nested(structure):
        return flat[0]
    if isinstance(structure, dict):
        nested = any(keras.tree.is_nested(item) for item in structure.values())
        keys = [str(path[0]) for path, _ in keras.tree.flatten_with_path(structure)]  # in the order of flattening
        return None if nested else dict(zip(keys, keys, strict=True))
    if not isinstance(structure, list | tuple) or len(structure) != len(flat):
        return None
    return list(flat)


def _arranged(given, names, label, kind):
    if names is None:
        return given
    if isinstance(names, str):
        return _only(given, names, label, kind)
    if isinstance(given, Mapping) and set(given) == set(names):
        return {name: given[name] for name in names} if isinstance(names, dict) else [given[name] for name in names]
    if isinstance(names, list) and isinstance(given, list | tuple) and len(given) == len(names):
        return list(given)
    if len(names) == 1 and not isinstance(
        given, Mapping | list | tuple
    ):  # one array for `Model([a], b)`, as Keras does
        return {name: given for name in names} if isinstance(names, dict) else [given]
    ways = f"a dictionary of an array for each: {list(names)}"
    if isinstance(names, list):
        ways = f"a list of an array for each, in the order {names}, or a dictionary of these names"
    raise ValueError(
        f"The model has {len(names)} {kind}s: the {_SIDES[kind]} of {label} should be {ways}; received "
        f"{describe(given)}."
    )


def _only(given, name, label, kind):
    if isinstance(given, Mapping) and set(given) == {name}:
        return given[name]
    if isinstance(given, list | tuple) and len(given) == 1 and hasattr(given[0], "shape"):
        return given[0]
    if isinstance(given, Mapping | list | tuple):
        raise ValueError(
            f"The {_SIDES[kind]} of {label} should be one array, for the {kind} '{name}'; received {describe(given)}."
        )
    return given


_SIDES = {"input": "inputs", "output": "labels"}


def outline(structure):
    """The structure without what is in it."""
    if isinstance(structure, Mapping):
        return {key: outline(item) for key, item in structure.items()}
    if isinstance(structure, list | tuple):
        return (list if isinstance(structure, list) else tuple)(outline(item) for item in structure)
    return None
