"""A few typical inputs of a model, remembered as long as the model lives."""

import weakref
from typing import Any

import keras
import numpy as np

from keras_mot.data.arrays import part, sample_count

_MOST, _LEAST, _BYTES = 16, 3, 2**22

_REMEMBERED = weakref.WeakKeyDictionary()


def remember(model: keras.Model, batch: Any) -> None:
    """Remembers some samples of a batch, NumPy arrays in the structure of the model's inputs; no file holds them."""
    size = sum(np.asarray(leaf[:1]).nbytes for leaf in keras.tree.flatten(batch))
    count = int(np.clip(_BYTES // max(size, 1), _LEAST, _MOST))
    few = part(batch, slice(min(count, sample_count(batch))))
    _REMEMBERED[model] = keras.tree.map_structure(np.array, few)  # a view would keep all of the user's data


def remembered(model: keras.Model) -> Any:
    """What `remember` was given for a model, or `None`."""
    return _REMEMBERED.get(model)
