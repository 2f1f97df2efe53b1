"""Shared fixtures. The suite is run once per backend: see `tests/run_backends.py`."""

import os

import keras
import numpy as np
import pytest


def pytest_report_header():
    return f"Keras backend: {keras.backend.backend()} (KERAS_BACKEND={os.environ.get('KERAS_BACKEND', '')})"


@pytest.fixture(autouse=True)
def _fixed_seeds():
    keras.utils.clear_session(free_memory=False)  # seconds each time, when many graphs have been made
    keras.utils.set_random_seed(7)


@pytest.fixture(autouse=True, scope="module")
def _memory():
    yield
    keras.utils.clear_session()


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture
def backend():
    return keras.backend.backend()
