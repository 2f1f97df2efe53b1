"""What a layer is and keeps track of beside its variables: layers within, losses, its place in a model."""

import contextlib


def flatten_layers(layer):
    """A layer or model, and all layers and models within it, each once."""
    return layer._flatten_layers()


def sublayers(layer):
    """The direct sub-layers that Keras tracks for `layer`, in tracking order."""
    return list(layer._layers)


def has_default_build(layer):
    """Whether a layer has no `build` of its own, so that only a call on data makes its weights."""
    return getattr(layer.build, "_is_default", False)


def takes_training(operation):
    """Whether the `call` of a layer or operation has an argument `training`."""
    return getattr(operation, "_call_has_training_arg", False)


def build_shapes(layer):
    """The shapes that a layer was built for, by the names of the arguments of its `call`; `None` if it was not."""
    return getattr(layer, "_build_shapes_dict", None)


def keep_losses(layer, losses):
    """Gives a layer those of `losses` that were added to it or to a layer within while a scope held them back."""
    for each in flatten_layers(layer):
        each._losses.extend(loss for loss in losses if id(loss) in each._loss_ids)


def copy_parent_path(source, target):
    """Lets a layer say that it lies where another one does."""
    target._parent_path = source._parent_path


def set_input_shape(layer, shape):
    """Tells a layer that is not built a sample's shape, for a sequential model that begins with it."""
    layer._input_shape_arg = tuple(shape)


def copy_input_shape(source, target):
    """Tells a layer what another was told by `set_input_shape`, or by `input_shape` when it was made."""
    if getattr(source, "_input_shape_arg", None) is not None:
        target._input_shape_arg = source._input_shape_arg


def batch_moments(batch_norm, values, mask):
    """The mean and the variance of a batch, as a layer of batch normalization computes them."""
    return batch_norm._moments(values, mask)


def output_shape_of(layer):
    """The output shape that a `Lambda` layer was given, as it was given."""
    return layer._output_shape


def distribution_strategy(model):
    """The `tf.distribute` strategy that a model was created under; `None` without one."""
    return getattr(model, "_distribute_strategy", None)


def attention_axes(layer):
    """The axes that a built attention layer attends over; `None` where that is the sequence's, always."""
    return getattr(layer, "_attention_axes", None)


def attention_projection(layer, part):
    """The dense layer of a built attention layer that projects its "query", "key" or "value", or makes its "output"."""
    return getattr(layer, f"_{part}_dense")


def keep_axis(layer):
    """The axes of its inputs for which a built `Normalization` has statistics of their own: a tuple."""
    return tuple(layer._keep_axis)


@contextlib.contextmanager
def open_tracking(layer):
    """Context in which a built layer takes and gives up sub-layers."""
    layer._tracker.unlock()
    try:
        yield
    finally:
        layer._tracker.lock()


def untrack(layer, sublayer):
    """Makes a layer forget a sub-layer that it tracks."""
    layer._tracker.untrack(sublayer)


def forget_attribute(layer, name, variables):
    """Makes a layer forget an attribute that held sub-layers, and their variables, where the backend keeps account."""
    for variable in variables:
        if hasattr(layer, "_post_untrack_variable"):  # PyTorch
            layer._post_untrack_variable(variable)
    # Attributes set before a layer was swapped are untouched: only what was tracked under the name goes.
    with contextlib.suppress(AttributeError):
        delattr(layer, name)
    # TensorFlow's exporter keeps the names of tracked containers.
    tracked = getattr(layer, "_tracked", None)
    if isinstance(tracked, list):
        tracked[:] = [each for each in tracked if each != name]


# The attributes under which a layer, in Keras or on a backend, keeps account of what also has a name of its own.
BOOKKEEPING = frozenset(
    {
        "_layers",
        "_operations",
        "_nodes",
        "_tracker",
        "_trainable_variables",
        "_non_trainable_variables",
        "_metrics",
        "_seed_generators",
        "_functional",
        "_modules",
    }
)


def seed_generators(layer):
    """The generators of random numbers that a layer itself holds, such as that of dropout."""
    return list(getattr(layer, "_seed_generators", ()))


def unpickling_with(kind):
    """The function by which a pickled layer or model of a class is read again."""
    return kind._unpickle_model
