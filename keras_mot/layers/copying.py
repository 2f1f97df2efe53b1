"""Copying a model of any kind, transforms included, so that the copy shares no variables with it."""

import contextlib
import copy
import tempfile
import types
import warnings

import keras
import numpy as np

from keras_mot._keras import (
    Functional,
    assign_raw,
    copy_input_shape,
    copy_parent_path,
    distribution_strategy,
    extend,
    flatten_layers,
    forget_torch_parameters,
    is_graph_model,
    output_shape_of,
    own_flag,
    producer_of,
    raw_variables,
    set_own_flag,
    set_path,
)
from keras_mot.layers.activation_quantizer import ActivationQuantizer
from keras_mot.layers.duplicating import duplicate, is_of_keras, rebuilt_alike
from keras_mot.layers.finding import check_layer
from keras_mot.layers.functions import functions_of_callables, is_lambda, put_lambdas
from keras_mot.layers.transformed import plain_class
from keras_mot.transforms import WeightTransform
from keras_mot.transforms.base import updaters_by_reference


def copy_model(model: keras.layers.Layer) -> keras.layers.Layer:
    """A copy of a built layer or model: same names, values and transforms, no shared variables, not compiled.

    Sequential, functional and nested models are rebuilt layer by layer; other layers and subclassed models
    from their configuration. Classes and functions that the model uses need not be registered.

    Args:
        model: a built layer or model.

    Returns:
        The copy.

    Raises:
        TypeError: if `model` is not a Keras model or layer.
        ValueError: if the model cannot be rebuilt from its configuration.
    """
    return copy_and_note(model)[0]


def copy_and_note(model: keras.layers.Layer) -> tuple[keras.layers.Layer, list[tuple]]:
    """What `copy_model` returns, and pairs of (copy, original) of all layers and operations in it."""
    check_layer(model, "copy_model")
    failures = []
    # What users' own configurations say may be wrong: then such layers are copied attribute by attribute.
    for by_attributes in [False] if is_of_keras(model) else [False, True]:
        copies = {}
        try:
            with strategy_scope(model), warnings.catch_warnings():
                # Keras warns of layers that their calls build; whether the copy is as the model is checked below.
                warnings.filterwarnings("ignore", message=r"`build\(\)` was called on layer")
                clone = _copy_structure(model, copies, by_attributes)
            _check_copy(model, clone)
            break
        except Exception as error:
            failures.append(error)
    else:
        reasons = list(dict.fromkeys(f"{type(error).__name__}: {error}" for error in failures))
        raise ValueError(_cannot_copy(model, "; and, attribute by attribute, ".join(reasons))) from failures[0]
    old, new = model.variables, clone.variables
    _copy_variables(old, new)
    forget_torch_parameters(clone)
    for source, target in _pairs(model, clone):
        set_own_flag(target, own_flag(source))
        _copy_preprocessing(source, target)
        copy_raw_variables(source, target)
        if target.name != source.name:  # created without a name by its parent's code, and numbered anew
            target.name = source.name
        copy_parent_path(source, target)
        copy_input_shape(source, target)
        _copy_progress(source, target)
        copies[id(source)] = target, source
    return clone, list(copies.values())


def _pairs(model, clone):
    """Pairs of the layers of a model and of its copy; without inputs, where models within others share these."""
    sources, targets = (list(flatten_layers(each)) for each in (model, clone))
    if [type(layer) for layer in sources] != [type(layer) for layer in targets]:
        sources, targets = (
            [layer for layer in layers if not isinstance(layer, keras.layers.InputLayer)]
            for layers in (sources, targets)
        )
    return zip(sources, targets, strict=True)


def _check_copy(model, clone):
    """Raises a `ValueError` if a copy does not consist of the layers and variables that the model does."""
    shapes = [[tuple(variable.shape) for variable in each.variables] for each in (model, clone)]
    if shapes[0] != shapes[1]:
        raise ValueError(
            f"the rebuilt model has {len(shapes[1])} variables, or other shapes, not the {len(shapes[0])} it had"
        )
    for source, target in _pairs(model, clone):
        if type(target) is not type(source):
            names = type(source).__name__, type(target).__name__
            raise ValueError(f"layer '{source.name}' of class {names[0]} comes back as {names[1]}")
        _check_raw_variables(source, target)


def with_bias(layer: keras.layers.Layer, use_bias: bool) -> keras.layers.Layer:
    """A copy of a built layer, transforms included, that has a bias or has none; a new bias is 0.

    Args:
        layer: a layer with the attributes `use_bias` and `bias`.
        use_bias: whether the copy has a bias.
    """
    clone = _copy_layer(layer, use_bias=use_bias)
    kept = [
        [variable for variable in each.variables if not each.use_bias or variable is not each.bias]
        for each in (layer, clone)
    ]
    _copy_variables(*kept)
    if layer.use_bias and use_bias:
        _copy_variables([layer.bias], [clone.bias])
    for source, target in zip(flatten_layers(layer), flatten_layers(clone), strict=True):
        set_own_flag(target, own_flag(source))
        _copy_progress(source, target)
    return clone


def _copy_variables(old, new):
    for source, target in zip(old, new, strict=True):
        # A real copy: JAX donates the buffers of a model in training.
        target.assign(np.array(keras.ops.convert_to_numpy(source)))
        if own_flag(target) != own_flag(source):
            target.trainable = own_flag(source)
    _copy_paths(old, new)


def _copy_paths(old, new):
    """Gives variables the paths of others: a layer rebuilt by itself does not know the model it was built in.

    PyTorch lists parameters by their paths, and in the order of these.
    """
    for source, target in zip(old, new, strict=True):
        set_path(target, source.path)


def _copy_progress(source, target):
    if isinstance(source, WeightTransform):
        target.step, target.updated_at = source.step, source.updated_at


def _cannot_copy(model, reason):
    return (
        f"'{model.name}' ({type(model).__name__}) cannot be copied, neither from its configuration nor attribute by "
        f"attribute. {reason}\nPass `inplace=True` to prune, cluster and strip the model itself. For copies, give the "
        "class a `get_config` that returns all arguments of its constructor and, if needed, `from_config` and `build`."
    )


def _copy_structure(layer, copies, by_attributes=False):
    if id(layer) not in copies:  # else it is used in several places, at several levels of nesting
        if is_graph_model(layer):
            clone = _copy_graph(layer, copies, by_attributes)
        else:
            clone = _copy_any_layer(layer, copies, by_attributes)
        copies[id(layer)] = clone, layer
    return copies[id(layer)][0]


def _copy_any_layer(layer, copies, by_attributes):
    """The layer from its configuration or, where that does not say what it is, attribute by attribute."""
    if not isinstance(layer, keras.layers.Layer):
        return _copy_layer(layer)
    copied, failures = None, []
    if is_of_keras(layer):
        try:
            return _copy_layer(layer)
        except NotImplementedError as error:
            # `Identity(dtype=policy)` has no configuration, since it takes no arguments of its own; by the name of the
            # policy it has one, and can be saved.
            if not layer.variables and plain_class(layer).__init__ is keras.layers.Identity.__init__:
                return keras.layers.Identity(name=layer.name, dtype=layer.dtype_policy.name)
            by_attributes = True
            failures.append(error)
    if not by_attributes:
        try:
            copied = _copy_layer(layer)
            if rebuilt_alike(layer, copied):
                return copied
        except Exception as error:
            failures.append(error)
    try:
        return duplicate(layer, copies, lambda part: _copy_structure(part, copies, by_attributes))
    except Exception as error:
        failures.append(error)
    if copied is not None:
        return copied
    if not layer.variables:  # it has nothing that copies must not share
        return layer
    raise failures[0]


def _copy_graph(model, copies, by_attributes):
    inputs, named = None, {}  # name -> the operation that has it
    if isinstance(model, Functional):
        inputs = keras.tree.map_structure(lambda tensor: _copy_input(tensor, copies), model.input)
        named = {producer_of(tensor).name: producer_of(tensor) for tensor in keras.tree.flatten(inputs)}

    def copied(child):
        clone = _copy_structure(child, copies, by_attributes)
        # Layers of a traced model may have one name, which Keras's copies of graphs do not allow; they get it back.
        while named.setdefault(clone.name, clone) is not clone:
            clone.name += "_"
        return clone

    compiled, model.compiled = model.compiled, False
    try:
        clone = keras.models.clone_model(model, input_tensors=inputs, clone_function=copied)
    finally:
        model.compiled = compiled
    set_own_flag(clone, own_flag(model))
    return clone


def _copy_input(tensor, copies):
    """A new input, or that of a model around this one which begins with the very same."""
    layer = producer_of(tensor)
    if id(layer) not in copies:
        copies[id(layer)] = producer_of(new_input(tensor)), layer
    return copies[id(layer)][0].output


def new_input(tensor, shape=None):
    """A symbolic input like the one that `tensor` is, or of another shape."""
    shape = tensor.shape if shape is None else shape
    name = producer_of(tensor).name
    optional = getattr(producer_of(tensor), "optional", False)
    return keras.Input(batch_shape=shape, dtype=tensor.dtype, sparse=tensor.sparse, name=name, optional=optional)


def _copy_layer(layer, **changes):
    """The layer from its configuration, with changes to that."""
    if type(layer) is keras.layers.Lambda:  # its function would lose its globals on the way through a config
        with functions_of_callables(layer):
            config = layer.get_config()
        config["function"] = layer.function
        if "arguments" not in config:
            config["arguments"] = layer.arguments
        for key in ("output_shape", "mask"):
            config.pop(key, None)
        return keras.layers.Lambda(**config, output_shape=output_shape_of(layer), mask=layer.mask)
    with updaters_by_reference(), functions_of_callables(layer):
        config = keras.saving.serialize_keras_object(layer)
        config.pop("compile_config", None)
        put_lambdas(config["config"], layer, plain_class(layer) is not type(layer))
        config["config"].update(changes)
        known = _custom_objects(layer)
        return keras.saving.deserialize_keras_object(config, custom_objects=known, safe_mode=False)


def _copy_preprocessing(source, target):
    """What an adapted preprocessing layer knows beyond its variables: constants and vocabularies."""
    if hasattr(source, "finalize_state") and source.built:
        target.finalize_state()
    if hasattr(source, "save_assets") and hasattr(source, "load_assets"):
        with tempfile.TemporaryDirectory() as folder:
            source.save_assets(folder)
            target.load_assets(folder)


def copy_raw_variables(source: keras.layers.Layer, target: keras.layers.Layer) -> None:
    """Gives what a layer keeps in variables of the backend, which Keras knows nothing of, to a copy of the layer.

    Args:
        source: a layer.
        target: the copy, whose own code may have made such variables, with other values.

    Raises:
        ValueError: if the copy has no variable of the same name and shape.
    """
    if source is target:
        return
    _check_raw_variables(source, target)
    copies = raw_variables(target)
    for name, value in raw_variables(source).items():
        if copies[name] is not value:
            assign_raw(copies[name], value)


def _check_raw_variables(source, target):
    copies = raw_variables(target)
    for name, value in raw_variables(source).items():
        if name not in copies or tuple(copies[name].shape) != tuple(value.shape):
            raise ValueError(f"layer '{source.name}' holds '{name}', a variable of the backend that its copy lacks")


def _custom_objects(layer):
    """The classes and functions outside Keras that a layer refers to, by the names configurations use.

    Only of one layer and those below it: two layers may well use different functions of one name.
    """
    known = {}

    def add(value):
        if isinstance(value, types.FunctionType):
            if is_lambda(value):  # has no name of its own
                return
            item = value
        elif hasattr(value, "get_config"):
            item = plain_class(value)
        else:
            return
        if not item.__module__.startswith("keras."):
            for name in (item.__name__, keras.saving.get_registered_name(item)):
                if known.setdefault(name, item) is not item:
                    raise ValueError(f"it uses two different things of one name, '{name}'")

    # A functional model also holds plain operations, such as the `Add` of `x + y`.
    parts = flatten_layers(layer) if isinstance(layer, keras.layers.Layer) else [layer]
    for part in parts:
        add(part)
        for name, value in list(vars(part).items()):
            if not hasattr(type(part), name):  # Keras puts wrapped methods, such as `build`, on the instance
                add(value)
    return known


def strategy_scope(model):
    """The scope of the `tf.distribute` strategy that `model` was created under, or one that does nothing."""
    strategy = distribution_strategy(model)
    return strategy.scope() if strategy is not None else contextlib.nullcontext()


def _deepcopy(plain):
    """What makes PyTorch list the parameters of a deep copy of a model of ours as it lists those of the model.

    Keras copies by saving and loading, where some layers are built by themselves. Plain models stay as Keras has them.
    """

    def deepcopy(self, memo):
        # Without a method of Keras's, as `copy.deepcopy` does without this one.
        result = plain(self, memo) if plain else copy._reconstruct(self, memo, *self.__reduce_ex__(4))
        if any(isinstance(part, WeightTransform | ActivationQuantizer) for part in flatten_layers(self)):
            _copy_paths(self.variables, result.variables)
            forget_torch_parameters(result)
        return result

    return deepcopy


if keras.backend.backend() == "torch":
    extend(
        *(keras.layers.Layer, "__deepcopy__", _deepcopy),
        arguments=("memo",),
        without="`copy.deepcopy` of a model with transforms may list its PyTorch parameters in another order",
        added=True,
    )
