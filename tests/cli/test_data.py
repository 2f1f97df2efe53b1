import keras
import numpy as np
import pytest

from keras_mot.cli._data import check_against_model, check_names_and_shapes, load_data
from keras_mot.cli._errors import UsageError

X, Y = np.zeros((4, 3), "float32"), np.zeros(4, "int32")


def _save(tmp_path, **arrays):
    path = tmp_path / "data.npz"
    np.savez(path, **arrays)
    return path


@pytest.mark.parametrize("names", [("x_test", "y_test"), ("x_val", "y_val")])
def test_evaluation_arrays(tmp_path, names):
    path = _save(tmp_path, x_train=X, y_train=Y, **{names[0]: X[:2] + 1, names[1]: Y[:2]})
    data = load_data(path)
    assert data.evaluation_name == names[0]
    np.testing.assert_array_equal(data.evaluation[0], X[:2] + 1)


def test_evaluates_on_the_training_data_if_there_is_no_other(tmp_path):
    data = load_data(_save(tmp_path, x_train=X, y_train=Y))
    assert data.evaluation_name == "x_train"
    assert len(data.evaluation[0]) == 4


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"images": X, "labels": Y}, r"lacks 'x_train', 'y_train'; it holds 'images', 'labels'"),
        ({"x_train": X, "labels": Y}, r"lacks 'y_train'; it holds 'x_train', 'labels'"),
        ({}, r"lacks 'x_train', 'y_train'; it holds no arrays"),
        ({"x_train": X, "y_train": Y, "x_test": X}, r"has 'x_test' but lacks 'y_test'"),
        ({"x_train": X, "y_train": Y, "y_val": Y}, r"has 'y_val' but lacks 'x_val'"),
        ({"x_train": X, "y_train": Y[:3]}, r"'x_train' holds 4 samples and 'y_train' 3 labels"),
        ({"x_train": X[:0], "y_train": Y[:0]}, r"'x_train' is empty, of shape \(0, 3\)"),
        ({"x_train": np.float32(1), "y_train": Y}, r"'x_train' is empty, of shape \(\)"),
        ({"x_train": X + np.nan, "y_train": Y}, r"'x_train' holds NaN or infinite values"),
        (
            {"x_train": X, "y_train": np.array(list("abcd"))},
            "should hold numbers; it is of type <U1",
        ),
        ({"x_train": np.array([X, None], "object"), "y_train": Y}, r"the array 'x_train' cannot be read"),
    ],
)
def test_arrays_that_will_not_do(tmp_path, arrays, message):
    with pytest.raises(UsageError, match=message):
        load_data(_save(tmp_path, **arrays))


def test_files_that_are_none(tmp_path):
    with pytest.raises(UsageError, match="does not exist"):
        load_data(tmp_path / "no.npz")
    np.save(tmp_path / "array.npy", X)
    with pytest.raises(UsageError, match=r"is not a `\.npz` file"):
        load_data(tmp_path / "array.npy")


def test_damaged_file(tmp_path):
    path = _save(tmp_path, x_train=np.random.default_rng(0).random((64, 64)), y_train=np.zeros(64))
    content = bytearray(path.read_bytes())
    content[2000:2100] = bytes(100)
    path.write_bytes(content)
    with pytest.raises(UsageError, match="the array 'x_train' cannot be read"):
        load_data(path)


def test_samples_must_fit_the_model(tmp_path):
    model = keras.Sequential([keras.Input((5,)), keras.layers.Dense(2)])
    data = load_data(_save(tmp_path, x_train=X, y_train=Y))
    with pytest.raises(UsageError, match=r"samples of 'x_train' have shape \(3,\); the model takes \(5,\)"):
        check_against_model(data, model)


def test_evaluation_samples_must_fit_too(tmp_path):
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    data = load_data(_save(tmp_path, x_train=X, y_train=Y, x_test=X[:, :2], y_test=Y))
    with pytest.raises(UsageError, match=r"samples of 'x_test' have shape \(2,\)"):
        check_against_model(data, model)


def test_open_dimensions_take_any_size(tmp_path):
    model = keras.Sequential([keras.Input((None, 2)), keras.layers.GlobalAveragePooling1D()])
    data = load_data(_save(tmp_path, x_train=np.zeros((4, 7, 2), "float32"), y_train=Y))
    assert check_against_model(data, model).shape == (4, 2)


def test_models_with_several_inputs_or_outputs(tmp_path):
    data = load_data(_save(tmp_path, x_train=X, y_train=Y))
    first, second = keras.Input((3,)), keras.Input((3,))
    two_inputs = keras.Model([first, second], keras.layers.Add()([first, second]))
    with pytest.raises(UsageError, match="2 inputs; this command takes models with one"):
        check_against_model(data, two_inputs)
    two_outputs = keras.Model(first, [keras.layers.Dense(1)(first), keras.layers.Dense(1)(first)])
    with pytest.raises(UsageError, match="several outputs"):
        check_against_model(data, two_outputs)


def _two_of_each():
    first, second = keras.Input((3,), name="z"), keras.Input((2,), name="a")
    joined = keras.layers.Concatenate()([first, second])
    return keras.Model([first, second], [keras.layers.Dense(1, name=name)(joined) for name in ("kind", "age")])


NAMED = {"x_train/z": X, "x_train/a": X[:, :2], "y_train/kind": Y, "y_train/age": Y + 1}


def test_an_array_for_each_input_and_output(tmp_path):
    test = {name.replace("_train", "_test"): array[:2] for name, array in NAMED.items()}
    data = load_data(_save(tmp_path, **NAMED, **test))
    assert {name: array.shape for name, array in data.x.items()} == {"z": (4, 3), "a": (4, 2)}
    np.testing.assert_array_equal(data.y["age"], Y + 1)
    assert (data.evaluation_name, len(data.evaluation[1]["kind"])) == ("x_test", 2)
    check_names_and_shapes(data, _two_of_each())
    with pytest.raises(UsageError, match="2 inputs; this command takes models with one"):
        check_against_model(data, _two_of_each())
    with pytest.raises(UsageError, match="one input and one output: store 'x_train' and 'y_train'"):
        check_against_model(data, keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)]))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"x_train/z": None, "x_train/a": None, "x_train": X},
            "2 inputs: store an array for each: 'x_train/z'",
        ),
        ({"y_train/age": None}, "outputs of the model, 'y_train/kind', 'y_train/age'; the file has 'y_train/kind'"),
        ({"x_train/a": None, "x_train/b": X}, "named after the inputs of the model, 'x_train/z', 'x_train/a'"),
        ({"x_train/a": X}, r"samples of 'x_train/a' have shape \(3,\); the model takes \(2,\)"),
        ({"x_train/a": X[:3, :2]}, "'x_train/z' holds 4 samples and 'x_train/a' 3 samples"),
        ({"x_train": X}, "has 'x_train' and 'x_train/a', 'x_train/z': one array, or one for each name"),
        ({"x_train/a": X[:, :2] + np.nan}, "'x_train/a' holds NaN"),
    ],
)
def test_named_arrays_that_will_not_do(tmp_path, changes, message):
    arrays = {name: array for name, array in (NAMED | changes).items() if array is not None}
    with pytest.raises(UsageError, match=message):
        check_names_and_shapes(load_data(_save(tmp_path, **arrays)), _two_of_each())


def test_one_name_is_enough_for_one_input(tmp_path):
    model = keras.Sequential([keras.Input((3,), name="z"), keras.layers.Dense(2, name="kind")])
    check_names_and_shapes(load_data(_save(tmp_path, **{"x_train/z": X, "y_train/kind": Y})), model)
    with pytest.raises(UsageError, match="one of the outputs, 'kind': store one array, 'y_train'"):
        check_names_and_shapes(load_data(_save(tmp_path, **{"x_train/z": X, "y_train/age": Y})), model)
