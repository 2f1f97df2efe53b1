"""Training on two devices, in a process of its own: devices are made when a backend starts."""

import os
import subprocess
import sys

import keras
import pytest

_MIRRORED = """
import tensorflow as tf
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
assert strategy.num_replicas_in_sync == 2

def compiled_on_devices(build, transform):
    with strategy.scope():
        start = build()
    model = transform(start)
    with strategy.scope():
        return compiled(model)
"""
_DATA_PARALLEL = """
import jax, keras
assert len(jax.devices()) == 2
keras.distribution.set_distribution(keras.distribution.DataParallel(devices=keras.distribution.list_devices()))

def compiled_on_devices(build, transform):
    return compiled(transform(build()))
"""


def run_on_two_devices(imports, script):
    """Runs `script`, which has `compiled_on_devices(build, transform)`, over two logical CPUs or two host devices.

    Args:
        imports: the lines that import what it uses, `compiled` among it.
        script: Python code that fails if something is wrong.
    """
    setup = {"tensorflow": _MIRRORED, "jax": _DATA_PARALLEL}.get(keras.backend.backend())
    if setup is None:
        pytest.skip("Keras distributes the PyTorch backend through PyTorch's own launchers")
    code = f"{imports}\n{setup}\n{script}\nprint('reached')"
    environment = {**os.environ, "XLA_FLAGS": "--xla_force_host_platform_device_count=2"}
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert run.returncode == 0, run.stderr[-3000:]
    assert "reached" in run.stdout
