"""What stands for a function of each element on the way through a converter."""

import keras
from keras import ops

from keras_mot.layers.same_shape import SameShape

_NUMBERS = 2**20


@keras.saving.register_keras_serializable("keras_mot")
class TableMark(SameShape):
    """Stands in a model that is exported for an operation that a table in the file will compute.

    It is a power whose exponent is a number of its own, which converters leave alone.

    Args:
        number: of the table, from 0 on.
        **kwargs: arguments of `keras.layers.Layer`.
    """

    def __init__(self, number: int, **kwargs):
        super().__init__(**kwargs)
        self.number = number

    def call(self, inputs):
        """The mark."""
        return ops.power(inputs, exponent_of_table(self.number))

    def get_config(self):
        """The constructor's arguments."""
        return {**super().get_config(), "number": self.number}


def exponent_of_table(number: int) -> float:
    """The exponent that stands for the table of this number."""
    return 5.0 + (2 * number + 1) / _NUMBERS


def number_of_table(exponent: float) -> int | None:
    """The number of the table that an exponent stands for; `None` if it stands for itself."""
    value = (exponent - 5.0) * _NUMBERS
    return int(value) // 2 if 0 < value < _NUMBERS and value % 2 == 1 else None
