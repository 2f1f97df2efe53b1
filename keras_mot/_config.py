"""Base of the frozen configuration objects: they validate, compare, print and serialise."""

import dataclasses
import json

import keras


class EqualByConfig:
    """Mixin of the axes' base classes: objects of one class with equal configurations are equal.

    Weights with equal settings are updated together, and must be so again after loading. Frozen dataclasses
    have this by themselves; it is for users' plain classes.
    """

    def __eq__(self, other):
        return type(self) is type(other) and self.get_config() == other.get_config()

    def __hash__(self):
        return hash((type(self), json.dumps(self.get_config(), sort_keys=True, default=str)))


class Config:
    """Mixin for frozen dataclasses that serialise through Keras.

    A subclass is decorated with `@keras.saving.register_keras_serializable("keras_mot")` and
    `@dataclasses.dataclass(frozen=True)`; it validates in `__post_init__`, so that a wrong value is refused
    where it is written.
    """

    def get_config(self):
        """The fields as a JSON-ready dictionary."""
        return {
            field.name: keras.saving.serialize_keras_object(getattr(self, field.name))
            for field in dataclasses.fields(self)
        }

    @classmethod
    def from_config(cls, config):
        """The object that `get_config` described."""
        return cls(**{name: keras.saving.deserialize_keras_object(value) for name, value in config.items()})
