"""What of Keras is extended, and what is said of a Keras that is not what the extensions were written for."""

import concurrent.futures

import keras
import numpy as np
import pytest

from keras_mot._keras import bounded_weights, callback_list_problem, extend, plain_places, symbolic_operands
from keras_mot._keras.patches import EXTENDED
from keras_mot.layers._refusals import guard_models

LISTS = keras.callbacks.CallbackList


def test_the_installed_keras_is_what_the_extensions_expect(backend):
    expected = {"CallbackList.set_model", "Layer.add_loss", "Layer.add_weight", "Model.load_weights", "Model.quantize"}
    if backend == "torch":
        expected.add("Layer.__deepcopy__")
    assert EXTENDED.items() >= dict.fromkeys(expected).items()  # `None`: nothing is wrong
    assert callback_list_problem() is None


class Original:
    def method(self, one, two=2):
        """Its words."""
        return one + two


@pytest.fixture(autouse=True)
def _forgotten():
    known, method = dict(EXTENDED), Original.method
    yield
    EXTENDED.clear()
    EXTENDED.update(known)
    Original.method = method


def doubled(plain):
    return lambda self, one, two=2: 2 * plain(self, one, two)


def test_a_method_is_extended_once_and_keeps_its_name_and_words():
    assert extend(Original, "method", doubled, ("one", "two"), "nothing doubles")
    assert extend(Original, "method", doubled, ("one", "two"), "nothing doubles")
    assert Original().method(1) == 6
    assert Original.method.__doc__ == "Its words."
    assert EXTENDED["Original.method"] is None


def test_a_method_that_other_classes_lack_is_added():
    assert extend(Original, "other", lambda plain: lambda self: plain, without="no other", added=True)
    assert Original().other() is None
    del Original.other


@pytest.mark.parametrize(
    ("name", "arguments", "problem"),
    [
        ("missing", (), r"`Original\.missing` is missing"),
        ("method", ("three",), r"`Original\.method` takes no argument `three`, but \['self', 'one', 'two'\]"),
    ],
)
def test_another_keras_is_warned_of_and_left_as_it_is(name, arguments, problem):
    with pytest.warns(UserWarning, match=rf"Keras {keras.__version__} is not .*: {problem}\. So nothing doubles\. Use"):
        assert not extend(Original, name, doubled, arguments, "nothing doubles")
    assert Original().method(1) == 3


def test_a_keras_without_load_weights(monkeypatch):
    monkeypatch.delattr(keras.Model, "load_weights")
    with pytest.warns(
        UserWarning, match=r"`Model\.load_weights` is missing. So weights that belong to a model with other"
    ):
        guard_models(lambda model: True)


def test_a_keras_whose_load_weights_takes_other_arguments(monkeypatch):
    monkeypatch.setattr(keras.Model, "load_weights", lambda self, path: None)
    with pytest.warns(UserWarning, match=r"`Model\.load_weights` takes no argument `filepath`"):
        guard_models(lambda model: True)


def test_a_callback_list_that_sets_no_model(monkeypatch):
    monkeypatch.setattr(LISTS, "__init__", lambda self, callbacks, model=None: setattr(self, "callbacks", callbacks))
    assert callback_list_problem() == "`CallbackList` does not call its own `set_model`"


def test_a_callback_list_that_keeps_its_callbacks_elsewhere(monkeypatch):
    plain = LISTS.__init__

    def other(self, callbacks, model=None):
        plain(self, callbacks, model=model)
        self.kept = list(self.callbacks)

    monkeypatch.setattr(LISTS, "__init__", other)
    monkeypatch.setattr(LISTS, "on_epoch_begin", lambda self, epoch: [each.on_epoch_begin(epoch) for each in self.kept])
    assert callback_list_problem() == "`CallbackList` does not call what is put into its `callbacks`"


def test_a_callback_list_that_fails(monkeypatch):
    monkeypatch.delattr(LISTS, "on_epoch_begin")
    monkeypatch.setattr(keras.callbacks.Callback, "on_epoch_begin", None)
    assert callback_list_problem().startswith("`CallbackList` cannot be used as it was (")


def test_a_failing_check_is_said_with_its_consequence():
    with pytest.warns(UserWarning, match="it does not double. So nothing doubles"):
        assert not extend(Original, "method", doubled, (), "nothing doubles", check=lambda: "it does not double")


@pytest.mark.parametrize(
    "call", [lambda: keras.layers.Dense(4).build((None, 8)), lambda: keras.layers.PReLU().build((None, 40))]
)
def test_weights_are_counted_however_a_layer_asks_for_them(call):
    with bounded_weights(40):
        call()
    with bounded_weights(30), pytest.raises(ValueError, match="asks for more weights than the file holds"):
        call()


def test_without_a_bound_keras_itself_says_what_is_wrong_with_a_shape():
    with pytest.raises((TypeError, ValueError), match=r"keyword argument|multiple values"):
        keras.layers.Layer().add_weight("kernel", shape=(2,))


def test_operands_are_put_back_by_the_last_that_is_within():
    owner = next(each for each in keras.Variable.__mro__ if "__mul__" in vars(each))
    plain, first, second = vars(owner)["__mul__"], symbolic_operands(), symbolic_operands()
    first.__enter__()
    second.__enter__()  # as another thread may
    first.__exit__(None, None, None)
    product = keras.Variable(np.ones((3,), "float32")) * keras.Input((3,))
    second.__exit__(None, None, None)
    assert isinstance(product, keras.KerasTensor)
    assert vars(owner)["__mul__"] is plain


def test_plain_places_are_those_of_one_thread(backend):
    if backend != "tensorflow":
        pytest.skip("the functions are those of TensorFlow's backend")
    with plain_places(), concurrent.futures.ThreadPoolExecutor(1) as pool:
        here, there = place_of_zero(), pool.submit(place_of_zero).result()
    assert (here, there, place_of_zero()) == (0, 1, 1)


def place_of_zero():
    """Keras's own function tells -0.0 from 0.0."""
    return int(keras.ops.argmax(np.array([-0.0, 0.0], "float32")))
