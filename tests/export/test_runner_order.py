"""The runner takes inputs by name, or in the order of the model that was exported."""

import keras
import numpy as np
import pytest
from keras import layers

from keras_mot.export import LiteRTRunner, export_litert
from keras_mot.quantization import quantize_post_training


@pytest.fixture(scope="module")
def swapped():
    """A model whose inputs and outputs are not in the order of their names, its data, and what it returns."""
    keras.utils.set_random_seed(0)
    first, second = keras.Input((4,), name="zeta"), keras.Input((4,), name="alpha")
    outputs = [layers.Dense(3, name="zz")(first), layers.Dense(3, name="aa")(second)]
    model = keras.Model([first, second], outputs)
    data = list(np.random.default_rng(0).uniform(0, 1, (2, 5, 4)).astype("float32"))
    return model, data, [keras.ops.convert_to_numpy(tensor) for tensor in model(data)]


@pytest.mark.parametrize("integers", [False, True])
def test_lists_are_in_the_order_of_the_model(swapped, tmp_path, integers):
    model, data, expected = swapped
    if integers:
        model = quantize_post_training(model, calibration_data=data, equalize=False, correct_biases=False)
    runner = LiteRTRunner(export_litert(model, tmp_path / "model.tflite").path)
    assert [tensor.name for tensor in runner.inputs] == ["zeta", "alpha"]
    by_order, by_name = runner.run(data), runner.run({"alpha": data[1], "zeta": data[0]})
    assert list(by_order) == ["zz", "aa"]
    for received in (by_order, by_name):
        np.testing.assert_allclose(list(received.values()), expected, atol=0.05 if integers else 1e-5)


@pytest.mark.backend_independent
def test_another_process_sees_the_same_order(swapped, tmp_path):
    model, data, expected = swapped
    path = export_litert(model, tmp_path / "model.tflite").path
    changed = path.read_bytes() + b"\0" * 16  # no longer the file that this process has made
    received = LiteRTRunner(changed).run(data)
    np.testing.assert_allclose(list(received.values()), expected, atol=1e-5)


@pytest.mark.backend_independent
def test_what_does_not_fit_is_refused(swapped, tmp_path):
    model, data, _ = swapped
    integers = quantize_post_training(model, calibration_data=data, equalize=False, correct_biases=False)
    runner = LiteRTRunner(export_litert(integers, tmp_path / "model.tflite", input_type="int8").path)
    with pytest.raises(ValueError, match="names of the inputs"):
        runner.run({"zeta": data[0], "beta": data[1]})
    with pytest.raises(ValueError, match="takes 2 input"):
        runner.run(data[:1])
    with pytest.raises(ValueError, match="another shape"):
        runner.run([data[0], data[1][:, :2]])
    # 200 would be -56.
    with pytest.raises(ValueError, match=r"takes int8\. Received: uint8"):
        runner.run([np.full((1, 4), 200, "uint8"), data[1][:1]])
    with pytest.raises(ValueError, match=r"takes int8\. Received: <U"):
        runner.run([data[0].astype(str), data[1]])
