"""Schedules against the published formula and TFMOT's rules."""

import keras
import pytest

from keras_mot.sparsity import ConstantSparsity, PolynomialDecay

pytestmark = pytest.mark.backend_independent


def test_polynomial_decay_follows_the_published_formula():
    schedule = PolynomialDecay(0.5, 0.9, 100, 1100, frequency=100)
    for step in range(100, 1101, 100):
        due, sparsity = schedule(step)
        assert due
        assert sparsity == pytest.approx(0.9 + (0.5 - 0.9) * (1 - (step - 100) / 1000) ** 3)


def test_the_first_update_is_at_begin_step_zero():
    assert ConstantSparsity(0.5, 0)(0) == (True, 0.5)
    assert PolynomialDecay(0.2, 0.8, 0, 100)(0) == (True, pytest.approx(0.2))


@pytest.mark.parametrize("frequency", [1, 7, 30, 100, 1000])
@pytest.mark.parametrize("end", [99, 100, 101])
def test_the_final_sparsity_is_reached_whatever_the_frequency(frequency, end):
    schedule = PolynomialDecay(0.0, 0.9, 3, end, frequency=frequency)
    due = [step for step in range(200) if schedule(step)[0]]
    assert due[0] == 3
    assert due[-1] == end
    assert schedule(end)[1] == 0.9
    assert schedule(10_000)[1] == 0.9


def test_nothing_is_due_outside_the_range():
    schedule = ConstantSparsity(0.5, 10, 20, 4)
    assert [step for step in range(40) if schedule(step)[0]] == [10, 14, 18, 20]


def test_power_one_is_linear():
    assert PolynomialDecay(0.0, 0.8, 0, 100, power=1)(25)[1] == pytest.approx(0.2)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ConstantSparsity(1.0), r"in range \[0, 1\)"),
        (lambda: ConstantSparsity(-0.1), r"in range \[0, 1\)"),
        (lambda: ConstantSparsity(float("nan")), r"in range \[0, 1\)"),
        (lambda: PolynomialDecay(0.5, 1.2, 0, 10), "final_sparsity"),
        (lambda: PolynomialDecay(0.5, 0.9, 10, 5), "`begin_step` should be <= `end_step`"),
        (lambda: PolynomialDecay(0.5, 0.9, 0, -1), "cannot be -1"),
        (lambda: PolynomialDecay(0.5, 0.9, 0, 10, power=0), "`power` should be > 0"),
        (lambda: ConstantSparsity(0.5, -1), "`begin_step` should be >= 0"),
        (lambda: ConstantSparsity(0.5, 0, -2), "`end_step` should be -1"),
        (lambda: ConstantSparsity(0.5, 0, 10, 0), "`frequency` should be > 0"),
    ],
)
def test_wrong_values_are_refused_where_they_are_written(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(
    "make",
    [
        lambda: ConstantSparsity("0.5"),
        lambda: ConstantSparsity(0.5, 1.5),
        lambda: ConstantSparsity(0.5, True),
    ],
)
def test_wrong_types_are_refused(make):
    with pytest.raises(TypeError):
        make()


@pytest.mark.parametrize("schedule", [ConstantSparsity(0.5, 3, 9, 2), PolynomialDecay(0.1, 0.9, 2, 8, 2.5, 3)])
def test_schedules_round_trip_through_keras(schedule):
    config = keras.saving.serialize_keras_object(schedule)
    assert keras.saving.deserialize_keras_object(config) == schedule
    assert eval(repr(schedule)) == schedule
