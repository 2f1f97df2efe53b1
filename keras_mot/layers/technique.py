"""Applying a technique to a layer, a list of layers or a model: which weights, with what settings, and what is refused.

Pruning and clustering differ in the transforms that they attach, and in nothing of this.
"""

import contextlib
import dataclasses
from collections.abc import Callable

import keras
import numpy as np

from keras_mot._arrays import numpy_value
from keras_mot._keras import (
    Sequential,
    flatten_layers,
    forget_compilation,
    forget_torch_parameters,
    has_default_build,
    set_input_shape,
)
from keras_mot._messages import describe
from keras_mot._warnings import warn
from keras_mot.layers._weights import is_only_depthwise
from keras_mot.layers.attaching import (
    ANY,
    ANY_BUT_DEPTHWISE,
    attach,
    initialize,
    is_composite,
    prepare,
    put_on,
    weights_by_updater,
)
from keras_mot.layers.copying import copy_model, strategy_scope
from keras_mot.layers.finding import check_layer, find_weights, left_alone_unknown, require_built
from keras_mot.layers.own_weights import speaks_for_itself
from keras_mot.layers.selecting import (
    check_each_matches,
    check_selectors_match,
    checked_overrides,
    matches,
    matches_layer,
)
from keras_mot.layers.stripping import strip
from keras_mot.layers.transformed import transformed_weights
from keras_mot.transforms.base import order_error

DEPTHWISE = "depthwise: few weights, and each is needed; only `include_depthwise` or `overrides` select it"


@dataclasses.dataclass(frozen=True)
class Technique:
    """What distinguishes one technique from another.

    Args:
        function: name of its public function, for messages.
        verb: what it does, "prune", for messages.
        done: what a weight is then, "pruned", for messages.
        config_class: class of its settings; they are the updaters of its transforms.
        transform_class: class, or classes, of its transform; a weight that has one already is left as it is.
        transforms: function from (settings, `FoundWeight` or `None` for an unbuilt layer, the transforms that
            the weight has) to the list of transforms to append.
        allows: function from a layer to whether it may be transformed.
        check_model: function that refuses a whole model with an error.
        wholly: function from settings to whether they judge all their weights together.
        takes_depthwise: function from settings to whether they need depthwise kernels like all others.
        suits: function from (settings, `FoundWeight`) to whether there is something to choose in the weight. Weights
            without are left alone, but for those of a layer that is asked for, and where there are no others.
    """

    function: str
    verb: str
    done: str
    config_class: type
    transform_class: type | tuple[type, ...]
    transforms: Callable
    allows: Callable = lambda layer: True
    check_model: Callable = lambda model: None
    wholly: Callable = lambda config: False
    takes_depthwise: Callable = lambda config: False
    suits: Callable = lambda config, weight: True

    def apply(self, target, config, overrides=None, inplace=False, input_shape=None, include_depthwise=None):
        """Applies the technique to a model, a layer or a list of layers.

        Args:
            target: a built model, a layer, or a list of layers.
            config: the settings of all weights without others.
            overrides: dictionary from selectors to settings, or to `None` to leave layers alone.
            inplace: whether to change `target` itself.
            input_shape: shape of a sample without the batch, for an unbuilt layer.
            include_depthwise: whether depthwise kernels are taken like all others; `None`: if `takes_depthwise` says
                so, or they belong to the very layer that is given or that a selector of `overrides` points at.

        Returns:
            A copy of `target`, or `target`, with the transforms attached.
        """
        overrides = self._check_overrides(overrides)
        if include_depthwise is not None and not isinstance(include_depthwise, bool):
            raise TypeError(
                f"`include_depthwise` should be True, False or None; received {describe(include_depthwise)}."
            )
        technique = self if include_depthwise is None else self._with_depthwise(include_depthwise)
        if not isinstance(target, list | tuple):
            given = target if include_depthwise is None else None
            try:
                return technique._apply(target, config, overrides, inplace, input_shape, given)
            except NothingToDoError:
                # One layer of many, as in `clone_model(model, clone_function=prune_low_magnitude)`.
                if isinstance(target, keras.Model) or not _has_no_weights(target):
                    raise
                return target if inplace else copy_model(target)
        if not target:
            raise ValueError(f"`{self.function}` received an empty list: there is no layer to {self.verb}.")
        return technique._apply_to_list(target, config, overrides, inplace)

    def _with_depthwise(self, included):
        return dataclasses.replace(self, takes_depthwise=lambda config: included)

    def _check_overrides(self, overrides):
        overrides = checked_overrides(overrides)
        for selector, config in overrides.items():
            if config is not None and not isinstance(config, self.config_class):
                raise TypeError(
                    f"`overrides[{selector!r}]` should be a `{self.config_class.__name__}`, or `None` to leave the "
                    f"layer alone; received {describe(config)}."
                )
        return overrides

    def _apply_to_list(self, items, config, overrides, inplace):
        """Transforms what can be; layers without weights, such as `Flatten`, are only copied."""
        for item in items:
            check_layer(item, self.function)
        check_selectors_match(overrides, [weight for item in items if item.built for weight in find_weights(item)[0]])
        results, count = {}, 0
        for item in items:
            if id(item) in results:  # a layer that is there twice stays one layer
                continue
            try:
                results[id(item)] = self._apply(item, config, overrides, inplace, None, None, check_selectors=False)
                count += 1
            except NothingToDoError:
                results[id(item)] = item if inplace else copy_model(item)
        if not count:
            names = [item.name for item in items]
            raise ValueError(f"There is nothing to {self.verb} in the layers {names}.")
        return [results[id(item)] for item in items]

    def _apply(self, layer, config, overrides, inplace, input_shape, given, check_selectors=True):
        check_layer(layer, self.function)
        if not layer.built and not isinstance(layer, keras.Model):
            return self._apply_when_built(layer, config, overrides, inplace, input_shape, given)
        if not layer.built and isinstance(layer, Sequential):
            return self._apply_to_unbuilt(layer, config, overrides, inplace, input_shape, given)
        if input_shape is not None:
            raise ValueError(f"`input_shape` is for layers that are not built; '{layer.name}' is.")
        require_built(layer, self.function)
        if isinstance(layer, keras.Model):
            self.check_model(layer)
        found, left_alone = find_weights(layer)
        if check_selectors:
            check_selectors_match(overrides, found)
        current = {id(weight.variable): weight for weight in transformed_weights(layer)}
        plan = [self._config_for(weight, config, overrides, current, given) for weight in found]
        suited = [
            config if asked or config is None or self.suits(config, weight) else None
            for weight, (config, asked) in zip(found, plan, strict=True)
        ]
        plan = suited if any(suited) else [config for config, _ in plan]
        stacks = self._check_plan(layer, found, plan, current)
        for item in left_alone_unknown(left_alone):
            warn(f"Not {self.done}: layer '{item.path}'. {item.reason}.")
        self._warn_of_frozen([weight for weight, stack in zip(found, stacks, strict=True) if stack])
        target = layer if inplace else copy_model(layer)
        with strategy_scope(layer):
            planned = zip(find_weights(target)[0], stacks, strict=True)
            prepared = [(found.host, prepare(found, tuple(stack))) for found, stack in planned if stack]
            initialize([weight for _, weight in prepared])
            # Whatever may fail has been done: a model changed in place is changed wholly, or not at all.
            for host, weight in prepared:
                put_on(host, weight)
        forget_torch_parameters(target)
        if inplace:
            forget_compilation(target)
        return target

    def _config_for(self, weight, config, overrides, current, given):
        """The settings of a weight, or `None`; and whether its layer is asked for."""
        attached = current.get(id(weight.variable))
        if attached is not None and attached.transform_of(self.transform_class):
            return None, False  # it goes on as it was
        if not self.allows(weight.owner):
            return None, False
        if weight.techniques is not None and self.verb not in weight.techniques:
            return None, False
        asked = weight.owner is given
        for selector, override in overrides.items():
            if matches(selector, weight):
                config, asked = override, matches_layer(selector, weight.owner)
                break
        if config is None or (weight.depthwise and not asked and not self.takes_depthwise(config)):
            return None, False
        return config, asked

    def _warn_of_frozen(self, weights):
        frozen = [weight.path for weight in weights if not weight.variable.trainable]
        if frozen:
            warn(
                f"{len(frozen)} of {len(weights)} weights to be {self.done} are frozen, such as '{frozen[0]}': they "
                f"are {self.done}, too, but do not train to make up for it. `overrides` can leave layers alone."
            )

    def _check_plan(self, layer, found, plan, current):
        """Refuses what cannot be done, before anything changes; returns the transforms for each weight."""
        chosen = [(weight, config) for weight, config in zip(found, plan, strict=True) if config is not None]
        if not chosen:
            raise NothingToDoError(
                f"There is nothing to {self.verb} in '{layer.name}': it has {len(found)} weights that can be, and none "
                f"is selected and not {self.done} yet. Layers of your own join by "
                "`keras_mot.layers.register_weights`; depthwise kernels by `include_depthwise=True`."
            )
        problems, groups, stacks = [], {}, {}
        for weight, config in chosen:
            path = weight.path
            groups.setdefault(config, []).append((path, tuple(weight.variable.shape), weight.axes))
            stack = getattr(current.get(id(weight.variable)), "transforms", ())
            stacks[id(weight)] = self.transforms(config, weight, stack)
            refusal = order_error((*stack, *stacks[id(weight)]))
            if refusal:
                problems.append(f"Weight '{path}' cannot be {self.done}: {refusal}")
            if not np.isfinite(numpy_value(weight.variable)).all():
                problems.append(f"Weight '{path}' contains NaN or infinite values: such a model cannot be {self.done}.")
        for config, weights in groups.items():
            # Where each weight is judged by itself, all that do not fit are named at once.
            for part in [weights] if self.wholly(config) else [[weight] for weight in weights]:
                try:
                    config.check(part)
                except ValueError as error:
                    problems.append(str(error))
        if problems:
            raise ValueError("\n".join(problems))
        return [stacks.get(id(weight), []) for weight in found]

    def _apply_to_unbuilt(self, model, config, overrides, inplace, input_shape, given):
        """A sequential model without an `Input`: its layers are transformed when its first call builds them."""
        if input_shape is not None:
            raise ValueError(
                f"`input_shape` is for layers; write `model.build((None, {', '.join(map(str, input_shape))}))`."
            )
        check_each_matches(overrides, matches_layer, model.layers, [layer.name for layer in model.layers])
        target, count = model if inplace else copy_model(model), 0
        for layer, source in zip(target.layers, model.layers, strict=True):
            chosen = next((each for selector, each in overrides.items() if matches_layer(selector, source)), config)
            if chosen is None:
                continue
            asked = layer if chosen is not config else None
            with contextlib.suppress(NothingToDoError):
                self._apply(layer, chosen, {}, True, None, asked, check_selectors=False)
                count += 1
        if not count:
            raise NothingToDoError(f"There is nothing to {self.verb} in '{model.name}', which is not built yet.")
        return target

    def _apply_when_built(self, layer, config, overrides, inplace, input_shape, given):
        if has_default_build(layer) and not is_composite(layer):
            raise NothingToDoError(
                f"Layer '{layer.name}' ({type(layer).__name__}) is not built, and has no `build` method of its own: it "
                f"has no weights to {self.verb}, or creates them when it is called; then call it once on data first."
            )
        if overrides:
            raise ValueError(
                f"`overrides` need layers whose weights exist; '{layer.name}' is not built. Give it settings of "
                "its own."
            )
        if any(getattr(part, "lora_rank", None) for part in flatten_layers(layer)):
            raise ValueError(
                f"'{layer.name}' will have LoRA (`lora_rank`), and cannot be {self.done}: what LoRA adds to a weight "
                "has no zeros and no shared values. Make the layer without it."
            )
        if not self.allows(layer):
            raise NothingToDoError(f"The policy does not allow layer '{layer.name}' to be {self.done}.")
        depthwise = self.takes_depthwise(config) or (layer is given and speaks_for_itself(layer))
        if not depthwise and is_only_depthwise(layer):
            raise NothingToDoError(f"Layer '{layer.name}' is not {self.done}: {DEPTHWISE}.")
        target = layer if inplace else copy_model(layer)
        if input_shape is not None:
            set_input_shape(target, input_shape)
        return attach(target, {ANY if depthwise else ANY_BUT_DEPTHWISE: self.transforms(config, None, ())})


def strip_model(model, inplace):
    """Strips a copy of the model, or the model itself, after each updater has had its say (`before_strip`)."""
    for updater, weights in weights_by_updater(transformed_weights(model)).items():
        if hasattr(updater, "before_strip"):
            updater.before_strip(weights)
    return strip(model, inplace)


def _has_no_weights(layer):
    """Whether a layer has no weight that any technique could take, now or once it is built."""
    if layer.built:
        found, left_alone = find_weights(layer)
        return not found and not left_alone_unknown(left_alone)
    return has_default_build(layer)


class NothingToDoError(ValueError):
    """A layer has no weight for the technique; in a list of layers, that is no mistake."""


def transform_name(weight, kind):
    """The name of a transform: the weight's key and what it is, `kernel_mask`."""
    return kind if weight is None else f"{weight.key.replace('/', '_')}_{kind}"
