"""What `fit` trains on, many times over: the kinds of it, checked, and brought into a model's order."""

import copy
import dataclasses
from typing import Any

import keras

from keras_mot._messages import describe
from keras_mot.data.arrangement import Arrangement, outline
from keras_mot.data.pairs import is_pair, known_length

_KINDS = "Pass arrays, a `tf.data.Dataset`, a `keras.utils.PyDataset` or a PyTorch `DataLoader`."


def for_keras(data: Any) -> Any:
    """The data as `fit` takes them: sequences of batches become a `keras.utils.PyDataset`."""
    return data if data is None or is_pair(data) or _is_known_to_keras(data) else _Batches(data)


def count_repeatable(name: str, data: Any) -> int | None:
    """Refuses what cannot be gone through many times; returns the number of batches where that took a pass.

    Args:
        name: of the argument, for messages.
        data: arrays (x, y) or batches.

    Raises:
        TypeError: if it is a generator, or nothing that `fit` takes.
        ValueError: if it has no end, or can be gone through once only.
    """
    if is_pair(data):
        return None
    if hasattr(data, "__next__"):
        raise TypeError(
            f"`{name}` is a generator, which ends after one pass: every stage goes through it again. {_KINDS}"
        )
    if not _is_known_to_keras(data) and not (hasattr(data, "__len__") and hasattr(data, "__getitem__")):
        raise TypeError(f"`{name}` is a {type(data).__name__}, which `fit` does not take. {_KINDS}")
    try:
        endless = isinstance(data, keras.utils.PyDataset) and data.num_batches is None
        len(data)
    except (TypeError, NotImplementedError) as error:
        endless = "infinite" in str(error)
    if endless:
        raise ValueError(f"`{name}` has no end: give it one, such as by `dataset.take(batches)`.")
    if next(iter(data), None) is not None:
        return _count_passing(name, data)
    return None


def _count_passing(name, data):
    """Refuses what the first pass uses up, such as a dataset around an iterator; counts batches of unknown number."""
    count = None if known_length(data) is not None else sum(1 for _ in data)
    if next(iter(data), None) is None:
        raise ValueError(
            f"`{name}` can be gone through once only: every stage goes through it again. Make it from arrays, or from "
            "a function that starts anew each time."
        )
    return count


def arranged(data: Any, arrangement: Arrangement, name: str) -> Any:
    """The data as a model takes them; `data` itself where nothing is to be changed.

    Args:
        data: arrays (x, y), or what Keras trains on: a `keras.utils.PyDataset`, a `tf.data.Dataset`, or a PyTorch
            `DataLoader`.
        arrangement: the `Arrangement`.
        name: of the argument, for messages.

    Raises:
        ValueError: if they do not fit the model.
    """
    x, y = data if is_pair(data) else next(iter(data))
    pair = arrangement.arrange_inputs(x, f"`{name}`"), arrangement.arrange_labels(y, f"`{name}`")
    if is_pair(data):
        return pair
    if outline(arrangement.arrange(x, y)) == outline((x, y)):
        return data
    if isinstance(data, keras.utils.PyDataset):
        return _ArrangedDataset(data, arrangement)
    modules = _modules(data)
    if "tensorflow" in modules:
        return data.map(arrangement.arrange)
    if "torch" in modules:
        loader = copy.copy(data)
        loader.collate_fn = _ArrangedCollation(data.collate_fn, arrangement)
        return loader
    raise ValueError(
        f"The batches of `{name}`, a {type(data).__name__}, should hold the structures of the model: inputs "
        f"{describe(arrangement.inputs)}, labels {describe(arrangement.outputs)}."
    )


def _modules(data):
    return {kind.__module__.split(".")[0] for kind in type(data).__mro__}


def _is_known_to_keras(data):
    return isinstance(data, keras.utils.PyDataset) or bool(_modules(data) & {"tensorflow", "torch", "grain"})


class _Batches(keras.utils.PyDataset):
    """A sequence of batches, as `fit` takes it."""

    def __init__(self, items):
        super().__init__()
        self._items = items

    def __len__(self):
        return len(self._items)

    def __getitem__(self, index):
        return self._items[index]


class _ArrangedDataset(keras.utils.PyDataset):
    """A dataset with each batch arranged."""

    def __init__(self, dataset, arrangement):
        super().__init__(dataset.workers, dataset.use_multiprocessing, dataset.max_queue_size)
        self._dataset, self._arrangement = dataset, arrangement

    def __len__(self):
        return len(self._dataset)

    def __getitem__(self, index):
        return self._arrangement.arrange(*self._dataset[index])

    def on_epoch_begin(self):
        self._dataset.on_epoch_begin()

    def on_epoch_end(self):
        self._dataset.on_epoch_end()


@dataclasses.dataclass(frozen=True)
class _ArrangedCollation:
    """How a `DataLoader` makes a batch, and then arranges it; a class, so that workers can be sent it."""

    collate: Any
    arrangement: Arrangement

    def __call__(self, samples):
        return self.arrangement.arrange(*self.collate(samples))
