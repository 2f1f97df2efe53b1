"""Names of a functional model's outputs: an operation may have one beside its own."""

from keras_mot._keras.classes import Functional
from keras_mot._keras.graph import producer_of
from keras_mot._keras.patches import extend


def _named(initialize):
    def named(self, inputs, outputs, name=None, **kwargs):  # Keras compares the arguments with those of subclasses
        initialize(self, inputs, outputs, name=name, **kwargs)
        names = [getattr(producer_of(tensor), "output_name", None) for tensor in self.outputs]
        if any(names):
            self.output_names = [new or old for new, old in zip(names, self.output_names, strict=True)]

    return named


extend(
    Functional,
    "__init__",
    _named,
    arguments=("inputs", "outputs", "name"),
    without="the outputs of quantized models are named after quantizers, and not after the layers that you named",
)
