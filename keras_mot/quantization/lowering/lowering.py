"""Breaks layers down into steps that integer runtimes have a kernel for, without changing what is computed."""

import keras
import numpy as np
from keras import layers, ops

from keras_mot._keras import get_keras_mask, producer_of
from keras_mot.graph.arguments import accepts, deciding_arguments
from keras_mot.graph.batch_norm import scale_and_offset
from keras_mot.graph.functional import is_a, kind_of
from keras_mot.graph.kinds import ACTIVATION_FUNCTIONS, FUSED_ACTIVATIONS, activation_of
from keras_mot.graph.rewrite import operations_of, rewrite
from keras_mot.quantization.lowering import attention, recurrent


def lower(model, selected=lambda operation: True):
    """The same function as a flat model of layers and operations that `_placement` has rules for, where possible.

    Args:
        model: a flat model.
        selected: function from an operation of `model` to whether it shall be broken down.

    Returns:
        The model; a dictionary from the id of each of its operations to the operation of `model` that it is, or is a
        step of; and one from ids of operations to keys: results of operations with equal keys shall have one range.
    """
    lowering = _Lowering(selected, {operation.name for operation in operations_of(model)})
    return rewrite(model, lowering), lowering.origins, lowering.joined


class _Lowering:
    """Calls an operation on new inputs, or the steps that it consists of."""

    def __init__(self, selected, names):
        self._selected, self._names = selected, names
        self._made = {}  # (id of a layer, part) -> the layer that stands for that part, wherever it is called
        self.origins = {}
        self.joined = {}

    def __call__(self, operation, *args, **kwargs):
        if not self._selected(operation):
            outputs = operation(*args, **kwargs)
        else:
            outputs = self.steps(operation, *args, **kwargs)
        self._claim(operation, keras.tree.flatten((args, kwargs)), keras.tree.flatten(outputs))
        return outputs

    def _claim(self, operation, inputs, outputs):
        """Notes that all that was called on the way from the inputs to the outputs belongs to `operation`."""
        ends, open_ends = {id(tensor) for tensor in inputs}, list(outputs)
        while open_ends:
            tensor = open_ends.pop()
            if id(tensor) in ends:
                continue
            ends.add(id(tensor))
            history = tensor._keras_history
            if id(history.operation) not in self.origins:
                self.origins[id(history.operation)] = operation
                self._name(history.operation, operation)
            open_ends += history.operation._inbound_nodes[history.node_index].input_tensors

    def _name(self, step, operation):
        """Gives a step a name that no other operation of the model has; the last may keep that of its operation."""
        name, number = step.name, 1
        while name in self._names and name != operation.name:
            name, number = f"{step.name}_{number}", number + 1
        self._names.add(name)
        if name != step.name:
            step.name = name

    def steps(self, operation, *args, **kwargs):
        """The results of an operation, by the steps that it consists of if it is broken down."""
        arguments = deciding_arguments(operation, args, kwargs)
        for kind, method in _METHODS:
            if is_a(operation, kind):
                # What has no parameter there changes the result in a way that the steps do not follow.
                result = method(self, operation, **arguments) if accepts(method, arguments) else None
                return operation(*args, **kwargs) if result is None else result
        if kind_of(operation) in ("Divide", "TrueDivide") and isinstance(args[1], (int, float)):
            return args[0] * (1.0 / args[1])
        if kind_of(operation) == "Square":
            return args[0] * args[0]
        if kind_of(operation) == "Negative":
            return args[0] * -1.0
        activation = activation_of(operation)
        if activation in _ACTIVATION_STEPS and len(arguments) == 1:
            return _ACTIVATION_STEPS[activation](self, operation, *arguments.values())
        return operation(*args, **kwargs)

    def join(self, key, tensor):
        """Demands that `tensor` has one range with all others of this key."""
        self.joined[id(producer_of(tensor))] = key

    def make(self, layer, part, build):
        """The layer that stands for a part of `layer`, made by `build` when it is first asked for."""
        key = id(layer), part
        if key not in self._made:
            self._made[key] = (build(), layer)  # the layer is kept, so that its id stays its own
        return self._made[key][0]

    def _with_activation(self, layer, inputs):
        """A layer whose activation no kernel has built in: the layer without it, and the activation."""
        name = ACTIVATION_FUNCTIONS.get(layer.activation)
        if name in ("linear", *FUSED_ACTIVATIONS):
            return None
        plain = self.make(layer, "linear", lambda: _changed(layer, activation="linear"))
        outputs = plain(inputs)
        _copy_weights(layer, plain)
        step = layers.Activation(layer.activation, name=f"{layer.name}_{name or 'activation'}")
        return self.steps(self.make(layer, "activation", lambda: step), outputs)

    def _separable(self, layer, inputs):
        if layer.data_format != "channels_last" or layer.padding == "causal":
            return None
        rank = layer.rank
        kinds = (layers.DepthwiseConv1D, layers.Conv1D) if rank == 1 else (layers.DepthwiseConv2D, layers.Conv2D)
        depthwise = self.make(
            layer,
            "depthwise",
            lambda: kinds[0](
                layer.kernel_size,
                strides=layer.strides,
                padding=layer.padding,
                depth_multiplier=layer.depth_multiplier,
                dilation_rate=layer.dilation_rate,
                use_bias=False,
                trainable=layer.trainable,
                name=f"{layer.name}_depthwise",
            ),
        )
        pointwise = self.make(
            layer,
            "pointwise",
            lambda: kinds[1](
                layer.filters,
                1,
                use_bias=layer.use_bias,
                activation=layer.activation,
                trainable=layer.trainable,
                name=layer.name,
            ),
        )
        middle = depthwise(inputs)
        depthwise.kernel.assign(layer.depthwise_kernel)
        pointwise.build(middle.shape)
        pointwise.kernel.assign(layer.pointwise_kernel)
        if layer.use_bias:
            pointwise.bias.assign(layer.bias)
        return self.steps(pointwise, middle)

    def _batch_norm(self, layer, inputs, mask=None):  # which says what statistics are taken of, in training
        return self._affine(layer, inputs, layer.axis, *scale_and_offset(layer))

    def _normalization(self, layer, inputs):
        if layer.invert or len(layer._keep_axis) != 1:
            return None
        mean, variance = (ops.convert_to_numpy(value).reshape(-1) for value in (layer.mean, layer.variance))
        scale = 1.0 / np.maximum(np.sqrt(variance.astype("float64")), keras.config.epsilon())
        return self._affine(layer, inputs, layer._keep_axis[0], scale, -mean * scale)

    def _rescaling(self, layer, inputs):
        scale, offset = (np.asarray(ops.convert_to_numpy(value), "float64") for value in (layer.scale, layer.offset))
        return self._affine(layer, inputs, -1, scale, offset)

    def _affine(self, layer, inputs, axis, scale, offset):
        """channel * scale + offset, as a depthwise convolution of one pixel, which has integer kernels everywhere."""
        if "float" not in str(inputs.dtype):
            inputs = ops.cast(inputs, layer.compute_dtype)
        shape, rank = tuple(inputs.shape), len(inputs.shape)
        if axis % rank != rank - 1 or rank not in (2, 3, 4) or shape[-1] is None:
            return None
        channels = shape[-1]
        if scale.size not in (1, channels) or offset.size not in (1, channels):
            return None
        trained = layer.trainable and isinstance(layer, layers.BatchNormalization)
        convolution = self.make(layer, "affine", lambda: layers.DepthwiseConv2D(1, trainable=trained, name=layer.name))
        if rank < 4:
            if None in shape[1:]:
                return None
            inputs = ops.reshape(inputs, (-1, 1, 1, channels) if rank == 2 else (-1, 1, *shape[1:]))
        outputs = convolution(inputs)
        convolution.kernel.assign(np.broadcast_to(scale, channels).reshape(1, 1, channels, 1))
        convolution.bias.assign(np.broadcast_to(offset, channels))
        return outputs if rank == 4 else ops.reshape(outputs, (-1, *shape[1:]))

    def _chain(self, layer, inputs):
        """A sum or product of many as a chain of two each."""
        if len(inputs) < 3:
            return None
        total = inputs[0]
        for number, term in enumerate(inputs[1:-1]):
            step = self.make(layer, number, lambda number=number: type(layer)(name=f"{layer.name}_{number}"))
            total = step([total, term])
        return self.make(layer, "last", lambda: type(layer)(name=layer.name))([total, inputs[-1]])

    def _average(self, layer, inputs):
        add = self.make(layer, "sum", lambda: layers.Add(name=f"{layer.name}_sum"))
        return self.steps(add, inputs) * (1.0 / len(inputs))

    def _silu(self, operation, inputs):
        name = operation.name
        gate = self.make(operation, "sigmoid", lambda: layers.Activation("sigmoid", name=f"{name}_sigmoid"))
        return self._gated(operation, inputs, gate(inputs))

    def _hard_sigmoid(self, operation, inputs):
        relu6 = self.make(operation, "relu6", lambda: layers.ReLU(6.0, name=f"{operation.name}_relu6"))
        return relu6(inputs + 3.0) * (1.0 / 6.0)

    def _hard_silu(self, operation, inputs):
        return self._gated(operation, inputs, self._hard_sigmoid(operation, inputs))

    def _gated(self, operation, inputs, gate):
        multiply = self.make(operation, "gated", lambda: layers.Multiply(name=f"{operation.name}_gated"))
        return multiply([inputs, gate])

    def softmax(self, layer, inputs):
        """The softmax that is part of a layer."""
        return self.make(layer, "softmax", lambda: layers.Softmax(name=f"{layer.name}_softmax"))(inputs)

    def _einsum_dense(self, layer, inputs):
        outputs = attention.einsum_dense(self, layer, inputs)
        return self._with_activation(layer, inputs) if outputs is None else outputs

    def _on_sequences(self, layer, inputs):
        """A dense layer on more than vectors: on a batch of all the vectors, where the bias is part of the product."""
        if len(inputs.shape) < 3 or None in inputs.shape[1:] or get_keras_mask(inputs) is not None:
            return self._with_activation(layer, inputs)  # which passes a mask on
        outputs = self.steps(layer, ops.reshape(inputs, (-1, inputs.shape[-1])))
        return ops.reshape(outputs, (-1, *inputs.shape[1:-1], outputs.shape[-1]))


_METHODS = (
    ((layers.SeparableConv1D, layers.SeparableConv2D), _Lowering._separable),
    (
        (layers.Conv1D, layers.Conv2D, layers.Conv3D, layers.DepthwiseConv1D, layers.DepthwiseConv2D)
        + (layers.Conv1DTranspose, layers.Conv2DTranspose),
        _Lowering._with_activation,
    ),
    (layers.Dense, _Lowering._on_sequences),
    (layers.EinsumDense, _Lowering._einsum_dense),
    ((layers.MultiHeadAttention, layers.GroupQueryAttention), attention.multi_head),
    (layers.Attention, attention.attention),
    (recurrent.KINDS, recurrent.unroll),
    (layers.Bidirectional, recurrent.unroll_bidirectional),
    (layers.TimeDistributed, recurrent.distribute),
    (layers.BatchNormalization, _Lowering._batch_norm),
    (layers.Normalization, _Lowering._normalization),
    (layers.Rescaling, _Lowering._rescaling),
    (layers.Average, _Lowering._average),
    ((layers.Add, layers.Multiply, layers.Maximum, layers.Minimum), _Lowering._chain),
)
_ACTIVATION_STEPS = {
    "silu": _Lowering._silu,
    "hard_sigmoid": _Lowering._hard_sigmoid,
    "hard_silu": _Lowering._hard_silu,
}


def _changed(layer, **settings):
    return type(layer).from_config({**layer.get_config(), **settings})


def _copy_weights(source, target):
    for old, new in zip(source.variables, target.variables, strict=True):
        new.assign(np.array(ops.convert_to_numpy(old)))
