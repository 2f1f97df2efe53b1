import math

import pytest

from keras_mot.recipes import Budget

pytestmark = pytest.mark.backend_independent
COSTS = {"bytes": 100, "zipped": 50, "latency_ms": None, "drop": 0.02}


@pytest.mark.parametrize(
    ("budget", "met"),
    [
        (Budget(zipped=50), True),
        (Budget(zipped=49), False),
        (Budget(bytes=100, drop=0.02), True),
        (Budget(bytes=100, drop=0.01), False),
        (Budget(drop=0), False),
        (Budget(latency_ms=5.0), False),  # nothing was timed
    ],
)
def test_met(budget, met):
    assert budget.is_met(COSTS) == met


def test_binary_fractions():
    assert Budget(drop=0.01).is_met({"drop": 0.99 - 0.98})


def test_excesses():
    assert Budget(zipped=40, drop=0.03, latency_ms=1).excesses(COSTS) == {
        "zipped": pytest.approx(0.25),
        "latency_ms": math.inf,
        "drop": 0.0,
    }


def test_text():
    assert str(Budget(zipped=40_000, drop=0.01)) == "at most 40,000 bytes, zipped, a drop of at most 0.01"


@pytest.mark.parametrize(
    ("limits", "error", "words"),
    [
        ({}, ValueError, "at least one limit of: bytes, zipped"),
        ({"zipped": 0}, ValueError, "`zipped` should be above 0"),
        ({"zipped": 0.5}, ValueError, "`zipped` is a number of bytes, and no share"),
        ({"drop": -0.1}, ValueError, "`drop` should be at least 0"),
        ({"bytes": "40kB"}, TypeError, "`bytes` should be a number"),
        ({"latency_ms": math.nan}, ValueError, "`latency_ms` should be at least 0, and finite"),
    ],
)
def test_what_is_no_budget(limits, error, words):
    with pytest.raises(error, match=words):
        Budget(**limits)


def test_a_drop_as_large_as_the_metric_is_no_limit():
    for name in ("accuracy", "sparse_categorical_accuracy", "f1", "top5"):
        with pytest.raises(ValueError, match="one point of a hundred is `drop="):
            Budget(drop=1, zipped=10).check_metric(name)
        Budget(drop=0.5).check_metric(name)
    Budget(drop=5).check_metric("mean_squared_error")
