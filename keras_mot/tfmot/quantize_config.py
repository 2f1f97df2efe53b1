"""TFMOT's `QuantizeConfig`, whose methods name the weights and activations of a layer, and a quantizer for each.

What the methods return is translated: quantizers that an integer kernel exists for become settings, all others are
called in front of our own rounding. Nothing is set on the layer, so that the two setters are not needed.
"""

import dataclasses
from typing import Any, ClassVar

import keras

from keras_mot import quantization
from keras_mot._warnings import warn
from keras_mot.graph.kinds import WEIGHTED, has_role
from keras_mot.layers.finding import find_weights
from keras_mot.quantization.lowering.table import lowering_of
from keras_mot.tfmot import quantizers
from keras_mot.tfmot.calling import CalledOnActivation, CalledOnWeight

_OURS = {
    kind: getattr(quantization, kind.__name__)
    for kind in (
        quantizers.LastValueQuantizer,
        quantizers.MovingAverageQuantizer,
        quantizers.AllValuesQuantizer,
        quantizers.FixedQuantizer,
    )
}


class QuantizeConfig(quantization.QuantizeConfig):
    """How layers are quantized, said by methods; for `quantize_annotate_layer`.

    `get_weights_and_quantizers` and `get_activations_and_quantizers` are asked for pairs, and `get_output_quantizers`
    for quantizers. A weight of at most 8 bits that is symmetric, and activations that are not, in as many bits as the
    scheme has, are what integer kernels compute with. Any other quantizer is called, and its result rounded as the
    scheme says; a warning tells what the file has. Where nothing is asked of what a layer returns, the scheme decides:
    the results of integer kernels are integers. A layer whose weights, activations and outputs have no quantizer at all
    stays in floats.

    `set_quantize_weights` and `set_quantize_activations` may be there, and are not called.

    Example:

    ```python
    class FourBits(keras_mot.quantization.keras.QuantizeConfig):
        def get_weights_and_quantizers(self, layer):
            return [(layer.kernel, quantizers.LastValueQuantizer(4, per_axis=True, symmetric=True, narrow_range=True))]
    ```
    """

    asks_methods: ClassVar[bool] = True

    def get_weights_and_quantizers(self, layer: keras.layers.Layer) -> list[tuple[keras.Variable, Any]]:
        """Pairs of a weight of `layer` and a quantizer."""
        return []

    def get_activations_and_quantizers(self, layer: keras.layers.Layer) -> list[tuple[Any, Any]]:
        """Pairs of an activation function of `layer` and a quantizer."""
        return []

    def set_quantize_weights(self, layer: keras.layers.Layer, quantize_weights: list) -> None:
        """Not called: no layer is changed."""

    def set_quantize_activations(self, layer: keras.layers.Layer, quantize_activations: list) -> None:
        """Not called: no layer is changed."""

    def get_output_quantizers(self, layer: keras.layers.Layer) -> list[Any]:
        """Quantizers of what `layer` returns."""
        return []

    def for_layer(self, layer):
        """What the methods say of a layer, as settings of ours; `None` if it stays in floats."""
        if self.weights is not None or self.activations is not None:
            return quantization.QuantizeConfig(self.weights, self.activations)
        return translated(self, layer)


@dataclasses.dataclass(frozen=True)
class Translated(quantization.QuantizeConfig):
    """Settings with quantizers that are called.

    Args:
        on_weights: pairs of (key of a weight, the quantizer that is called on it).
        on_activations: the quantizer that is called on what the layer returns, or `None`.
    """

    on_weights: tuple[tuple[str, Any], ...] = ()
    on_activations: Any = None

    def transforms_of(self, key):
        """The calls of quantizers on a weight."""
        return [
            CalledOnWeight(quantizer, name=f"{key.replace('/', '_')}_quantizer")
            for own, quantizer in self.on_weights
            if own == key
        ]

    def activation_settings(self):
        """The arguments of the quantizer behind the layer."""
        if self.on_activations is None:
            return super().activation_settings()
        return {"make": CalledOnActivation, "quantizer": self.on_activations, "learned": False}


def translated(config: QuantizeConfig, layer: keras.layers.Layer) -> Translated | None:
    """What a config of TFMOT's form says of a layer; `None` if it stays in floats."""
    weights = list(config.get_weights_and_quantizers(layer))
    activations = [quantizer for _, quantizer in config.get_activations_and_quantizers(layer)]
    activations += list(config.get_output_quantizers(layer))
    keys = {id(found.variable): found.key for found in find_weights(layer)[0]}
    weighted = has_role(layer, WEIGHTED) or (bool(keys) and lowering_of(layer) is not None)
    if not weights and not activations and weighted:
        return None
    notes = []
    settings, on_weights = None, []
    for variable, quantizer in weights:
        _check(config, quantizer)
        if id(variable) not in keys:
            notes.append(
                f"{_named(quantizer)} is not called on '{getattr(variable, 'path', variable)}', for nothing says what "
                "that weight is: `keras_mot.graph.register_kind` does"
            )
        elif weighted and is_integer_weight(quantizer):
            settings = quantization.LastValueQuantizer(quantizer.num_bits, quantizer.per_axis)
        else:
            on_weights.append((keys[id(variable)], quantizer))
            notes.append(
                f"{_named(quantizer)} is called on '{keys[id(variable)]}' in training"
                + (", and the file has what it returns, " + ("rounded to integers" if weighted else "in floats"))
            )
    for quantizer in activations:
        _check(config, quantizer)
    called = next((quantizer for quantizer in activations if not is_integer_activation(quantizer)), None)
    own = None if called is not None or not activations else _ours(activations[-1])
    if called is not None:
        notes.append(f"{_named(called)} is called on its results in training, and the file has integers of the scheme")
    if weighted and not weights:
        notes.append("its weights are rounded as the scheme says, for an integer kernel has no others")
    if weighted and not activations:
        notes.append("its results are rounded as the scheme says, for an integer kernel returns integers")
    if notes:
        warn(f"'{layer.name}' with `{type(config).__name__}`: {'; '.join(notes)}.")
    return Translated(settings, own, tuple(on_weights), called)


def _check(config, quantizer):
    if not callable(getattr(quantizer, "build", None)) and _core(quantizer) is None:
        raise TypeError(
            f"`{type(config).__name__}` returned {quantizer!r} where a quantizer is expected: return objects of "
            "`keras_mot.quantization.keras.quantizers`, or of your own subclass of its `Quantizer`."
        )


def _named(quantizer):
    return quantizer if dataclasses.is_dataclass(quantizer) else f"`{type(quantizer).__name__}`"


def _core(quantizer):
    """The class of ours that a quantizer stands for, if it computes as that: subclasses may do anything."""
    return type(quantizer) if type(quantizer) in _OURS.values() else _OURS.get(type(quantizer))


def _ours(quantizer):
    fields = {field.name: getattr(quantizer, field.name) for field in dataclasses.fields(quantizer)}
    return _core(quantizer)(**fields)


def is_integer_weight(quantizer: Any) -> bool:
    """Whether integer kernels compute with a weight that is rounded so; of 8 bits they leave out -128."""
    return _core(quantizer) is quantization.LastValueQuantizer and quantizer.symmetric and quantizer.num_bits <= 8


def is_integer_activation(quantizer: Any, bits: int = 8) -> bool:
    """Whether integer kernels compute with activations that are rounded so."""
    plain = not any(getattr(quantizer, name, False) for name in ("per_axis", "symmetric", "narrow_range"))
    return _core(quantizer) is not None and plain and quantizer.num_bits == bits
