"""Which recipe suits a model and a goal, by the model's own graph: where its weights are, what has integer kernels.

The rules follow from what this project's benchmarks measured (`benchmarks/README.md`); each result says which facts
it went by.
"""

import dataclasses
import math
import warnings
from typing import Any

import keras

from keras_mot import targets
from keras_mot._keras import flatten_layers
from keras_mot._messages import describe
from keras_mot.graph.kinds import LOOKS_UP, has_role, is_kind, kind_of
from keras_mot.graph.model_graph import Graph
from keras_mot.layers.activation_quantizer import ActivationQuantizer
from keras_mot.layers.finding import find_weights, require_built
from keras_mot.layers.transformed import transformed_weights
from keras_mot.quantization.aware_training import quantize_model
from keras_mot.transforms import FakeQuantize

GOALS = ("size", "speed", "micro")
_LARGE = 1_000_000  # weights, from which on most of a network for a small task can be removed
_SMALL = 10_000  # parameters
_MOSTLY = 0.8
_WIDE = 512  # inputs of a dense layer, where reading the weights takes most of the time
_CHANNELS = 64  # of convolutions that are wide enough to lose half of them


@dataclasses.dataclass(frozen=True)
class Recommendation:
    """A recipe for a model and a goal.

    Attributes:
        goal: "size", "speed" or "micro".
        recipe: the name of a preset.
        target: what to give as `target`, or `None` for the default.
        reasons: why this recipe, sentences.
        next_steps: what to try afterwards, sentences.
        cautions: what stands in the way, sentences.
        command: the command that runs the recipe.
        refused: whether the target refuses the model as it is; the cautions say why.
        facts: what was found, by name.
    """

    goal: str
    recipe: str
    target: str | None
    reasons: tuple[str, ...]
    next_steps: tuple[str, ...]
    cautions: tuple[str, ...]
    command: str
    refused: bool
    facts: dict[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """All of it as JSON values."""
        return dataclasses.asdict(self)

    def __str__(self):
        target = "" if self.target is None else f" for the target '{self.target}'"
        lines = [f"For {self.goal}: the recipe '{self.recipe}'{target}.", "Why:"]
        lines += [f"  - {line}" for line in self.reasons]
        for title, found in (("Mind:", self.cautions), ("Then:", self.next_steps)):
            lines += [title, *(f"  - {line}" for line in found)] if found else []
        run = "Run it, once that is mended:" if self.refused else "Run it:"
        return "\n".join([*lines, run, f"  {self.command}"])


def recommend(model: keras.Model, goal: str = "size", training: bool = True) -> Recommendation:
    """Recommends a recipe.

    Args:
        model: a built model, not quantized. It is not changed.
        goal: "size", the smallest file; "speed", the shortest time for a sample; or "micro", a microcontroller.
        training: whether there are data with labels, and time, to train with.

    Returns:
        A `Recommendation`.

    Raises:
        TypeError: if `model` is no Keras model.
        ValueError: if the goal is unknown, or the model is not built, has no weights, or carries transforms.

    Example:

    ```python
    print(keras_mot.recipes.recommend(model, goal="speed"))
    ```
    """
    if not isinstance(model, keras.Model):
        raise TypeError(f"`recommend` expects a Keras model; received {describe(model)}.")
    if goal not in GOALS:
        raise ValueError(f"`goal` should be {', '.join(map(repr, GOALS))}; received {describe(goal)}.")
    require_built(model, "recommending a recipe")
    if transformed_weights(model):
        raise ValueError(f"'{model.name}' carries weight transforms: recommend a recipe for the plain, trained model.")
    facts = _facts(model)
    if not facts["weights"]:
        raise ValueError(f"'{model.name}' has no weights that could be made smaller.")
    target = "micro" if goal == "micro" else None
    integers, refusal = _integers(model, target)
    facts["weights_in_integers"] = integers
    rules = {"size": _for_size, "speed": _for_speed, "micro": _for_micro}[goal]
    recipe, reasons, next_steps = rules(facts, training, refusal)
    cautions = _cautions(model, facts, goal)
    if refusal is not None:
        cautions.append(refusal)
    elif integers < facts["weights"]:
        cautions.append(
            f"{facts['weights'] - integers:,} of {facts['weights']:,} weights have no integer form and stay in floats."
        )
    command = f"keras-mot compress MODEL.keras --recipe {recipe} --data DATA.npz -o RUN"
    command += f" --target {target}" if target else ""
    return Recommendation(
        goal,
        recipe,
        target,
        tuple(reasons),
        tuple(next_steps),
        tuple(cautions),
        command,
        refusal is not None and goal == "micro",
        facts,
    )


def _cautions(model, facts, goal):
    """What is to be minded whatever the recipe."""
    found = []
    if facts["parameters"] < _SMALL:
        found.append(
            f"A model of {facts['parameters']:,} parameters is small already: most of its file is not weights, and "
            "neither size nor time may fall much. Measure before you decide."
        )
    recurrent = ", ".join(layer.name for layer in flatten_layers(model) if isinstance(layer, keras.layers.RNN))
    if recurrent and goal != "size":
        cost = "and the arena, many times what the weights take" if goal == "micro" else "with each kernel stored once"
        found.append(
            f"Recurrent layers ({recurrent}) become their timesteps one after the other in integers: the more "
            f"timesteps, the larger the file, {cost}."
        )
    return found


def _facts(model):
    """Numbers of weights by what they are in, and what layers there are."""
    found = find_weights(model)[0]
    by_kind = {}
    wide = channels = 0
    for weight in found:
        kind = kind_of(weight.owner)
        name = type(weight.owner).__name__ if kind is None else kind.name
        count = math.prod(weight.variable.shape)
        by_kind[name] = by_kind.get(name, 0) + count
        if name in ("dense", "einsum_dense") and weight.variable.shape[0] >= _WIDE:
            wide += count
        if name == "conv" and weight.variable.shape[-1] >= _CHANNELS:
            channels += count
    layers = flatten_layers(model)
    return {
        "parameters": model.count_params(),
        "weights": sum(by_kind.values()),
        "float_bytes": 4 * model.count_params(),
        "by_kind": dict(sorted(by_kind.items(), key=lambda each: -each[1])),
        "in_wide_dense": wide,
        "in_wide_convolutions": channels,
        "depthwise_layers": sum(is_kind(layer, "depthwise_conv", "separable_conv") for layer in layers),
        "batch_normalizations": sum(is_kind(layer, "batch_normalization") for layer in layers),
    }


def _integers(model, target):
    """How many weights get an integer form for a target, and why it refuses the model, or `None`."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            quantized = quantize_model(model, target=targets.get(target or "litert"))
        except (TypeError, ValueError) as error:
            return 0, str(error)
    rounded = [
        weight.variable
        for weight in transformed_weights(quantized)
        if any(isinstance(each, FakeQuantize) for each in weight.transforms)
    ]
    rounded += [variable for layer in _lookups_in_integers(quantized) for variable in layer.weights]
    return sum(math.prod(variable.shape) for variable in rounded), None


def _lookups_in_integers(quantized):
    """The tables whose rows are integers, since what they give gets a range."""
    graph = Graph(quantized)
    return [
        call.operation
        for call in graph.calls
        if has_role(call.operation, LOOKS_UP)
        and any(isinstance(reader.operation, ActivationQuantizer) for reader in graph.readers(call.outputs[0]))
    ]


def _share(facts, name):
    return facts["by_kind"].get(name, 0) / facts["weights"]


def _where(facts):
    name, count = next(iter(facts["by_kind"].items()))
    return (
        f"It has {facts['parameters']:,} parameters, {facts['float_bytes']:,} bytes in floats; "
        f"{count / facts['weights']:.0%} of the weights are of the kind '{name}'."
    )


_SEARCH = "If you know the bytes or the time that you can afford, `keras_mot.recipes.search` finds the settings."
_DROP = "Look at the accuracy of each stage in the table, and take `result.best(max_drop=0.01)`."


def _for_size(facts, training, refusal):
    reasons, steps = [_where(facts)], [_DROP, _SEARCH]
    if not training:
        reasons.append(
            "Without training, integers are the safest: a quarter of the size, and usually no accuracy lost."
        )
        steps.insert(0, "`keras_mot.sparsity.prune_at_once` sets up to half of the weights to zero without training.")
        return ("int8" if refusal is None else "dynamic-range"), reasons, steps
    if refusal is not None:
        reasons.append("It cannot be quantized to integers as it is, so that only large weights are stored in 8 bits.")
        return "dynamic-range", reasons, steps
    if facts["weights"] >= _LARGE and _share(facts, "dense") >= _MOSTLY:
        reasons.append(
            "Large dense layers lose nearly all of their weights at no cost: 98 % zeros, 8 values, integers."
        )
        steps.insert(0, "If too much is lost, take 'size': 80 % zeros and 16 values.")
        return "deep-compression", reasons, steps
    if facts["depthwise_layers"]:
        reasons.append(
            "Depthwise-separable convolutions have few weights to spare: half of them become zero, not more."
        )
        steps.insert(0, "If the accuracy holds, try 'size': 80 % zeros and 16 values.")
        return "balanced", reasons, steps
    reasons.append("80 % zeros and 16 values in each weight zip to a small fraction, in integers a quarter of that.")
    steps.insert(0, "If too much is lost, take 'balanced' (50 % zeros) or 'clustered-int8' (32 values, no zeros).")
    return "size", reasons, steps


def _for_speed(facts, training, refusal):
    reasons, steps = [_where(facts)], ["Measure on your device: `keras-mot measure` times files side by side."]
    if refusal is not None:
        reasons.append(
            "It cannot be quantized to integers as it is; 8-bit weights make dense layers faster all the same."
        )
        return "dynamic-range", reasons, steps
    reasons.append("Integer kernels take a half to a fifth of the time; what is faster in floats stays in floats.")
    if facts["in_wide_dense"] / facts["weights"] >= 0.5:
        reasons.append("Half of the weights are in wide dense layers, whose time is that of reading the weights.")
        steps.append("For one sample at a time, weights of 8 bits beside floats ('dynamic-range') need no calibration.")
    if training and facts["in_wide_convolutions"] / facts["weights"] >= 0.5 and not facts["depthwise_layers"]:
        steps.append(
            "Its convolutions have many channels: `PruneChannels(0.5)` before the integers cuts half of them out."
        )
    if training:
        steps.append("If accuracy is lost, 'int8-qat' trains with the rounding.")
    return "int8", reasons, steps


def _for_micro(facts, training, refusal):
    reasons = [_where(facts), f"In integers its weights take about {facts['weights']:,} bytes of flash."]
    reasons.append("The target 'micro' uses only what LiteRT for Microcontrollers has, one sample at a time.")
    steps = ["The export says how much memory (arena) the model takes, if the extra `micro` is installed."]
    if training:
        steps.append("If accuracy is lost, 'int8-qat' trains with the rounding; 'sparse-int8' makes updates smaller.")
    return "int8", reasons, steps
