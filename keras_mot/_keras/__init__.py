"""The wall: whatever of Keras has no public name is used here, one function each, and nowhere else in the package.

A new release of Keras is checked against these files: by the suite, by `make smoke` with the oldest and the newest
versions that are allowed, and, for what is extended (`patches.py`), whenever the package is imported.
"""

from keras_mot._keras import output_names  # noqa: F401  # extends Keras
from keras_mot._keras.bounds import bounded_weights
from keras_mot._keras.classes import ConvLSTMCell, Functional, Sequential, is_graph_model, operation_class, own_name
from keras_mot._keras.graph import (
    call_of,
    calls_anywhere,
    calls_by_depth,
    functional_of,
    get_keras_mask,
    producer_of,
    run_graph,
    set_keras_mask,
)
from keras_mot._keras.layers import (
    BOOKKEEPING,
    attention_axes,
    attention_projection,
    batch_moments,
    build_shapes,
    copy_parent_path,
    distribution_strategy,
    flatten_layers,
    forget_attribute,
    has_default_build,
    keep_axis,
    keep_losses,
    open_tracking,
    output_shape_of,
    seed_generators,
    set_input_shape,
    sublayers,
    takes_training,
    untrack,
)
from keras_mot._keras.patches import callback_list_problem, extend
from keras_mot._keras.scopes import AutocastScope, is_eager, no_gradients
from keras_mot._keras.trainer import (
    applied_gradients,
    compiled_call,
    finish_callbacks,
    forget_compilation,
    metric_direction,
    model_of,
)
from keras_mot._keras.variables import (
    forget_torch_parameters,
    nothing_frozen,
    own_flag,
    own_variables,
    set_own_flag,
    set_path,
    train_only_while,
)

__all__ = [
    "BOOKKEEPING",
    "AutocastScope",
    "ConvLSTMCell",
    "Functional",
    "Sequential",
    "applied_gradients",
    "attention_axes",
    "attention_projection",
    "batch_moments",
    "bounded_weights",
    "build_shapes",
    "call_of",
    "callback_list_problem",
    "calls_anywhere",
    "calls_by_depth",
    "compiled_call",
    "copy_parent_path",
    "distribution_strategy",
    "extend",
    "finish_callbacks",
    "flatten_layers",
    "forget_attribute",
    "forget_compilation",
    "forget_torch_parameters",
    "functional_of",
    "get_keras_mask",
    "has_default_build",
    "is_eager",
    "is_graph_model",
    "keep_axis",
    "keep_losses",
    "metric_direction",
    "model_of",
    "no_gradients",
    "nothing_frozen",
    "open_tracking",
    "operation_class",
    "output_shape_of",
    "own_flag",
    "own_name",
    "own_variables",
    "producer_of",
    "run_graph",
    "seed_generators",
    "set_input_shape",
    "set_keras_mask",
    "set_own_flag",
    "set_path",
    "sublayers",
    "takes_training",
    "train_only_while",
    "untrack",
]
