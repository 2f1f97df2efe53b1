"""What a layer consists of beside its attributes, for copies of layers that are not made from configurations."""

import keras

from keras_mot._keras.classes import Functional, Sequential
from keras_mot._keras.layers import BOOKKEEPING

# Of what Keras's constructors set, these say something of the layer: the rest keeps account of objects.
_SAYS_SOMETHING = frozenset(
    {
        *("activity_regularizer", "autocast", "built", "supports_jit", "_dtype_policy", "_auto_config"),
        *("_allow_non_tensor_positional_args", "_build_shapes_dict", "_convert_input_args", "_input_spec"),
        *("_parent_path", "_path", "_supports_masking"),
    }
)
# What compiling a model, training it or calling it leaves behind.
_OF_TRAINING = frozenset(
    {
        *(
            "compiled",
            "history",
            "jit_compile",
            "loss",
            "optimizer",
            "predict_function",
            "run_eagerly",
            "stop_training",
        ),
        *("steps_per_execution", "test_function", "train_function", "_compile_config", "_compile_loss"),
        *("_compile_metrics", "_compiled_trainable_state", "_jax_state", "_jax_state_synced", "_loss_tracker"),
        *("_saved_model_arg_spec", "_saved_model_inputs_spec", "_torch_params"),
        # TensorFlow's accounts, and this package's.
        *("_self_name_based_restores", "_self_saveable_object_factories", "_self_setattr_tracking", "_self_update_uid"),
        *("_weight_stacks", "_weight_transforms"),
    }
)
# Methods that Keras puts on each object, which call that very object.
_BOUND = frozenset({"build", "quantize"})


def shell_of(layer, kind):
    """A layer of class `kind` with the name, dtype and flags of another, and nothing that its own constructor sets."""
    if issubclass(kind, Functional | Sequential):
        raise ValueError(f"'{layer.name}' is a model with a graph, which is copied by its configuration alone")
    shell = kind.__new__(kind)
    base = keras.Model if issubclass(kind, keras.Model) else keras.layers.Layer
    base.__init__(shell, name=layer.name, dtype=layer.dtype_policy, trainable=layer._trainable)
    return shell


def attributes_of(layer):
    """Dictionary of what makes a layer what it is: the attributes that its own code has set, and some of Keras's."""
    attributes = {**vars(layer), **vars(layer).get("_modules", {})}  # PyTorch keeps sub-modules apart
    fresh = set(vars(keras.Model() if isinstance(layer, keras.Model) else keras.layers.Layer())) - _SAYS_SOMETHING
    left_out = fresh | BOOKKEEPING | _OF_TRAINING | _BOUND
    return {
        name: value
        for name, value in attributes.items()
        if name not in left_out and not name.startswith("_self_unconditional_")
    }


def track_in_order(layer, trained, state, layers):
    """Lets a layer track these variables and sub-layers, in this order, and no others."""
    for name, kept in (("trainable_variables", trained), ("non_trainable_variables", state), ("layers", layers)):
        layer._tracker.config[name][1][:] = kept
        layer._tracker.stored_ids[name] = {id(each) for each in kept}


def lock_tracking(layer):
    """Lets a built layer take no more variables, as building does."""
    layer._lock_state()


def set_raw_parameter(layer, name, parameter, source):
    """Gives a layer a PyTorch parameter, or buffer, of which Keras takes no note, as another layer has it."""
    group = layer._parameters if name in getattr(source, "_parameters", ()) else layer._buffers
    group[name] = parameter
