"""Recipes as YAML, with errors that name the line and the key."""

import contextlib
import dataclasses
import re
from collections.abc import Mapping

import yaml

from keras_mot._messages import nearest, shortened
from keras_mot._numbers import plain
from keras_mot.quantization import Calibration, Rounding
from keras_mot.recipes._yaml_text import compose
from keras_mot.recipes.fine_tuning import FineTune
from keras_mot.recipes.quantizing_stages import plain_calibration
from keras_mot.recipes.rounding_names import plain_rounding
from keras_mot.recipes.stages import STAGES


def write(recipe):
    """The text of a recipe."""
    stages = [{stage.key: _plain(stage)} for stage in recipe.stages]
    return yaml.safe_dump({"name": recipe.name, "stages": stages}, sort_keys=False, allow_unicode=True)


def _plain(config):
    """A configuration object as a dictionary of YAML values."""
    values = {}
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if isinstance(value, Calibration):
            value = plain_calibration(value)
        elif isinstance(value, Rounding):
            value = plain_rounding(value)
        elif dataclasses.is_dataclass(value):
            value = _plain(value)
        values[field.name] = _yaml_value(value)
    return values


def _yaml_value(value):
    """With Python's numbers for NumPy's, and lists for tuples, in dictionaries, too."""
    if isinstance(value, Mapping):
        return {key: _yaml_value(item) for key, item in value.items()}
    return [_yaml_value(item) for item in value] if isinstance(value, tuple | list) else plain(value)


def read(text, name, recipe, order_refusal):
    """The recipe of a text.

    Args:
        text: YAML.
        name: of the file, for messages.
        recipe: the class of the result.
        order_refusal: function from (stages before, stage) to why they cannot follow each other, or `None`.

    Raises:
        ValueError: if the text is no recipe.
    """
    return _Reader(name).read(text, recipe, order_refusal)


class _Reader:
    def __init__(self, name):
        self._name = name

    def read(self, text, recipe, order_refusal):
        node = compose(text, self._name)
        if node is None:
            raise ValueError(f"{self._name}: the recipe is empty; it should have `stages`.")
        values = self._mapping(node, "a recipe", ("name", "stages"))
        if "stages" not in values:
            raise self._error(node, "a recipe should have `stages`, a list.")
        listed = values["stages"][1]
        if not isinstance(listed, yaml.SequenceNode):
            raise self._error(listed, "`stages` should be a list: lines that begin with `- `.")
        if not listed.value:
            raise self._error(listed, "`stages` is empty.")
        result = []
        for item in listed.value:
            stage = self._stage(item)
            refusal = order_refusal(result, stage)
            if refusal:
                raise self._error(item, refusal)
            result.append(stage)
        given = {"name": self._value(values["name"][1])} if "name" in values else {}
        with self._blaming(values, node):
            return recipe(result, **given)

    def _stage(self, node):
        if isinstance(node, yaml.ScalarNode):  # a stage without settings
            return self._configured(self._class_of(node, node.value), None, node)
        if not isinstance(node, yaml.MappingNode) or len(node.value) != 1:
            raise self._error(node, "a stage should be one name, such as `prune:`, with its settings indented.")
        key, settings = node.value[0]
        return self._configured(self._class_of(key, self._key(key)), settings, key)

    def _key(self, node):
        if not isinstance(node, yaml.ScalarNode):
            raise self._error(node, "a key should be a name, such as `prune`.")
        return node.value

    def _class_of(self, node, key):
        if key not in STAGES:
            shown = shortened(key, 100)
            raise self._error(node, f"there is no stage '{shown}'.{nearest(key, STAGES)} Stages: {', '.join(STAGES)}.")
        return STAGES[key]

    def _configured(self, kind, node, start):
        """An object of a configuration class, from a mapping of its settings."""
        label = f"stage '{kind.key}'" if hasattr(kind, "key") else "`fine_tune`"
        if node is None or self._is_null(node):
            values = {}
        else:
            values = self._mapping(node, label, tuple(field.name for field in dataclasses.fields(kind)))
        arguments = {}
        for name, (_, value) in values.items():
            if name == "fine_tune" and not self._is_null(value):
                arguments[name] = self._configured(FineTune, value, value)
            else:
                arguments[name] = self._value(value)
        with self._blaming(values, start):
            return kind(**arguments)

    def _mapping(self, node, label, known):
        if not isinstance(node, yaml.MappingNode):
            raise self._error(node, f"{label} should be settings, such as `name: value`.")
        values = {}
        for key, value in node.value:
            name = self._key(key)
            if name not in known:
                hint, shown = nearest(name, known), shortened(name, 100)
                raise self._error(key, f"{label} has no setting '{shown}'.{hint} Settings: {', '.join(known)}.")
            if name in values:
                raise self._error(key, f"'{name}' is there twice.")
            values[name] = (key, value)
        return values

    def _value(self, node):
        loader = yaml.SafeLoader("")
        try:
            value = loader.construct_object(node, deep=True)
        except Exception as error:  # an impossible date, a number of too many digits, an unknown tag, ...
            reason = getattr(error, "problem", None) or error
            raise self._error(node, f"this value cannot be read: {reason}") from error
        # YAML 1.1 takes 1e-4 for text: a number needs a dot there.
        if isinstance(value, str) and node.style is None and re.fullmatch(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+", value):
            return float(value)
        return value

    @staticmethod
    def _is_null(node):
        return isinstance(node, yaml.ScalarNode) and node.tag == "tag:yaml.org,2002:null"

    @contextlib.contextmanager
    def _blaming(self, values, start):
        """Where the complaint of a configuration class about a setting gets the line of that setting."""
        try:
            yield
        except (TypeError, ValueError) as error:
            named = [name for name in re.findall(r"`(\w+)", str(error)) if name in values]
            raise self._error(values[named[0]][0] if named else start, str(error)) from error

    def _error(self, node, message):
        return ValueError(f"{self._name}:{node.start_mark.line + 1}: {shortened(message)}")
