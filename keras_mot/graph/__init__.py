"""Reading and rewriting models as graphs of operations: tools for those who extend the toolkit.

`trace` gives a subclassed model its graph, `flatten` dissolves nested models, `Graph` says what calls what, and
`rewrite`, a function from an operation to what takes its place, is the way to change a model. `kind_of` says what an
operation is, and `register_kind` what those of a class of one's own are. `fold_batch_norm` is of
use to everyone.
"""

from keras_mot.graph.batch_norm import FoldableBatchNorm, find_foldable_batch_norms, fold_batch_norm
from keras_mot.graph.kinds import Kind, kind_of, register_kind
from keras_mot.graph.model_graph import Call, Graph
from keras_mot.graph.rewrite import flatten, operations_of, rewrite
from keras_mot.graph.tracing import trace

__all__ = [
    "Call",
    "FoldableBatchNorm",
    "Graph",
    "Kind",
    "find_foldable_batch_norms",
    "flatten",
    "fold_batch_norm",
    "kind_of",
    "operations_of",
    "register_kind",
    "rewrite",
    "trace",
]
