"""Makes the operators between marked tensors compute in integers, one after the other."""

from typing import NamedTuple

import numpy as np

from keras_mot.export.litert.integers.constants import Constants
from keras_mot.export.litert.integers.file_graph import FileGraph
from keras_mot.export.litert.integers.marks import Marks
from keras_mot.export.litert.integers.rules import (
    AVERAGING,
    COMPARISONS,
    CUT,
    CUTTING,
    FUSIBLE,
    INT4_WEIGHTS,
    LOOP,
    compared,
    cuts_off,
    has_result,
    rule_for,
)
from keras_mot.export.litert.integers.tables import integers_of
from keras_mot.layers.table_mark import number_of_table

BEHIND_FLOATS = "its input is computed in floats"
NO_RANGE = "no range is known for its result"


class FloatOperator(NamedTuple):
    """An operator that computes in floats.

    Attributes:
        operator: its kind.
        result: the name of its result: that of the file's output, if it is one.
        reason: why.
        source: the name of an input that is computed in floats, or `None`.
    """

    operator: str
    result: str
    reason: str
    source: str | None = None


class _InFloats(Exception):
    """Why an operator cannot compute in integers; the second argument is the index of an input in floats."""


class Rewriter:
    """Rewrites the first graph of a parsed file.

    Args:
        model: the parsed file.
        quantizers: name and parameters by the numbers of the marks of activations.
        weights: the `QuantizedWeight` objects by the numbers of their marks.
        target: the `Target`.
        tables: results for all integers, by the numbers of the marks of functions of each element.

    Attributes:
        graph: the `FileGraph`.
        floats: a `FloatOperator` for each that computes in floats.
        parameters: dictionary from the index of an integer tensor to its `QuantizationParameters`.
    """

    def __init__(self, model, quantizers, weights, target, tables=()):
        self.graph, self._tables = FileGraph(model), tables
        self.floats, self.parameters = [], {}
        self._marks = Marks(self.graph, quantizers)
        self._constants = Constants(self.graph, weights, target)
        self._done = set(self._marks.second)  # ids of operators that are not in the new graph
        self._integers = {}  # index of a float tensor -> that of the same in integers
        self._float_of = {}  # index of an integer tensor -> that of the same in floats
        self._bounded = {}  # index of the result of a boundary to floats -> that of the tensor in front of it
        self._converted_to = {}  # (index, parameters) -> index of what a conversion makes of it
        self._names = {}  # name of an integer tensor -> how many have it

    def run(self):
        """Rewrites all operators."""
        for operator in list(self.graph.graph.operators):
            if id(operator) in self._done:
                continue
            if id(operator) in self._marks.on:
                self._at_mark(*self._marks.on[id(operator)])
                continue
            try:
                self._as_integers(operator)
            except _InFloats as reason:
                self._as_floats(operator, *reason.args)
        self.graph.graph.operators = self.graph.operators

    def _at_mark(self, source, results, parameters):
        """A mark on what is there in floats or in other numbers: a conversion; or a boundary to floats."""
        if parameters is None:
            self._bounded.update(dict.fromkeys(results, source))
        else:
            self._integers.update(dict.fromkeys(results, self._converted(source, parameters)))

    def _converted(self, source, parameters):
        """The tensor `source` in integers of these parameters."""
        known = self._integers.get(source)
        if known is not None and self.parameters[known] == parameters:
            return known
        key = (source, parameters)
        if key not in self._converted_to:
            origin = known if known is not None else self.in_floats(source)
            target = self._new_integers(source, parameters)
            self.graph.add_operator("QUANTIZE", [origin], [target], parameters.bits)
            self._converted_to[key] = target
        return self._converted_to[key]

    def _as_floats(self, operator, reason, source=None):
        graph, name = self.graph, self.graph.name(operator)
        inputs = [int(index) for index in operator.inputs]
        operator.inputs = [self._constants.in_floats(self.in_floats(index), name) for index in inputs]
        graph.operators.append(operator)
        tensors = [int(index) for index in (*operator.inputs, *operator.outputs) if index >= 0]
        if any(graph.is_float(index) for index in tensors):
            reasons = [self._marks.reasons[index] for index in inputs if self._marks.reasons.get(index) is not None]
            if reasons and (reason == BEHIND_FLOATS or any(index in self._bounded for index in inputs)):
                # What the boundary leads to, and what goes on from there.
                reason = reasons[0]
                self._marks.reasons.update(dict.fromkeys(map(int, operator.outputs), reason))
            before = None if source is None else graph.public_label(source)
            self.floats.append(FloatOperator(name, graph.public_label(int(operator.outputs[0])), reason, before))

    def in_floats(self, index):
        """The index of a tensor of the old graph in floats."""
        index = self._before_boundary(index)
        integer = self._integers.get(index)
        if index < 0 or integer is None:
            return index
        if integer not in self._float_of:
            target = self.graph.add_tensor(index, f"{self.graph.label(index)}_float")
            self.graph.add_operator("DEQUANTIZE", [integer], [target], self.parameters[integer].bits)
            self._float_of[integer] = target
        return self._float_of[integer]

    def _before_boundary(self, index):
        while index in self._bounded:
            index = self._bounded[index]
        return index

    def _as_integers(self, operator):
        """Makes the operator compute in integers; raises `_InFloats`, with nothing changed, if it cannot."""
        graph, name = self.graph, self.graph.name(operator)
        inputs = [int(index) for index in operator.inputs] if operator.inputs is not None else []
        results = [int(index) for index in operator.outputs]
        if name in ("SHAPE", "RANK"):  # they read no value
            sources = [self._before_boundary(index) for index in inputs]
            operator.inputs = [self._integers.get(index, index) for index in sources]
            graph.operators.append(operator)
            return
        if name == "WHILE":
            raise _InFloats(LOOP)
        floats = [index for index in inputs if index >= 0 and graph.is_float(index)]
        active = [index for index in floats if not graph.is_constant(index)]
        if name == "GATHER" and not active and floats == inputs[:1]:
            wanted = self._marks.wanted(results[0])
            if wanted is None:
                raise _InFloats(NO_RANGE)
            table = self._constants.table(inputs[0], wanted)
            self.parameters[table] = wanted
            self._emit(operator, [table, *inputs[1:]], results, [wanted])
            return
        waiting = [index for index in active if index not in self._integers]
        if not active or waiting:
            raise _InFloats(BEHIND_FLOATS, *waiting[:1])
        bits = self.parameters[self._integers[active[0]]].bits
        number = self._number_of_table(name, inputs)
        if number is not None:
            self._look_up(number, inputs[0], results[0])
            return
        rule = rule_for(name, bits)
        if rule is None:
            raise _InFloats(f"{name} has no kernel for integers of {bits} bits")
        wanted = [self._marks.wanted(index) for index in results]
        if rule.kind == "reading":
            operator.inputs = self._read_inputs(name, inputs, active, floats)
            graph.set_kind(operator, name, bits)
            graph.operators.append(operator)
            return
        if wanted[0] is None and rule.kind == "unifying":
            # What rolls numbers is cut and joined again; and several clippings may have one half in common.
            shared = {self.parameters[self._integers[index]] for index in active}
            wanted = [shared.pop() if len(shared) == 1 else None]
        if rule.kind == "moving":
            inputs, wanted = self._moving_inputs(inputs, active, floats, wanted, name in AVERAGING)
        elif wanted[0] is None:
            raise _InFloats(NO_RANGE)
        elif not has_result(name, wanted[0]):
            raise _InFloats("its result has another range than the kernel gives")
        elif rule.kind == "weighted":
            inputs = self._weighted_inputs(name, inputs, *rule.roles)
        elif rule.kind == "cutting":
            self._cut(name, inputs[0], results[0], wanted[0])
            return
        elif rule.kind == "unifying":
            if (
                name in CUTTING
                and len(floats) == 2
                and len(active) == 1
                and graph.shape(active[0]) == graph.shape(results[0])
            ):
                (constant,) = set(floats) - set(active)
                if cuts_off(name, graph.values(constant), wanted[0]):
                    self._alias(results[0], self._converted(active[0], wanted[0]), wanted[0])
                    return
            known = {index: self._on_grid(index, active, wanted[0]) for index in floats}
            inputs = [known.get(index, index) for index in inputs]
        else:
            if name == "PRELU" and not graph.is_constant(inputs[1]):
                raise _InFloats("its slopes are not constant")
            if name in FUSIBLE and self._is_cut_off(name, inputs[0], wanted[0]):
                self._alias(results[0], self._integers[inputs[0]], wanted[0])
                return
            inputs = self._computing_inputs(inputs, active, floats, bits, nearest=name == "PRELU")
            if name == "RELU" and bits == 8 and wanted[0].zero_point == -128:
                # What is negative has no integer in the result: a conversion cuts it off, and has a faster kernel.
                graph.set_kind(operator, "QUANTIZE", bits)
        self._emit(operator, inputs, results, wanted)

    def _read_inputs(self, name, inputs, active, floats):
        """The inputs of an operator whose results are no numbers of a range."""
        known = {index: self._integers[index] for index in active}
        own = [self.parameters[index] for index in known.values()]
        if name in COMPARISONS and any(parameters.scale >= 1.0 for parameters in own):
            raise _InFloats("its kernel takes no steps of 1 or more")
        for index in set(floats) - set(active):
            bound = compared(name, self.graph.values(index), own[0], first=index == inputs[0])
            if bound is None:
                raise _InFloats("no integer stands for what it compares with")
            known[index] = self._constants.given(index, bound, own[0])
        return [known.get(index, index) for index in inputs]

    def _on_grid(self, index, active, parameters):
        """A tensor, or a constant, in integers of these parameters."""
        if index in active:
            return self._converted(index, parameters)
        constant = self._constants.table(index, parameters)
        self.parameters[constant] = parameters
        return constant

    def _cut(self, name, index, result, wanted):
        """What is left of a tensor between two numbers, where integers do not end with these anyway."""
        source = self._converted(index, wanted)
        for operator, bound in zip(("MAXIMUM", "MINIMUM"), CUT[name], strict=True):
            if not cuts_off(operator, np.float32(bound), wanted):
                cut = self._new_integers(result, wanted)
                constant = self._constants.number(result, bound, wanted)
                self.graph.add_operator(operator, [source, constant], [cut], wanted.bits)
                source = cut
        self._alias(result, source, wanted)

    def _number_of_table(self, name, inputs):
        if name != "POW" or not self._tables or not self.graph.is_constant(inputs[1]):
            return None
        exponent = self.graph.values(inputs[1])
        return number_of_table(float(exponent.flat[0])) if exponent.size == 1 else None

    def _look_up(self, number, source, result):
        """What a table has for each integer of a tensor."""
        graph, wanted = self.graph, self._marks.wanted(result)
        if wanted is None:
            raise ValueError(f"The result '{graph.label(result)}' of a function of each element has lost its mark.")
        positions = [graph.add_positions(source, f"{graph.label(result)}_{end}") for end in ("integers", "positions")]
        types = graph.schema.TensorType
        kinds = {"inDataType": types.INT8, "outDataType": types.INT32}
        graph.add_operator("CAST", [self._integers[source]], positions[:1], 8, version=1, **kinds)
        count = len(self._tables[number])
        shift = graph.add_constants("INT32", np.array(count // 2, "int32"), f"{graph.label(result)}_shift")
        graph.add_operator("ADD", [positions[0], shift], positions[1:], 8, version=1, potScaleInt16=False)
        integers = integers_of(self._tables[number], wanted)
        table = graph.add_constants("INT8", integers, f"{graph.label(result)}_table")
        graph.quantize(table, wanted.bits, [wanted.scale], [wanted.zero_point])
        target = self._new_integers(result, wanted)
        graph.add_operator("GATHER", [table, positions[1]], [target], 8, axis=0)
        self._alias(result, target, wanted)

    def _is_cut_off(self, name, index, wanted):
        """Whether integers of the input, `index`, hold what an activation leaves and nothing else."""
        if self.parameters[self._integers[index]] != wanted or wanted.bits != 8 or wanted.zero_point != -128:
            return False
        return name == "RELU" or 255 * wanted.scale <= 6.0 + wanted.scale / 2

    def _computing_inputs(self, inputs, active, floats, bits, nearest):
        """The inputs in integers; `nearest` says to round constants that rounding changes."""
        constants = {index: self._constants.arithmetic(index, bits, nearest) for index in floats if index not in active}
        if None in constants.values():
            raise _InFloats("rounding would change a constant")
        known = {**constants, **{index: self._integers[index] for index in active}}
        return [known.get(index, index) for index in inputs]

    def _moving_inputs(self, inputs, active, floats, wanted, averages):
        """The inputs, and the parameters of all results: those that are wanted, or the input's own."""
        constants = set(floats) - set(active)  # of a border
        if len(active) != 1 or len(constants) != len(floats) - 1 or (constants and inputs[0] in constants):
            raise _InFloats("it has several inputs, or a constant one")
        (source,) = active
        own = self.parameters[self._integers[source]]
        asked = {own if want is None else want for want in wanted}
        target = asked.pop() if len(asked) == 1 else own
        if target != own and averages:
            raise _InFloats("its result has a range of its own, which averages of integers cannot have")
        known = {index: self._on_grid(index, active, target) for index in floats}
        return [known.get(index, index) for index in inputs], [target] * len(wanted)

    def _weighted_inputs(self, name, inputs, activation, weight, bias, axis):
        if not self.graph.is_constant(inputs[weight]) or inputs[activation] not in self._integers:
            raise _InFloats("its weights are not constant")
        if len(inputs) > bias and inputs[bias] >= 0 and not self.graph.is_constant(inputs[bias]):
            raise _InFloats("its bias is not constant")
        kernel = self._constants.kernel(inputs[weight], name, axis, name in INT4_WEIGHTS)
        if kernel is None:
            raise _InFloats("its weights are not quantized")
        new = list(inputs)
        new[activation], new[weight] = self._integers[inputs[activation]], kernel
        if len(inputs) > bias and inputs[bias] >= 0:
            new[bias] = self._constants.bias(inputs[bias], self.parameters[new[activation]], kernel)
        return new

    def _emit(self, operator, inputs, results, wanted):
        new = []
        for index, parameters in zip(results, wanted, strict=True):
            target = self._new_integers(index, parameters)
            self._alias(index, target, parameters)
            new.append(target)
        operator.inputs, operator.outputs = inputs, new
        self.graph.set_kind(operator, self.graph.name(operator), wanted[0].bits)
        options = operator.builtinOptions
        if hasattr(options, "potScaleInt16"):
            options.potScaleInt16 = False
        self.graph.operators.append(operator)

    def _alias(self, index, integer, parameters):
        """Notes that the float tensor `index`, and marks of the same numbers on it, are the tensor `integer`."""
        self._integers[index] = integer
        direct, marks = self._marks.direct.get(index, (None, ()))
        if direct == parameters:
            for key, marked in marks:
                self._integers.update(dict.fromkeys(marked, integer))
                self._done.add(key)

    def _new_integers(self, like, parameters):
        """A new tensor of these parameters, called after its quantizer."""
        name = self._named(self._marks.label(like, parameters) or f"{self.graph.label(like)}_int")
        index = self.graph.add_tensor(like, name)
        self.graph.quantize(index, parameters.bits, [parameters.scale], [parameters.zero_point])
        self.parameters[index] = parameters
        return index

    def _named(self, label):
        """The label; of its second and later uses, with a number (the converter moves marks behind poolings)."""
        count = self._names[label] = self._names.get(label, 0) + 1
        return label if count == 1 else f"{label}:{count}"
