"""Base of the frozen configuration objects: they validate, compare, print and serialise."""

import dataclasses

import keras
import numpy as np


class EqualByConfig:
    """Mixin of the axes' base classes: objects of one class with equal settings are equal.

    Weights with equal settings are updated together, and must be so again after loading. Frozen dataclasses
    have this by themselves; it is for users' plain classes, which go by their configuration, or by their
    attributes if they have none.
    """

    def __eq__(self, other):
        return type(self) is type(other) and _settings(self) == _settings(other)

    def __hash__(self):
        return hash((type(self), _settings(self)))

    def get_config(self):
        """The fields of a dataclass; another class whose objects have attributes must say how they are made.

        Raises:
            TypeError: if it does not.
        """
        if dataclasses.is_dataclass(self) or not vars(self):
            return _fields(self)
        raise _no_config(self)

    @classmethod
    def from_config(cls, config):
        """The object that `get_config` described."""
        return _from_fields(cls, config)


def _settings(axis):
    """What tells objects of one class apart, as something that can be hashed."""
    if type(axis).get_config in (EqualByConfig.get_config, Config.get_config):
        return _hashable(vars(axis))
    return _hashable(axis.get_config())


def _no_config(axis):
    name = type(axis).__name__
    return TypeError(
        f"{axis!r} is to be saved, and `{name}` does not say how: give it a method `get_config` that returns the "
        "constructor's arguments, or make it a dataclass that inherits `keras_mot.Config`, with "
        "`@keras.saving.register_keras_serializable()` and `@dataclasses.dataclass(frozen=True)` before it. Only "
        "saving needs this, not training or stripping."
    )


def check_hashable(name, axis):
    """Raises a `TypeError` for an axis that cannot be compared with others, as that of the argument `name`."""
    try:
        hash(axis)
    except TypeError as error:
        raise TypeError(
            f"`{name}` should be hashable, for weights with equal settings are updated together; {axis!r} is not: "
            f"{error}. Make its class a frozen dataclass, `@dataclasses.dataclass(frozen=True)`, with tuples for lists."
        ) from error


def _hashable(value):
    if isinstance(value, dict):
        return frozenset((key, _hashable(item)) for key, item in value.items())
    if isinstance(value, list | tuple):
        return tuple(_hashable(item) for item in value)
    if isinstance(value, set):
        return frozenset(value)
    if isinstance(value, np.ndarray):
        return value.shape, str(value.dtype), value.tobytes()
    try:
        hash(value)
    except TypeError:
        return id(value)
    return value


class Config:
    """Mixin for frozen dataclasses that serialise through Keras.

    A subclass is decorated with `@keras.saving.register_keras_serializable("keras_mot")` and
    `@dataclasses.dataclass(frozen=True)`; it validates in `__post_init__`, so that a wrong value is refused
    where it is written.
    """

    def get_config(self):
        """The fields as a JSON-ready dictionary."""
        if not dataclasses.is_dataclass(self):
            raise _no_config(self)
        return _fields(self)

    @classmethod
    def from_config(cls, config):
        """The object that `get_config` described."""
        return _from_fields(cls, config)


def _fields(axis):
    fields = dataclasses.fields(axis) if dataclasses.is_dataclass(axis) else ()
    return {field.name: keras.saving.serialize_keras_object(getattr(axis, field.name)) for field in fields}


def _from_fields(cls, config):
    return cls(**{name: keras.saving.deserialize_keras_object(value) for name, value in config.items()})
