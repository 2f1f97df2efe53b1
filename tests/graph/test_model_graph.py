"""What calls what: producers and readers of tensors, by hand."""

import keras
import pytest
from keras import layers, ops

from keras_mot.graph import Graph, flatten
from keras_mot.graph.rewrite import flatten_with_origins


@pytest.fixture
def model():
    """Two inputs; a layer called twice, a sum of a tensor with itself, and an output that is read, too."""
    first, second = keras.Input((3,), name="first"), keras.Input((3,), name="second")
    shared = layers.Dense(3, name="shared")
    x, y = shared(first), shared(second)
    doubled = layers.Add(name="doubled")([x, x])
    joined = ops.concatenate([doubled, y], axis=-1)
    return keras.Model([first, second], [doubled, layers.Dense(2, name="last")(joined)])


def test_calls_and_their_arguments(model):
    graph = Graph(model)
    assert graph.inputs == tuple(model.inputs)
    assert graph.outputs == tuple(model.outputs)
    assert len(graph.calls) == 5
    place = {id(call): number for number, call in enumerate(graph.calls)}
    for call in graph.calls:  # in an order in which they can run
        for tensor in call.inputs:
            maker = graph.producer(tensor)
            assert maker is None or place[id(maker)] < place[id(call)]
    shared = model.get_layer("shared")
    assert [call.inputs for call in graph.calls_of(shared)] == [(model.inputs[0],), (model.inputs[1],)]
    assert graph.calls_of(layers.Dense(1)) == ()
    joined = graph.producer(graph.calls_of(model.get_layer("last"))[0].inputs[0])
    assert not isinstance(joined.operation, layers.Layer)
    assert keras.tree.flatten((joined.args, joined.kwargs))[:2] == list(joined.inputs)


def test_producers_and_readers(model):
    graph = Graph(model)
    doubled, last = model.outputs
    first, second = graph.calls_of(model.get_layer("shared"))
    (addition,) = graph.calls_of(model.get_layer("doubled"))
    assert graph.producer(doubled) is addition
    assert graph.producer(model.inputs[0]) is None
    assert graph.readers(model.inputs[0]) == (first,)
    assert graph.readers(first.outputs[0]) == (addition, addition)
    assert graph.sole_reader(first.outputs[0]) is None  # it is read twice
    assert graph.sole_reader(second.outputs[0]) is graph.readers(doubled)[0]
    assert graph.is_output(doubled)
    assert graph.sole_reader(doubled) is None  # the model returns it
    assert graph.readers(last) == ()
    assert graph.sole_reader(last) is None


def test_calls_in_other_models_do_not_count(model):
    other = keras.Model(model.inputs[0], model.get_layer("shared")(model.inputs[0]))
    model.get_layer("last")(keras.Input((6,)))
    assert len(Graph(other).calls) == 1
    assert len(Graph(model).calls_of(model.get_layer("last"))) == 1


def test_sequential_and_nested_models():
    inner = keras.Sequential([keras.Input((3,)), layers.Dense(3, name="a"), layers.ReLU(name="b")], name="inner")
    outer = keras.Sequential([keras.Input((3,)), inner, layers.Dense(1, name="c")])
    assert [call.operation.name for call in Graph(inner).calls] == ["a", "b"]
    assert [call.operation for call in Graph(outer).calls] == [inner, outer.layers[1]]
    assert [call.operation.name for call in Graph(flatten(outer)).calls] == ["a", "b", "c"]


def test_origins(model):
    flat, origins = flatten_with_origins(model)
    graph = Graph(flat, origins)
    assert graph.origin(flat.get_layer("last")) is model.get_layer("last")
    assert Graph(model).origin(model.get_layer("last")) is model.get_layer("last")


def test_models_without_a_graph():
    class Own(keras.Model):
        def call(self, inputs):
            return inputs

    with pytest.raises(ValueError, match="only sequential and functional models have a graph"):
        Graph(Own())
