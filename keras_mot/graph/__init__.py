"""Reading and rewriting models as graphs of operations: tools for those who extend the toolkit.

`trace` gives a subclassed model its graph, `Graph` says what calls what, and `rewrite`, a function from an operation to
what takes its place, is the way to change a model. `register_kind` says what the operations of a class of one's own
are. `fold_batch_norm` and `split_preprocessing` are of use to everyone.
"""

from keras_mot.graph.batch_norm import FoldableBatchNorm as FoldableBatchNorm
from keras_mot.graph.batch_norm import find_foldable_batch_norms as find_foldable_batch_norms
from keras_mot.graph.batch_norm import fold_batch_norm
from keras_mot.graph.kinds import Kind, register_kind
from keras_mot.graph.kinds import kind_of as kind_of
from keras_mot.graph.model_graph import Call, Graph
from keras_mot.graph.preprocessing import split_preprocessing
from keras_mot.graph.rewrite import flatten as flatten
from keras_mot.graph.rewrite import operations_of as operations_of
from keras_mot.graph.rewrite import rewrite
from keras_mot.graph.tracing import trace

__all__ = ["Call", "Graph", "Kind", "fold_batch_norm", "register_kind", "rewrite", "split_preprocessing", "trace"]
