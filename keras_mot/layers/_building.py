"""Building a model and its optimizer before training begins.

On TensorFlow the first training step builds what is not built, and is already compiled then: codebooks start from the
values of weights, which nobody can read there. And a step that makes the variables of the optimizer is traced twice,
which takes seconds where everything is rounded.
"""

import keras

from keras_mot._keras import extend, flatten_layers
from keras_mot.layers.activation_quantizer import ActivationQuantizer
from keras_mot.layers.copying import strategy_scope
from keras_mot.layers.transformed import is_transformed, pending_transforms


def _building(fit):
    def built_first(self, x=None, *args, **kwargs):
        if pending_transforms(self):
            batch = _first_batch(x)
            if batch is not None:
                with strategy_scope(self):
                    self(batch, training=False)
        if self.built and _trains_as_usual(self) and _is_changed(self):
            with strategy_scope(self):
                self.optimizer.build(self.trainable_variables)
        return fit(self, x, *args, **kwargs)

    return built_first


def _trains_as_usual(model):
    """Whether its training step is Keras's own, which trains all its weights by one optimizer."""
    optimizer = getattr(model, "optimizer", None)
    return optimizer is not None and not optimizer.built and type(model).train_step is keras.Model.train_step


def _is_changed(model):
    return any(is_transformed(layer) or isinstance(layer, ActivationQuantizer) for layer in flatten_layers(model))


def _first_batch(x):
    """A sample or a batch of the inputs in what is given to `fit`, if that can be read twice; else `None`."""
    if hasattr(x, "element_spec") and hasattr(x, "take"):  # a `tf.data.Dataset`
        batch = next(iter(x.take(1)), None)
        return batch[0] if isinstance(batch, tuple) else batch
    leaves = keras.tree.flatten(x)
    if leaves and all(hasattr(leaf, "shape") and hasattr(leaf, "__getitem__") and len(leaf.shape) for leaf in leaves):
        return keras.tree.map_structure(lambda leaf: keras.ops.convert_to_tensor(leaf[:1]), x)
    return None


extend(
    *(keras.Model, "fit", _building),
    arguments=("x",),
    without="a clustered model without input shape must be built before `fit`",
)
