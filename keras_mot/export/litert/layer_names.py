"""Which layer an operator of a file belongs to, as far as the names of its tensors tell.

Where the model is at hand, `integers/user_layers.py` knows it from the model itself.
"""

import re
from typing import Any

_QUANTIZER = re.compile(r"(.+?)(?:_table(?:_\d+)?|_quantizer(?:_\d+)?(?::\d+)?(?:_\w+)?)")
_WEIGHT = re.compile(r"(.+)/(?:kernel|depthwise_kernel|pointwise_kernel|bias|embeddings|gamma|alpha)(?::\d+)?")
_INPUT = re.compile(r"serving_default_(.+?)(?::\d+)?(?:_\w+)?")


def label_of(tensor: Any) -> str:
    """The name of a tensor of a parsed file; files from elsewhere may have none, or one that is no text."""
    return (tensor.name or b"").decode(errors="replace")


class LayerNames:
    """Looks up layers by operators of one graph.

    Args:
        graph: a subgraph of a parsed file.
    """

    def __init__(self, graph: Any):
        self._labels = [label_of(tensor) for tensor in graph.tensors]
        found = (_QUANTIZER.fullmatch(label) or _WEIGHT.fullmatch(label) for label in self._labels)
        self._known = {match[1] for match in found if match and "/" not in match[1]}

    def of(self, operator: Any) -> str:
        """The name of the layer; that of the first result where nothing tells the layer."""
        results = [self._labels[int(index)] for index in operator.outputs]
        inputs = [
            self._labels[int(index)] for index in (() if operator.inputs is None else operator.inputs) if index >= 0
        ]
        weights = (match[1] for match in map(_WEIGHT.fullmatch, inputs[1:2]) if match)
        candidates = (*weights, *map(self._of_label, (*results, *inputs)))
        return next(filter(None, candidates), results[0] if results else "")

    def of_tensor(self, label: str) -> str:
        """The name of the layer that a tensor of this name comes from; the name itself where nothing tells it."""
        return self._of_label(label) or label

    def _of_label(self, label):
        """The layer that one name tells, or `None`."""
        match = _QUANTIZER.fullmatch(label.split("/")[-1] if "/" not in label else label)
        if match and "/" not in match[1]:
            return match[1]
        match = _INPUT.fullmatch(label)
        if match:
            return match[1]
        return next(filter(None, map(self._of_scope, label.split(";"))), None)

    def _of_scope(self, label):
        """The layer, or path of layers, in whose scope a name stands, or `None`."""
        model, *scopes = label.split("/")[:-1] or [""]
        numbered = model.endswith("_1")  # the converter calls a model again, and so numbers the scopes of its layers
        path = []
        for scope in scopes:
            if not scope[:1].islower():  # of a function within the layer
                break
            bare = scope.removesuffix("_1") if numbered and scope not in self._known else scope
            quantizer = _QUANTIZER.fullmatch(bare)
            path.append(quantizer[1] if quantizer else bare)
        return "/".join(path) or None
