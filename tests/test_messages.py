"""Error messages never print the numbers of arrays."""

import inspect
import pathlib
import re

import keras
import numpy as np
import pytest

import keras_mot
from keras_mot import analysis, clustering, export, quantization, recipes, sparsity
from keras_mot._messages import describe, nearest

ARRAY = np.random.default_rng(0).random((500, 28, 28)).astype("float32")


class Failing:
    def __repr__(self):
        raise RuntimeError


def test_arrays_are_told_by_shape_and_type():
    assert describe(ARRAY) == "an array of shape (500, 28, 28) and type float32"
    tensor = keras.ops.zeros((2, 3), dtype="int32")
    assert describe(tensor) == "an array of shape (2, 3) and type int32"
    assert describe([ARRAY, 3]) == "[an array of shape (500, 28, 28) and type float32, 3]"
    assert describe({"x": ARRAY}) == "{'x': an array of shape (500, 28, 28) and type float32}"


@pytest.mark.parametrize("value", [3, "word", None, 1.5, (1, 2), ["a"], {"a": 1}])
def test_short_values_are_what_they_are(value):
    assert describe(value) == repr(value)


@pytest.mark.parametrize("value", ["a" * 5000, list(range(5000)), [ARRAY] * 50, Failing(), [[[[[[1]]]]]] * 9])
def test_long_values_are_cut(value):
    assert len(describe(value)) < 400


def test_a_table_is_told_by_its_size_whatever_library_it_is_of():
    class Frame:  # as those of pandas and its like
        shape, columns, iloc = (500, 3), ["a", "b", "c"], None

    assert describe(Frame()) == "a table of 500 rows and 3 columns"


def test_what_may_have_been_meant():
    assert nearest("sise", ["size", "int8"]) == " Did you mean 'size'?"
    assert nearest("f1_scor", ["f1_scores", "f1_score"], 2) == " Did you mean 'f1_score' or 'f1_scores'?"
    assert nearest("x", ["size"]) == ""


def test_no_message_prints_what_it_received():
    """Each value that a user gave goes through `describe`."""
    folder = pathlib.Path(keras_mot.__file__).parent
    pattern = re.compile(r"[Rr]eceived:? \{[^{}]+!r\}|it returned \{[^{}]+!r\}")
    found = [
        f"{path.relative_to(folder)}: {match}"
        for path in sorted(folder.rglob("*.py"))
        if path.parent.name != "cli"  # whose arguments are words
        for match in pattern.findall(path.read_text(encoding="utf-8"))
    ]
    assert found == []


_WHOLE_EXPORTS = {("export_litert", "strict"), ("export_litert", "input_signature")}


def _calls():
    """Each public function with an array in the place of each of its arguments."""
    for room in (keras_mot, analysis, clustering, export, quantization, recipes, sparsity):
        for name in room.__all__ if hasattr(room, "__all__") else dir(room):
            function = getattr(room, name)
            if not inspect.isfunction(function):
                continue
            for parameter in inspect.signature(function).parameters.values():
                if parameter.kind is not parameter.VAR_KEYWORD and (name, parameter.name) not in _WHOLE_EXPORTS:
                    yield pytest.param(function, parameter, id=f"{name}-{parameter.name}")


@pytest.mark.parametrize(("function", "parameter"), _calls())
def test_an_array_in_the_wrong_place(function, parameter, tmp_path):
    """Whatever is said of it is short."""
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(2)])
    if parameter.kind is parameter.VAR_POSITIONAL or parameter.name == "model" or parameter.default is parameter.empty:
        arguments, given = (ARRAY,), {}
    else:
        arguments, given = (model,), {parameter.name: ARRAY}
    others = list(inspect.signature(function).parameters.values())[1:]
    for other in others:
        needed = other.default is other.empty and other.kind is other.POSITIONAL_OR_KEYWORD
        if needed and other.name != parameter.name:
            given[other.name] = tmp_path / "file" if other.name == "path" else ARRAY
    try:
        function(*arguments, **given)
    except Exception as error:
        message = str(error)
    else:
        return  # an array is fine there
    assert len(message) < 1500
    assert not re.search(r"\d\.\d{3,}\S*,?\s+\d\.\d{3,}", message), message
