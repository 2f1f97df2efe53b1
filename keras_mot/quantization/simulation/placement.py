"""Where activations are rounded: which operations compute in integers, and what ranges their results get."""

import collections

import keras
from keras import layers

from keras_mot._keras import producer_of
from keras_mot.graph.functional import consumers_of, is_a, kind_of, nodes_of
from keras_mot.graph.kinds import FUSED_ACTIVATIONS, activation_of
from keras_mot.graph.rewrite import rewrite
from keras_mot.layers.activation_quantizer import ActivationQuantizer

# What the table says of an operation whose inputs are integers:
OWN = "own"  # its result gets a range of its own
SAME = "same"  # it moves numbers, and its result has them already
ROUNDED = "rounded"  # its result is rounded to the numbers of its input
# The limits that runtimes demand of these results.
FIXED = {
    8: {"sigmoid": (0.0, 255 / 256), "softmax": (0.0, 255 / 256), "tanh": (-1.0, 127 / 128)},
    16: dict.fromkeys(("sigmoid", "softmax", "tanh"), (-32767 / 32768, 32767 / 32768)),
}
# Beyond these inputs, the results of these are their limits, to a step.
_SATURATED = {8: {"sigmoid": 8.0, "tanh": 4.0}, 16: {"sigmoid": 12.0, "tanh": 6.0}}

_LAYERS = {
    OWN: (
        *(layers.Dense, layers.Conv1D, layers.Conv2D, layers.DepthwiseConv1D, layers.DepthwiseConv2D),
        *(layers.Conv1DTranspose, layers.Conv2DTranspose),
        *(layers.Add, layers.Subtract, layers.Multiply, layers.Concatenate, layers.Maximum, layers.Minimum),
        *(layers.GlobalAveragePooling1D, layers.GlobalAveragePooling2D, layers.PReLU, layers.Embedding, layers.Dot),
    ),
    SAME: (
        *(layers.Reshape, layers.Flatten, layers.Permute, layers.RepeatVector, layers.Identity),
        *(layers.ZeroPadding1D, layers.ZeroPadding2D, layers.Cropping1D, layers.Cropping2D, layers.UpSampling1D),
        *(layers.MaxPooling1D, layers.MaxPooling2D, layers.GlobalMaxPooling1D, layers.GlobalMaxPooling2D),
        *(layers.Dropout, layers.SpatialDropout1D, layers.SpatialDropout2D, layers.SpatialDropout3D),
        *(layers.GaussianDropout, layers.GaussianNoise, layers.AlphaDropout, layers.ActivityRegularization),
    ),
    ROUNDED: (layers.AveragePooling1D, layers.AveragePooling2D),
}
_OPERATIONS = {
    OWN: ("Add", "Subtract", "Multiply", "Mean", "Concatenate", "Stack", "Maximum", "Minimum")
    + ("Matmul", "Sum", "Average", "Absolute"),
    SAME: ("Reshape", "Transpose", "Squeeze", "ExpandDims", "GetItem", "Ravel", "Flip", "Tile", "Split", "Unstack")
    + ("Pad", "Repeat", "Swapaxes", "Moveaxis", "Take", "Max", "Min", "MaxPool"),
    ROUNDED: ("AveragePool",),
}
_JOINING = ("Concatenate", "Stack")
WEIGHTED = _LAYERS[OWN][:7]
_PICKING = (layers.MaxPooling1D, layers.MaxPooling2D, layers.GlobalMaxPooling1D, layers.GlobalMaxPooling2D)


def rule_for(operation):
    """`OWN`, `SAME`, `ROUNDED`, the name of an activation in `FIXED`, or `None` for what is computed in floats."""
    if getattr(operation, "data_format", "channels_last") == "channels_first":
        return None
    activation = activation_of(operation)
    if activation is not None:
        return activation if activation in FIXED[8] else SAME if activation == "linear" else OWN
    if is_a(operation, layers.Dot) and operation.normalize:
        return None
    if is_a(operation, layers.UpSampling2D):
        return {"nearest": SAME, "bilinear": ROUNDED}.get(operation.interpolation)
    for rule, kinds in _LAYERS.items():
        if is_a(operation, kinds):
            return rule
    if not isinstance(operation, layers.Layer):
        return next((rule for rule, names in _OPERATIONS.items() if kind_of(operation) in names), None)
    return None


def picks(operation):
    """Whether an operation takes the largest of neighbouring numbers: rounding these first, or the result, is the same.

    After it, there are fewer to round.
    """
    return is_a(operation, _PICKING) and operation.data_format == "channels_last"


def quantizer_of(tensor):
    """The quantizer on whose grid a tensor of a placed model is, or `None`."""
    operation = producer_of(tensor)
    if isinstance(operation, ActivationQuantizer):
        return operation
    if rule_for(operation) != SAME:
        return None
    return quantizer_of(operation._inbound_nodes[tensor._keras_history.node_index].arguments.keras_tensors[0])


def place(model, scheme, selected=lambda operation: True, joined=None, asked=lambda operation: {}):
    """Inserts activation quantizers into a lowered model.

    Args:
        model: what `_lowering.lower` returned.
        scheme: the `QuantizationScheme`.
        selected: function from an operation to whether it shall be computed in integers.
        joined: dictionary from ids of operations to keys: those of equal keys share one quantizer.
        asked: function from an operation to arguments of the `ActivationQuantizer` behind it.

    Returns:
        The model with quantizers, and the list of its layers whose weights shall be quantized.
    """
    placement = _Placement(model, scheme, selected, joined or {}, asked)
    return rewrite(model, placement), list(placement.weighted.values())


class _Placement:
    def __init__(self, model, scheme, selected, joined, asked):
        self._scheme, self._selected, self._joined, self._asked = scheme, selected, joined, asked
        self._shared = {}  # key -> the quantizer of all operations of this key
        self._prescribing = {}  # key -> an operation of this key that prescribes a range
        self._calls = collections.Counter()  # key -> how often its quantizer is called
        self._grids = {}  # id of a tensor -> (its quantizer, the tensor)
        self._rounded = {}  # id of a float tensor -> (the tensor after its quantizer, the tensor)
        self.weighted = {}
        consumers = consumers_of(model)
        outputs = {id(tensor) for tensor in model.outputs}
        self._names = {}
        self._together = {}  # id of an operation -> those that are computed in one step with it
        self._fused = set()  # ids of operations whose result is rounded by what reads it, computed in one step
        nodes = nodes_of(model)
        calls = collections.Counter(id(node.operation) for node in nodes)
        self._readers = {}  # id of an operation -> the operations that read its results
        for node in nodes:
            if id(node.operation) in joined:
                key = joined[id(node.operation)]
                self._calls[key] += 1
                if rule_for(node.operation) in FIXED[8]:
                    self._prescribing[key] = node.operation
            results = node.output_tensors
            for tensor in results:
                reading = [reader.operation for reader in consumers.get(id(tensor), [])]
                self._readers.setdefault(id(node.operation), []).extend(reading)
            readers = consumers.get(id(results[0]), [])
            alone = calls[id(node.operation)] == len(results) == len(readers) == 1
            if alone and id(results[0]) not in outputs and self._fuses(node.operation, readers[0].operation):
                self._fused.add(id(node.operation))
                self._together.setdefault(id(readers[0].operation), []).append(node.operation)
        self._ends = {
            id(node.operation) for node in nodes if any(id(tensor) in outputs for tensor in node.output_tensors)
        }

    def _rule(self, operation):
        """What the table says of an operation; `None` if it shall be in floats."""
        return rule_for(operation) if self._selected(operation) else None

    def _fuses(self, operation, reader):
        if self._rule(operation) != OWN or not self._selected(reader):
            return False
        if kind_of(reader) in _JOINING:
            return True
        if picks(reader):
            return id(operation) not in self._joined
        builds_in = is_a(operation, WEIGHTED) or kind_of(operation) in ("Add", "Subtract", "Multiply")
        plain = getattr(operation, "activation", keras.activations.linear) is keras.activations.linear
        return builds_in and plain and activation_of(reader) in FUSED_ACTIVATIONS

    def __call__(self, operation, *args, **kwargs):
        if not args and "inputs" in kwargs:
            args = (kwargs.pop("inputs"),)
        rule = self._rule(operation)
        if rule is None:
            return operation(*args, **kwargs)
        if rule == SAME:
            if self._leads_to_integers(operation):
                args = self._on_grids(args)
            outputs = operation(*args, **kwargs)
            grid = self._grid(args)
            if id(operation) in self._together:
                (source,) = self._together[id(operation)]
                grid = self._new(source.name, **self._settings(source))
                outputs = grid(outputs)
            if grid is not None:
                self._remember(outputs, grid)
            return outputs
        if not isinstance(operation, layers.Embedding):  # which reads indices
            args = self._on_grids(args)
        outputs = operation(*args, **kwargs)
        if not all("float" in str(tensor.dtype) for tensor in keras.tree.flatten(outputs)):
            return outputs
        if isinstance(operation, WEIGHTED):
            self.weighted[id(operation)] = operation
        if id(operation) in self._fused:
            return outputs
        if rule == ROUNDED or self._joins_one_grid(operation, args):
            quantizer = self._grid(args)
        elif id(operation) in self._joined:
            quantizer = self._of_key(self._joined[id(operation)], operation)
        else:
            quantizer = self._new(operation.name, **self._settings(operation))
        rounded = quantizer(outputs, averages=True) if rule == ROUNDED else quantizer(outputs)
        self._remember(rounded, quantizer)
        return rounded

    def _leads_to_integers(self, operation):
        """Whether what reads the result, moved on or not, computes in integers."""
        for reader in self._readers.get(id(operation), ()):
            rule = self._rule(reader)
            if rule is not None and (rule != SAME or self._leads_to_integers(reader)):
                return True
        return False

    def _settings(self, operation):
        """The arguments of the quantizer behind an operation."""
        rule, bits = rule_for(operation), self._scheme.activation_bits
        if rule in FIXED[bits]:
            return {"fixed": FIXED[bits][rule], "in_training": id(operation) not in self._ends}
        together = self._together.get(id(operation), [])
        asked = {**(self._asked(together[0]) if len(together) == 1 else {}), **self._asked(operation)}
        readers = self._readers.get(id(operation), [])
        reaches = [_SATURATED[bits].get(activation_of(reader)) for reader in readers]
        if not readers or None in reaches or id(operation) in self._ends or "fixed" in asked:
            return asked
        return {"limits": (-max(reaches), max(reaches)), **asked}

    def _of_key(self, key, operation):
        if key not in self._shared:
            settings = self._settings(self._prescribing.get(key, operation))
            self._shared[key] = self._new(operation.name, **settings, calls=self._calls[key])
        return self._shared[key]

    def _joins_one_grid(self, operation, args):
        """Whether an operation puts tensors together that are on one grid all."""
        if kind_of(operation) not in _JOINING:
            return False
        tensors = self._tensors(args)
        grids = {id(self._grids[id(tensor)][0]) if id(tensor) in self._grids else None for tensor in tensors}
        return len(grids) == 1 and None not in grids

    def _new(self, name, **settings):
        count = self._names[name] = self._names.get(name, -1) + 1
        name = f"{name}_quantizer" + (f"_{count}" if count else "")
        settings = {"learned": self._scheme.learned_scales, **settings}
        return ActivationQuantizer(self._scheme.activation_bits, name=name, **settings)

    def _tensors(self, args):
        flat = args[0] if args and isinstance(args[0], (list, tuple)) else args
        return [item for item in flat if hasattr(item, "_keras_history")]

    def _grid(self, args):
        grids = [self._grids[id(tensor)][0] for tensor in self._tensors(args) if id(tensor) in self._grids]
        return grids[0] if grids else None

    def _remember(self, outputs, quantizer):
        for tensor in outputs if isinstance(outputs, (list, tuple)) else [outputs]:
            self._grids[id(tensor)] = (quantizer, tensor)

    def _on_grids(self, args):
        """The arguments, with a quantizer after each tensor that has none."""

        def one(item):
            if not hasattr(item, "_keras_history") or id(item) in self._grids or "float" not in str(item.dtype):
                return item
            if self._will_be_rounded(item):
                return item
            if id(item) not in self._rounded:
                quantizer = self._new(producer_of(item).name)
                rounded = quantizer(item)
                self._remember(rounded, quantizer)
                self._rounded[id(item)] = (rounded, item)
            return self._rounded[id(item)][0]

        if args and isinstance(args[0], (list, tuple)):
            return (type(args[0])(one(item) for item in args[0]), *args[1:])
        return tuple(one(item) for item in args)

    def _will_be_rounded(self, tensor):
        """Whether a tensor is the result of what is computed together with its reader."""
        return id(producer_of(tensor)) in self._fused
