"""Shared fixtures. The suite is run once per backend: see `tests/run_backends.py`."""

import gc
import os

import keras
import numpy as np
import pytest
from keras.src.initializers import random_initializers
from keras.src.random.seed_generator import draw_seed

if keras.backend.backend() == "jax":
    from jax import core as jax_core


def pytest_addoption(parser):
    parser.addoption(
        "--without-backend-independent",
        action="store_true",
        help="leave out what is marked `backend_independent`: it has run on another backend",
    )


def pytest_collection_modifyitems(config, items):
    if config.getoption("--without-backend-independent"):
        left_out = [item for item in items if item.get_closest_marker("backend_independent")]
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if not item.get_closest_marker("backend_independent")]


def pytest_configure():
    os.environ.pop("COLUMNS", None)  # xdist sets it for its workers: tables would be narrower there
    gc.set_threshold(20_000, 10, 10)  # a twentieth of the time went into looking for garbage; `_memory` collects it
    if keras.backend.backend() == "jax":
        random_initializers.random = NumPyRandom(random_initializers.random)


class NumPyRandom:
    """What initializers draw with on JAX, which takes a third of a second to compile a generator for each shape."""

    def __init__(self, module):
        self._module = module

    def __getattr__(self, name):
        return getattr(self._module, name)

    def uniform(self, shape, minval=0.0, maxval=1.0, dtype=None, seed=None):
        return _drawn(seed, dtype, lambda generator: generator.uniform(minval, maxval, shape))

    def normal(self, shape, mean=0.0, stddev=1.0, dtype=None, seed=None):
        return _drawn(seed, dtype, lambda generator: generator.normal(mean, stddev, shape))

    def truncated_normal(self, shape, mean=0.0, stddev=1.0, dtype=None, seed=None):
        return self.normal(shape, mean, stddev, dtype, seed)


def _drawn(seed, dtype, draw):
    key = draw_seed(seed)
    # In a function that JAX traces for the shapes of its results, there are no numbers.
    traced = isinstance(key, jax_core.Tracer)
    values = draw(np.random.default_rng(0 if traced else np.asarray(key))).astype("float32")
    return keras.ops.cast(keras.ops.convert_to_tensor(values), dtype or "float32")


def pytest_report_header():
    return f"Keras backend: {keras.backend.backend()} (KERAS_BACKEND={os.environ.get('KERAS_BACKEND', '')})"


@pytest.fixture(autouse=True)
def _fixed_seeds():
    keras.utils.clear_session(free_memory=False)  # seconds each time, when many graphs have been made
    keras.utils.set_random_seed(7)


@pytest.fixture(autouse=True, scope="module")
def _memory():
    """Each module is left with little to go through: TensorFlow's converter collects garbage every time it runs."""
    gc.collect()
    gc.freeze()
    yield
    keras.utils.clear_session()


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture
def backend():
    return keras.backend.backend()
