"""Reading and rewriting models as graphs of operations."""

from keras_mot.graph.batch_norm import FoldableBatchNorm, find_foldable_batch_norms, fold_batch_norm
from keras_mot.graph.rewrite import flatten, operations_of, rewrite
from keras_mot.graph.tracing import trace

__all__ = [
    "fold_batch_norm",
    "rewrite",
    "trace",
]
