"""Copying a model of any kind, transforms included, so that the copy shares no variables with it."""

import contextlib
import copy
import tempfile
import types

import keras
import numpy as np

from keras_mot._keras import (
    Functional,
    copy_input_shape,
    copy_parent_path,
    distribution_strategy,
    extend,
    flatten_layers,
    forget_calls,
    forget_torch_parameters,
    is_graph_model,
    output_shape_of,
    own_flag,
    producer_of,
    set_own_flag,
    set_path,
)
from keras_mot.layers.activation_quantizer import ActivationQuantizer
from keras_mot.layers.finding import check_layer
from keras_mot.layers.transformed import plain_class
from keras_mot.transforms import WeightTransform
from keras_mot.transforms.base import updaters_by_reference

_SHARED = "_keras_mot_shared"


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


def copy_and_note(model: keras.layers.Layer, shared: list | None = None) -> tuple[keras.layers.Layer, list[tuple]]:
    """What `copy_model` returns, and pairs of (copy, original) of all layers and operations in it.

    Args:
        model: as of `copy_model`.
        shared: list that layers which cannot be rebuilt are appended to: (layer, reason). Of these the copy has others
            with the same variables. `None`: they are an error, unless they have no variables.
    """
    check_layer(model, "copy_model")
    copies = _Copies(shared)
    try:
        with strategy_scope(model):
            clone = _copy_structure(model, copies)
    except Exception as error:
        raise ValueError(_cannot_copy(model, f"{type(error).__name__}: {error}")) from error
    old, new = model.variables, clone.variables
    shapes = [tuple(variable.shape) for variable in old], [tuple(variable.shape) for variable in new]
    if shapes[0] != shapes[1]:
        raise ValueError(
            _cannot_copy(
                model,
                f"the rebuilt model has {len(new)} variables, or other shapes, not the {len(old)} it had",
            )
        )
    _copy_variables(old, new)
    forget_torch_parameters(clone)
    for source, target in zip(flatten_layers(model), flatten_layers(clone), strict=True):
        if type(target) is not type(source):
            names = type(source).__name__, type(target).__name__
            raise ValueError(_cannot_copy(model, f"layer '{source.name}' of class {names[0]} comes back as {names[1]}"))
        set_own_flag(target, own_flag(source))
        if vars(source).get("_tracker") is vars(target).get("_tracker"):
            continue  # it is shared
        _copy_preprocessing(source, target)
        _copy_raw_variables(source, target)
        if target.name != source.name:  # created without a name by its parent's code, and numbered anew
            target.name = source.name
        copy_parent_path(source, target)
        copy_input_shape(source, target)
        _copy_progress(source, target)
        copies[id(source)] = target, source
    return clone, list(copies.values())


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
        if source is target:
            continue
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
        f"'{model.name}' ({type(model).__name__}) cannot be rebuilt from its configuration ({reason}). Give it "
        "`get_config` and, if needed, `from_config` and `build`, or pass `inplace=True`, where there is such."
    )


class _Copies(dict):
    """Dictionary from the id of a layer or operation to (copy, original); `shared` as of `copy_and_note`."""

    def __init__(self, shared):
        super().__init__()
        self.shared = shared


def _copy_structure(layer, copies):
    if id(layer) not in copies:  # else it is used in several places, at several levels of nesting
        copies[id(layer)] = _copy_graph(layer, copies) if is_graph_model(layer) else _rebuilt(layer, copies), layer
    return copies[id(layer)][0]


def _rebuilt(layer, copies):
    """The layer from its configuration; where that fails, another one with the same variables, if it may be."""
    try:
        clone = _copy_layer(layer)
        problem = _difference(layer, clone)
    except Exception as error:
        problem, cause = f"{type(error).__name__}: {error}", error
    else:
        cause = None
    if problem is None:
        return clone
    shared_already = getattr(layer, _SHARED, False)  # in the model that this one was copied from
    if not isinstance(layer, keras.layers.Layer) or (copies.shared is None and layer.variables and not shared_already):
        if cause is not None:
            raise cause
        return clone  # what is wrong with it is said when the whole model is compared
    if layer.variables and not shared_already:
        copies.shared.append((layer, problem))
    return _with_the_same_variables(layer)


def _difference(layer, clone):
    """How a copy differs from a layer, in words; `None` if it does not."""
    if type(clone) is not type(layer):
        return f"it comes back as a {type(clone).__name__}"
    if not isinstance(layer, keras.layers.Layer):
        return None
    old, new = ([tuple(variable.shape) for variable in each.variables] for each in (layer, clone))
    return (
        None if old == new else f"it comes back with {len(new)} variables, or other shapes, not the {len(old)} it had"
    )


def _with_the_same_variables(layer):
    """Another object of the same class, with the same attributes and variables, that nothing has called yet."""
    clone = object.__new__(type(layer))
    clone.__dict__.update(layer.__dict__)
    clone.__dict__[_SHARED] = True
    forget_calls(clone)
    return clone


def _copy_graph(model, copies):
    inputs, named = None, {}  # name -> the operation that has it
    if isinstance(model, Functional):
        inputs = keras.tree.map_structure(new_input, model.input)
        named = {producer_of(tensor).name: producer_of(tensor) for tensor in keras.tree.flatten(inputs)}

    def copied(child):
        clone = _copy_structure(child, copies)
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


def new_input(tensor):
    """A symbolic input like the one that `tensor` is."""
    name = producer_of(tensor).name
    optional = getattr(producer_of(tensor), "optional", False)
    return keras.Input(batch_shape=tensor.shape, dtype=tensor.dtype, sparse=tensor.sparse, name=name, optional=optional)


def _copy_layer(layer, **changes):
    """The layer from its configuration, with changes to that."""
    if type(layer) is keras.layers.Lambda:  # its function would lose its globals on the way through a config
        config = {**layer.get_config(), "function": layer.function}
        if "arguments" not in config:
            config["arguments"] = layer.arguments
        for key in ("output_shape", "mask"):
            config.pop(key, None)
        return keras.layers.Lambda(**config, output_shape=output_shape_of(layer), mask=layer.mask)
    with updaters_by_reference():
        config = keras.saving.serialize_keras_object(layer)
        config.pop("compile_config", None)
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


def _copy_raw_variables(source, target):
    """The values of variables of the backend, which Keras does not know of."""
    for name, value in vars(source).items():
        if _is_raw_variable(value) and _is_raw_variable(vars(target).get(name)):
            vars(target)[name].assign(value)


def _is_raw_variable(value):
    return hasattr(value, "assign") and keras.ops.is_tensor(value)


def _custom_objects(layer):
    """The classes and functions outside Keras that a layer refers to, by the names configurations use.

    Only of one layer and those below it: two layers may well use different functions of one name.
    """
    known = {}

    def add(value):
        if isinstance(value, types.FunctionType):
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
