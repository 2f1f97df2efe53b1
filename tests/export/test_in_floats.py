import pytest

from keras_mot.export.in_floats import by_layer, lines

pytestmark = pytest.mark.backend_independent

OPERATORS = [("MUL", "att", "no kernel"), ("ADD", "att", "no kernel"), ("MUL", "att", "no kernel")]


def test_the_operators_of_a_layer_are_told_together():
    assert by_layer(OPERATORS) == [("2 MUL, ADD", "att", "no kernel")]
    assert lines([*OPERATORS, ("MEAN", "pool", "no kernel")]) == ["2 MUL, ADD (att); MEAN (pool): no kernel"]


def test_reasons_are_told_apart():
    assert lines([*OPERATORS, ("MEAN", "att", "asked for")]) == ["2 MUL, ADD (att): no kernel", "MEAN (att): asked for"]


def test_of_many_layers_the_first_are_named():
    (line,) = lines([("MEAN", f"pool{number}", "no kernel") for number in range(9)])
    assert "MEAN (pool5); and in 3 more layers: no kernel" in line
    assert "pool6" not in line


def test_nothing_in_floats_is_nothing_to_tell():
    assert lines(()) == []
