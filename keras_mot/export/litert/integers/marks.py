"""The marks of activation quantizers and of boundaries to floats in a converted file.

A mark is a pair of a QUANTIZE and a DEQUANTIZE operator whose scale is a number (see `marking`).
"""

from collections.abc import Mapping

from keras_mot.export.litert.integers.rules import FUSIBLE, rule_for
from keras_mot.export.litert.marking import number_of_mark
from keras_mot.transforms.grid import QuantizationParameters


class Marks:
    """The marks of a file.

    Args:
        graph: the `FileGraph`.
        quantizers: name and parameters by the numbers of the marks; of boundaries to floats, why, and `None`.

    Attributes:
        on: dictionary from id of an operator that is the first half of a mark to (index of the tensor that is marked,
            indices of the mark's results, parameters, or `None` for a boundary to floats).
        second: ids of the operators that are second halves.
        direct: dictionary from index of a float tensor that only marks read to (parameters, [(id of the mark, indices
            of its results)]): it is computed in these numbers at once.
        reasons: dictionary from index of the result of a boundary to floats to why it is there.
    """

    def __init__(self, graph, quantizers: Mapping[int, tuple[str, QuantizationParameters]]):
        self._graph = graph
        self.on, self.second, self.direct, self.reasons = {}, set(), {}, {}
        self._labels = {}  # (index of a float tensor, parameters) -> name of the quantizer behind it
        for operator in graph.graph.operators:
            if graph.name(operator) == "QUANTIZE":
                self._read(operator, quantizers)
        by_source = {}
        for key, (source, results, parameters) in self.on.items():
            by_source.setdefault(source, []).append((key, results, parameters))
        results = {result for _, results, _ in self.on.values() for result in results}
        for source, marks in by_source.items():
            # There are several marks where the converter has joined equal operations; a mark of other numbers is a
            # conversion from the first's.
            if len(marks) == len(graph.readers(source)) and source not in results | graph.outputs:
                known = [parameters for _, _, parameters in marks if parameters is not None]
                if known:
                    equal = [(key, results) for key, results, other in marks if other == known[0]]
                    self.direct[source] = (known[0], equal)

    def _read(self, operator, quantizers):
        graph = self._graph
        first, source = int(operator.outputs[0]), int(operator.inputs[0])
        readers = graph.readers(first)
        pairs = [reader for reader in readers if graph.name(reader) == "DEQUANTIZE"]
        number = number_of_mark(float(graph.scales(first)[0]))
        label, parameters = quantizers.get(number, (None, None))
        if parameters is not None:
            self._labels[source, parameters] = label
        results = [int(reader.outputs[0]) for reader in pairs]
        if len(pairs) < len(readers) or first in graph.outputs or not pairs:
            # Some readers take the first half's result: for them the converter has dropped the second half.
            results.append(first)
            graph.graph.tensors[first].type = graph.schema.TensorType.FLOAT32
        self.second.update(id(reader) for reader in pairs)
        if parameters is None:
            self.reasons.update(dict.fromkeys(results, label))
        self.on[id(operator)] = (source, results, parameters)

    def label(self, index, parameters):
        """The name of the quantizer of these parameters behind a tensor, or `None`."""
        return self._labels.get((index, parameters))

    def wanted(self, index):
        """The parameters that a tensor shall be computed in, those of its mark, or of what it becomes, or `None`.

        That is what it moves into, or what is left of it by an activation that the converter has not fused.
        """
        if index in self.direct:
            return self.direct[index][0]
        readers = self._graph.readers(index)
        if len(readers) != 1 or index in self._graph.outputs:
            return None
        name = self._graph.name(readers[0])
        rule = rule_for(name, 8)
        becomes = rule is not None and (rule.kind in ("moving", "unifying", "cutting") or name in FUSIBLE)
        if not becomes or len(readers[0].outputs) != 1:
            return None
        return self.wanted(int(readers[0].outputs[0]))
