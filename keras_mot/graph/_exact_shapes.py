"""Symbolic calls of layers that say too little of the shapes of their results, or take other arguments than `call`."""

import contextlib
import functools

import keras


@contextlib.contextmanager
def exact_shapes(layers):
    """Context in which layers find the shapes of their results by their `call`, where their own way does not suffice.

    `EinsumDense` leaves sizes open that follow from its inputs; a subclass may have arguments that the
    `compute_output_spec` which it inherits does not take. What returns `None` beside tensors, which Keras's graphs do
    not allow, returns a `Nothing`.
    """
    changed = [layer for layer in layers if "compute_output_spec" not in vars(layer)]
    for layer in changed:
        vars(layer)["compute_output_spec"] = functools.partial(_spec, layer)
    try:
        yield
    finally:
        for layer in changed:
            del vars(layer)["compute_output_spec"]


class Nothing(keras.KerasTensor):
    """Stands for a `None` that a layer returns beside its tensors."""

    def __init__(self):
        super().__init__((1,))


def _spec(layer, *args, **kwargs):
    spec = _exact_spec(layer, args, kwargs)
    return keras.tree.map_structure(lambda item: Nothing() if item is None else item, spec)


def _exact_spec(layer, args, kwargs):
    try:
        spec = type(layer).compute_output_spec(layer, *args, **kwargs)
    except Exception:
        with contextlib.suppress(Exception):
            return keras.Operation.compute_output_spec(layer, *args, **kwargs)
        raise
    if _has_open_sizes(spec) and not _has_open_sizes((args, kwargs)):
        with contextlib.suppress(Exception):  # it is only less exact
            closed = keras.tree.map_structure(_of_known_batch, (args, kwargs))
            exact = keras.Operation.compute_output_spec(layer, *closed[0], **closed[1])
            return keras.tree.map_structure(_of_open_batch, exact)
    return spec


_SIZE = 227  # a prime that no other size is likely to be, nor the batch of `_open_batch`


def _of_known_batch(item):
    open_batch = isinstance(item, keras.KerasTensor) and item.shape[:1] == (None,)
    return keras.KerasTensor((_SIZE, *item.shape[1:]), item.dtype) if open_batch else item


def _of_open_batch(item):
    if item is None:
        return None
    batch = (None,) if item.shape[0] == _SIZE else item.shape[:1]
    return keras.KerasTensor((*batch, *item.shape[1:]), item.dtype)


def _has_open_sizes(structure):
    """Whether sizes besides the batch's are open."""
    return any(None in item.shape[1:] for item in keras.tree.flatten(structure) if isinstance(item, keras.KerasTensor))
