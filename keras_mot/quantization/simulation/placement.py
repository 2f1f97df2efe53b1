"""Where activations are rounded: which operations compute in integers, and what ranges their results get."""

import collections

import keras

from keras_mot._keras import call_of, producer_of
from keras_mot.graph.kinds import JOINS, LOOKS_UP, ROUNDED, SAME, WEIGHTED, has_role, kind_of
from keras_mot.graph.rewrite import rewrite
from keras_mot.layers.activation_quantizer import ActivationQuantizer
from keras_mot.layers.float_boundary import ANGLE, ASKED, FASTER, MASKED, NO_KERNEL, FloatBoundary
from keras_mot.layers.masked_softmax import MaskedScores, MaskedSoftmax
from keras_mot.layers.scores_quantizer import ScoresQuantizer
from keras_mot.quantization.simulation.integer_steps import IntegerSteps
from keras_mot.targets import LITERT


def quantizer_of(tensor):
    """The quantizer whose quantization parameters a tensor of a placed model has, or `None`."""
    operation = producer_of(tensor)
    if isinstance(operation, ActivationQuantizer):
        return operation
    kind = kind_of(operation)
    if kind is None or kind.ranges != SAME:
        return None
    return quantizer_of(call_of(tensor).arguments.keras_tensors[0])


def place(
    model, scheme, selected=lambda operation: True, joined=None, asked=lambda operation: {}, target=LITERT, floats=None
):
    """Inserts activation quantizers into a lowered model.

    Args:
        model: what `lower` returned.
        scheme: the `QuantizationScheme`.
        selected: function from an operation to whether it shall be computed in integers.
        joined: dictionary from ids of operations to keys: those of equal keys share one quantizer.
        asked: function from an operation to arguments of the `ActivationQuantizer` behind it.
        target: the `Target` whose kernels will compute.
        floats: dictionary from ids of operations that are selected, and left in floats nevertheless, to the reason,
            as a `FloatBoundary` has it.

    Returns:
        The model with quantizers, and the list of its layers whose weights shall be quantized.
    """

    def in_integers(operation):
        return selected(operation) and id(operation) not in floats

    floats = {} if floats is None else floats
    steps = IntegerSteps(model, target, scheme.activation_bits, in_integers, joined or {})
    placement = _Placement(steps, scheme, asked, target, floats)
    return rewrite(model, placement), list(placement.weighted.values())


def _is_masked_softmax(operation, args, kwargs):
    """Whether an operation is a softmax of scores of which a mask leaves some out, along whatever axis."""
    masked = len(args) > 1 or kwargs.get("mask") is not None
    return isinstance(operation, MaskedSoftmax) or (isinstance(operation, keras.layers.Softmax) and masked)


class _Placement:
    """Calls operations on rounded inputs, and a quantizer on their results."""

    def __init__(self, steps, scheme, asked, target, floats):
        self._steps, self._scheme, self._asked, self._target = steps, scheme, asked, target
        self._reasons = floats
        self._bits = scheme.activation_bits
        self._shared = {}  # key -> the quantizer of all operations of this key
        self._prescribing = {}  # key -> an operation of this key whose range the target prescribes
        self._calls = collections.Counter()  # key -> how often its quantizer is called
        self._quantized = {}  # id of a tensor -> (the quantizer whose numbers it has, the tensor)
        self._rounded = {}  # id of a float tensor -> (the tensor after its quantizer, the tensor)
        self._floats = {}  # (id of a tensor, reason) -> (the tensor behind the boundary to floats, the tensor)
        self._names = {}
        self.weighted = {}
        for call in steps.graph.calls:
            key = steps.joined.get(id(call.operation))
            if key is not None:
                self._calls[key] += 1
                if steps.ranges(call.operation) is not None and steps.fixed_range(call.operation) is not None:
                    self._prescribing[key] = call.operation

    def __call__(self, operation, *args, **kwargs):
        if not args and "inputs" in kwargs:
            args = (kwargs.pop("inputs"),)
        ranges = self._steps.ranges(operation)
        # What another target has a kernel for, an exporter would write by that; and parts of a masked softmax, where
        # what stands for minus infinity has no integer.
        if _is_masked_softmax(operation, args, kwargs):
            return self._in_floats(operation, args, kwargs)
        if not self._steps.selected(operation) or (ranges is None and LITERT.has_kernel(operation, self._bits)):
            return self._in_floats(operation, args, kwargs)
        if ranges is None:
            return operation(*args, **kwargs)
        if ranges == SAME:
            return self._moved(operation, args, kwargs)
        if not has_role(operation, LOOKS_UP):  # which reads indices
            args = self._each_tensor(args, self._on_grid)
        outputs = operation(*args, **kwargs)
        if not all(_is_float(tensor) for tensor in keras.tree.flatten(outputs)):
            return outputs
        if has_role(operation, WEIGHTED):
            self.weighted[id(operation)] = operation
        if self._steps.is_fused(operation):
            return outputs
        key = self._steps.joined.get(id(operation))
        if ranges == ROUNDED or self._joins_one_grid(operation, args):
            quantizer = self._quantizer(args)
        elif key is not None:
            quantizer = self._of_key(key, operation)
        else:
            quantizer = self._new(operation.name, **self._settings(operation))
        rounded = quantizer(outputs, averages=True) if ranges == ROUNDED else quantizer(outputs)
        self._remember(rounded, quantizer)
        return rounded

    def _moved(self, operation, args, kwargs):
        """The results of an operation that moves numbers, or picks some."""
        if self._steps.leads_to_integers(operation):
            args = self._each_tensor(args, self._on_grid)
        outputs = operation(*args, **kwargs)
        quantizer = self._quantizer(args)
        for source in self._steps.together(operation):  # one at most, as it has one input
            quantizer = self._new(source.name, **self._settings(source))
            outputs = quantizer(outputs)
        if quantizer is not None:
            self._remember(outputs, quantizer)
        return outputs

    def _in_floats(self, operation, args, kwargs):
        """The results of an operation left in floats: by the user, for speed, or since the target has no kernel."""
        reason = self._reason(operation, args, kwargs)

        def bounded(tensor):
            return self._behind_boundary(tensor, reason)

        kwargs = {name: self._each_tensor((value,), bounded)[0] for name, value in kwargs.items()}
        outputs = operation(*self._each_tensor(args, bounded), **kwargs)
        if has_role(operation, LOOKS_UP):  # which reads indices
            return self._boundary(operation.name, reason)(outputs)
        return outputs

    def _reason(self, operation, args, kwargs):
        """Why an operation is left in floats."""
        masked = _is_masked_softmax(operation, args, kwargs) or self._steps.is_left_out(operation)
        if masked and self._steps.selected(operation):
            return FASTER if isinstance(operation, MaskedSoftmax) and self._has_scores() else MASKED
        if id(operation) in self._reasons:
            return self._reasons[id(operation)]
        if not self._steps.selected(operation):
            return ASKED
        return ANGLE if self._steps.is_angle(operation) else NO_KERNEL

    def _has_scores(self):
        """Whether scores of which a mask leaves some out could be in integers, too."""
        return {"where", "softmax"} <= self._target.kernels[self._bits]

    def _settings(self, operation):
        """The arguments of the quantizer behind an operation."""
        fixed = self._steps.fixed_range(operation)
        if fixed is not None:
            return {"fixed": fixed, "in_training": not self._steps.is_end(operation)}
        together = self._steps.together(operation)
        if isinstance(operation, MaskedScores):
            return {"make": ScoresQuantizer}
        asked = {**(self._asked(together[0]) if len(together) == 1 else {}), **self._asked(operation)}
        reach = self._steps.saturation(operation)
        return asked if reach is None or "fixed" in asked else {"limits": (-reach, reach), **asked}

    def _of_key(self, key, operation):
        if key not in self._shared:
            settings = self._settings(self._prescribing.get(key, operation))
            self._shared[key] = self._new(operation.name, **settings, calls=self._calls[key])
        return self._shared[key]

    def _joins_one_grid(self, operation, args):
        """Whether an operation puts tensors together that have the same quantization parameters all."""
        if not has_role(operation, JOINS):
            return False
        found = [self._quantized.get(id(tensor), (None,))[0] for tensor in _tensors(args)]
        return None not in found and len({id(quantizer) for quantizer in found}) == 1

    def _new(self, name, **settings):
        settings = {"learned": self._scheme.learned_scales, **settings}
        grid, name = self._target.activations[self._bits], self._unique(f"{name}_quantizer")
        form = {"bits": grid.bits, "symmetric": grid.symmetric, "narrow": grid.narrow, "target": self._target.name}
        make = settings.pop("make", ActivationQuantizer)
        return make(**form, name=name, **settings)

    def _boundary(self, name, reason):
        return FloatBoundary(reason, name=self._unique(f"{name}_in_floats"))

    def _unique(self, name):
        count = self._names[name] = self._names.get(name, -1) + 1
        return f"{name}_{count}" if count else name

    def _quantizer(self, args):
        """The quantizer of the first tensor that has one, or `None`."""
        found = [self._quantized[id(tensor)][0] for tensor in _tensors(args) if id(tensor) in self._quantized]
        return found[0] if found else None

    def _remember(self, outputs, quantizer):
        for tensor in outputs if isinstance(outputs, (list, tuple)) else [outputs]:
            self._quantized[id(tensor)] = (quantizer, tensor)

    @staticmethod
    def _each_tensor(args, function):
        """The arguments, with `function` called on each float tensor."""

        def one(item):
            return function(item) if keras.utils.is_keras_tensor(item) and _is_float(item) else item

        if args and isinstance(args[0], (list, tuple)):
            return (type(args[0])(one(item) for item in args[0]), *args[1:])
        return tuple(one(item) for item in args)

    def _on_grid(self, tensor):
        """The tensor, behind a quantizer if it has none, and if what it is a result of is not computed in one step."""
        if id(tensor) in self._quantized or self._steps.is_fused(producer_of(tensor)):
            return tensor
        if id(tensor) not in self._rounded:
            source = producer_of(tensor)
            # Nobody chose the scales of inputs with 8 bits in mind: rare values must not decide.
            of_samples = isinstance(source, keras.layers.InputLayer) and self._bits <= 8
            quantizer = self._new(source.name, of_samples=of_samples)
            rounded = quantizer(tensor)
            self._remember(rounded, quantizer)
            self._rounded[id(tensor)] = (rounded, tensor)
        return self._rounded[id(tensor)][0]

    def _behind_boundary(self, tensor, reason):
        """The tensor for readers in floats, which the exported file does not take for integers, or the first such."""
        producer = producer_of(tensor)
        known = reason == ASKED or id(producer) in self._reasons or self._steps.is_left_out(producer)
        if id(tensor) not in self._quantized and known:
            return tensor
        key = id(tensor), reason
        if key not in self._floats:
            self._floats[key] = (self._boundary(producer.name, reason)(tensor), tensor)
        return self._floats[key][0]


def _is_float(tensor):
    return "float" in str(tensor.dtype)


def _tensors(args):
    flat = args[0] if args and isinstance(args[0], (list, tuple)) else args
    return [item for item in flat if keras.utils.is_keras_tensor(item)]
