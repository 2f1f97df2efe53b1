"""Unrolls recurrent layers into steps that integer runtimes have a kernel for.

The kernel for the inputs is one dense layer over the whole sequence, that for the state one dense layer that every
timestep calls; so each is quantized once and stored once. What every timestep computes lies on one grid.
"""

import keras
import numpy as np
from keras import layers, ops

from keras_mot.graph.functional import is_a

KINDS = (layers.RNN, layers.SimpleRNN, layers.GRU, layers.LSTM)
"""The layers that are unrolled."""
LONGEST = 256
"""Timesteps of the longest sequence that is unrolled."""


def unroll(lowering, layer, sequences, initial_state=None, mask=None):
    """The results of a recurrent layer as a chain of steps, or `None` if it cannot be unrolled.

    Dropout of the inputs stays; that of the state, which only training has, is left out.

    Args:
        lowering: what makes and calls the steps.
        layer: an `RNN` layer.
        sequences: symbolic tensor of shape (batch, timesteps, features).
        initial_state: symbolic tensors, or `None` for zeros.
        mask: symbolic tensor of shape (batch, timesteps): where it is false, states and outputs stay as they were.

    Returns:
        As the layer.
    """
    if not _can_unroll(layer, sequences):
        return None
    outputs, states = _run(lowering, layer, layer.name, sequences, initial_state, mask)
    output = ops.stack(outputs, axis=1) if layer.return_sequences else outputs[-1]
    return (output, *states) if layer.return_state else output


def unroll_bidirectional(lowering, layer, sequences, initial_state=None, mask=None):
    """As `unroll`, for `Bidirectional`; one of its two layers may stay in floats."""
    both = (layer.forward_layer, layer.backward_layer)
    if not all(_can_unroll(one, sequences) for one in both if lowering.selected(one)):
        return None
    given = keras.tree.flatten(initial_state)
    halves = (given[: len(given) // 2], given[len(given) // 2 :]) if initial_state is not None else (None, None)
    results, states = [], []
    for one, way, state in zip(both, ("forward", "backward"), halves, strict=True):
        if lowering.selected(one):
            outputs, last = _run(lowering, one, f"{layer.name}_{way}", sequences, state, mask)
        else:
            outputs, *last = keras.tree.flatten(one(sequences, initial_state=state, mask=mask))
        lowering.claim(one, (sequences, state, mask), (outputs, last))
        states += last
        if not isinstance(outputs, list):
            in_order = way == "forward" or not one.return_sequences
            results.append(outputs if in_order else ops.flip(outputs, axis=1))
        elif one.return_sequences:
            results.append(ops.stack(outputs[::-1] if way == "backward" else outputs, axis=1))
        else:
            results.append(outputs[-1])
    output = _merged(lowering, layer, results)
    if not layer.return_state:
        return output
    return (*output, *states) if layer.merge_mode is None else (output, *states)


def _merged(lowering, layer, results):
    if layer.merge_mode is None:
        return results
    kinds = {"concat": layers.Concatenate, "sum": layers.Add, "mul": layers.Multiply, "ave": layers.Average}
    merge = lowering.make(layer, "merged", lambda: kinds[layer.merge_mode](name=f"{layer.name}_merged"))
    return lowering.steps(merge, results)


def _can_unroll(layer, sequences):
    timesteps = sequences.shape[1]
    return (
        is_a(layer, KINDS)
        and all(type(cell) in _CELLS for cell in _cells(layer))
        and not layer.stateful
        and (len(_cells(layer)) == 1 or not layer.return_state)
        and timesteps is not None
        and timesteps <= LONGEST
    )


def _cells(layer):
    cell = getattr(layer, "cell", None)
    return list(cell.cells) if isinstance(cell, layers.StackedRNNCells) else [cell]


def _run(lowering, layer, name, sequences, initial_state, mask):
    """The outputs of all timesteps in the order in which they are computed, and the last states."""
    # Slices, since LiteRT splits no truths.
    known = [None if mask is None else mask[:, number : number + 1] for number in range(sequences.shape[1])]
    given = keras.tree.flatten(initial_state) if initial_state is not None else None
    outputs, cells = [], _cells(layer)
    for number, cell in enumerate(cells):
        steps = _Steps(lowering, layer, cell, f"{name}_{number}" if len(cells) > 1 else name)
        if number:
            sequences = ops.stack(outputs, axis=1)
        inputs = steps.projected(sequences)
        if not number and layer.go_backwards:
            inputs.reverse()
            known.reverse()
        step, parts = _CELLS[type(cell)], _STATES[type(cell)]
        start = [inputs[0][:, : cell.units]] * len(parts) if given is None else [given.pop(0) for _ in parts]
        # Zeros are computed from the input, whose number of samples they have.
        states = [
            steps.joined(part, tensor * float(given is not None)) for part, tensor in zip(parts, start, strict=True)
        ]
        zeros = states[0]
        if mask is not None and given is not None:
            zeros = steps.joined(parts[0], start[0] * 0.0)
        outputs = []
        for timestep, is_known in zip(inputs, known, strict=True):
            before, states = states, step(steps, timestep, *states)
            output = states[0]
            if is_known is not None:
                states = [
                    steps.joined(part, ops.where(is_known, *pair))
                    for part, *pair in zip(parts, states, before, strict=True)
                ]
                last = outputs[-1] if outputs and not layer.zero_output_for_mask else zeros
                same = last is before[0]
                output = states[0] if same else steps.joined(parts[0], ops.where(is_known, output, last))
            outputs.append(output)
    return outputs, states


class _Steps:
    """The steps of one cell, which all timesteps share."""

    def __init__(self, lowering, layer, cell, name):
        self._lowering, self._layer, self._name = lowering, layer, name
        self.cell = cell
        order = _ORDERS[type(cell)]
        columns = np.concatenate([np.arange(part * cell.units, (part + 1) * cell.units) for part in order])
        self._reordered = lambda values: values[..., columns]
        bias = self._reordered(ops.convert_to_numpy(cell.bias)) if cell.use_bias else None
        self.bias = self.recurrent_bias = None
        if bias is not None and bias.ndim == 2:
            # The biases for input and state add up, but for the candidate's, which the reset gate comes between.
            added = np.where(np.arange(bias.shape[1]) < 2 * cell.units, bias[1], 0.0)
            self.bias, self.recurrent_bias = bias[0] + added, bias[1] - added
        elif bias is not None:
            self.bias = bias

    def projected(self, sequences):
        """The inputs times their kernel: a list of tensors, one for each timestep."""
        if self.cell.dropout:
            rate = self.cell.dropout
            sequences = self._make("dropout", lambda: layers.SpatialDropout1D(rate, name=f"{self._name}_dropout"))(
                sequences
            )
        return ops.unstack(self.dense("input", sequences, self.cell.kernel, bias=self.bias), axis=1)

    def dense(self, part, inputs, kernel, columns=slice(None), bias=None):
        """A dense layer with these columns of a kernel of the cell, whose parts are in the order of `_ORDERS`."""

        def moved(values):
            return self._reordered(values)[:, columns]

        def build():
            rows, width = moved(np.empty(kernel.shape, "bool")).shape
            made = layers.Dense(
                width, use_bias=bias is not None, trainable=self._layer.trainable, name=f"{self._name}_{part}"
            )
            made.build((None, rows))
            self._lowering.move(kernel, made.kernel, moved)
            if bias is not None:
                made.bias.assign(bias)
            return made

        return self.joined(part, self._lowering.steps(self._make(part, build), inputs))

    def recurrent(self, part, hidden, columns=slice(None), bias=None):
        """A dense layer with columns of the kernel for the state."""
        return self.dense(part, hidden, self.cell.recurrent_kernel, columns, bias)

    def activation(self, part, function, inputs):
        """An activation function."""
        made = self._make(part, lambda: layers.Activation(function, name=f"{self._name}_{part}"))
        return self.joined(part, self._lowering.steps(made, inputs))

    def add(self, part, *terms):
        """A sum."""
        return self.joined(part, self._make(part, lambda: layers.Add(name=f"{self._name}_{part}"))(terms))

    def multiply(self, part, *factors):
        """A product."""
        return self.joined(part, self._make(part, lambda: layers.Multiply(name=f"{self._name}_{part}"))(factors))

    def joined(self, part, tensor):
        """The tensor, noted to lie on one grid with all others of this part."""
        self._lowering.join((id(self._layer), id(self.cell), part), tensor)
        return tensor

    def _make(self, part, build):
        return self._lowering.make(self.cell, part, build)


def _simple_step(steps, inputs, hidden):
    inner = steps.recurrent("recurrent", hidden)
    return [steps.activation("hidden", steps.cell.activation, steps.add("sum", inputs, inner))]


def _gru_step(steps, inputs, hidden):
    cell, units = steps.cell, steps.cell.units
    gates, candidate = ops.split(inputs, [2 * units], axis=-1)
    if cell.reset_after:
        inner = steps.recurrent("recurrent", hidden, bias=steps.recurrent_bias)
        inner_gates, inner_candidate = ops.split(inner, [2 * units], axis=-1)
    else:
        inner_gates = steps.recurrent("recurrent_gates", hidden, slice(2 * units))
    gates = steps.activation("gates", cell.recurrent_activation, steps.add("gates_sum", gates, inner_gates))
    update, reset = ops.split(gates, 2, axis=-1)
    if cell.reset_after:
        inner_candidate = steps.multiply("reset", reset, inner_candidate)
    else:
        remaining = steps.multiply("reset", reset, hidden)
        inner_candidate = steps.recurrent("recurrent_candidate", remaining, slice(2 * units, None))
    candidate = steps.add("candidate_sum", candidate, inner_candidate)
    candidate = steps.activation("candidate", cell.activation, candidate)
    kept = steps.multiply("kept", update, hidden)
    renewed = steps.multiply("renewed", steps.joined("renewal", 1.0 - update), candidate)
    return [steps.add("hidden", kept, renewed)]


def _lstm_step(steps, inputs, hidden, carry):
    cell, units = steps.cell, steps.cell.units
    total = steps.add("sum", inputs, steps.recurrent("recurrent", hidden))
    gates, candidate = ops.split(total, [3 * units], axis=-1)
    gates = steps.activation("gates", cell.recurrent_activation, gates)
    entrance, forget, exit_ = ops.split(gates, 3, axis=-1)
    candidate = steps.activation("candidate", cell.activation, candidate)
    kept, new = steps.multiply("kept", forget, carry), steps.multiply("new", entrance, candidate)
    carry = steps.add("carry", kept, new)
    shown = steps.activation("shown", cell.activation, carry)
    return [steps.multiply("hidden", exit_, shown), carry]


_CELLS = {layers.SimpleRNNCell: _simple_step, layers.GRUCell: _gru_step, layers.LSTMCell: _lstm_step}
_STATES = {
    layers.SimpleRNNCell: ("hidden",),
    layers.GRUCell: ("hidden",),
    layers.LSTMCell: ("hidden", "carry"),
}
# In which order the parts of Keras's kernels are taken: an LSTM's candidate last, behind all gates.
_ORDERS = {layers.SimpleRNNCell: (0,), layers.GRUCell: (0, 1, 2), layers.LSTMCell: (0, 1, 3, 2)}
