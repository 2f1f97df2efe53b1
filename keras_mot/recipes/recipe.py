"""Recipes: which stages, in which order, with which settings."""

import dataclasses
import os
import pathlib
import re

import keras

from keras_mot._config import Config
from keras_mot._files import writable_file, write_text
from keras_mot._messages import describe, nearest
from keras_mot.recipes import _yaml
from keras_mot.recipes._stage import Stage, order_in_words
from keras_mot.recipes._yaml_text import read_text
from keras_mot.recipes.fine_tuning import FineTune
from keras_mot.recipes.quantizing_stages import Quantization
from keras_mot.recipes.stages import Cluster, PostTraining, Prune, QuantizeAware, StoreWeights
from keras_mot.targets import LITERT, Target, get


@keras.saving.register_keras_serializable("keras_mot")
@dataclasses.dataclass(frozen=True)
class Recipe(Config):
    """A pipeline: stages in their order.

    Args:
        stages: list of `Factorize`, `PruneChannels`, `Prune`, `RemoveChannels`, `Cluster`, `PostTraining`,
            `StoreWeights`, `QuantizeAware`, `Tune`. `Factorize` and `PruneChannels` come where no mask or codebook is
            attached, pruning before removing channels, that before clustering, and all before one of the ways to store
            numbers; `Tune` anywhere, but not after `PostTraining` or `StoreWeights`.
        name: of the recipe.

    Raises:
        TypeError: if `stages` is no list of stages.
        ValueError: if there is no stage, or they cannot come in this order.

    Example:

    ```python
    recipe = Recipe([Prune(0.9), QuantizeAware(fine_tune=FineTune(2))], name="sparse-int8")
    result = keras_mot.compress(model, recipe, (x_train, y_train), (x_test, y_test))
    ```
    """

    stages: tuple[Stage, ...]
    name: str = "recipe"

    def __post_init__(self):
        if not isinstance(self.stages, list | tuple) or not all(isinstance(stage, Stage) for stage in self.stages):
            raise TypeError(
                f"`stages` should be a list of stages, such as `Prune(0.5)`; received {describe(self.stages)}."
            )
        object.__setattr__(self, "stages", tuple(self.stages))
        if not isinstance(self.name, str) or not re.fullmatch(r"[\w.-]+", self.name):
            raise ValueError(
                f"`name` should be made of letters, digits, '-', '_' and '.'; received {describe(self.name)}."
            )
        if not self.stages:
            raise ValueError(f"Recipe '{self.name}' has no stages.")
        for place, stage in enumerate(self.stages):
            refusal = order_refusal(self.stages[:place], stage)
            if refusal:
                raise ValueError(f"Recipe '{self.name}', stage {place + 1}: {refusal}")

    @classmethod
    def from_yaml(cls, source: str | os.PathLike) -> "Recipe":
        """Reads a recipe.

        Args:
            source: path of a file, or, if it has more than one line, the text itself.

        Returns:
            The `Recipe`.

        Raises:
            FileNotFoundError: if there is no such file.
            ValueError: if the text is no recipe; the message names the line and the key.
        """
        if isinstance(source, str) and "\n" in source:
            name, text = "recipe", source
        else:
            name, text = str(source), read_text(source)
        return _yaml.read(text, name, cls, order_refusal)

    def to_yaml(self, path: str | os.PathLike | None = None) -> str:
        """The recipe as YAML, with all its settings.

        Args:
            path: of a file to write it to, `.yaml`; a file of that name is replaced.

        Returns:
            The text.

        Raises:
            ValueError: if no file can be written there, or the name is one of another format.
            OSError: if the disk is full.
        """
        text = _yaml.write(self)
        if path is not None:
            write_text(writable_file(path, (".yaml", ".yml")), text)
        return text

    @property
    def stage_names(self) -> tuple[str, ...]:
        """A name for each stage: its key, with a number from the second of a kind on, such as `tune_2`."""
        keys = [stage.key for stage in self.stages]
        earlier = [keys[:place].count(key) for place, key in enumerate(keys)]
        return tuple(f"{key}_{count + 1}" if count else key for key, count in zip(keys, earlier, strict=True))

    @property
    def quantizes(self) -> bool:
        """Whether a stage quantizes."""
        return any(isinstance(stage, Quantization) for stage in self.stages)

    def for_target(self, target: Target | str) -> "Recipe":
        """The same recipe, quantizing for another target.

        Args:
            target: a `keras_mot.targets.Target`, or its name.

        Returns:
            The `Recipe`.

        Raises:
            TypeError: if `target` is neither.
            ValueError: if there is no such target, no stage quantizes, or the target lacks what one asks for.
        """
        name = get(target).name
        if not self.quantizes:
            raise ValueError(f"Recipe '{self.name}' has no stage that quantizes activations: `target` has no effect.")
        stages = [
            dataclasses.replace(stage, target=name) if isinstance(stage, Quantization) else stage
            for stage in self.stages
        ]
        return dataclasses.replace(self, stages=tuple(stages))

    @property
    def target(self) -> Target:
        """What the last file is for."""
        asked = [options["target"] for stage in self.stages if "target" in (options := stage.export_options())]
        return get(asked[-1] if asked else LITERT.name)


def order_refusal(before, stage):
    """Why `stage` cannot follow the stages `before`, or `None` if it can."""
    last = next((earlier for earlier in before if earlier.last), None)
    if last is not None:
        return f"'{stage.key}' cannot follow '{last.key}', which is the last stage of a recipe."
    ended = {earlier.after_kind for earlier in before}
    attached = next((earlier for earlier in before if earlier.kind not in (None, *ended)), None)
    if stage.plain and attached is not None:
        return (
            f"'{stage.key}' cannot follow '{attached.key}', whose choices it would undo: put it before, or behind a "
            "stage that ends these."
        )
    for earlier in before:
        if stage.rank and earlier.key == stage.key:
            return f"'{stage.key}' is there twice."
        if stage.rank and earlier.rank >= stage.rank:
            return (
                f"'{stage.key}' cannot follow '{earlier.key}': weights are {order_in_words()}, and each is done once."
            )
    return None


_LONG, _LAST = FineTune(4, 1e-3, schedule="cosine"), FineTune(2, 1e-4, schedule="cosine")
_TAUGHT = FineTune(4, 1e-4, schedule="cosine", patience=2, distillation=0.5)

PRESETS = {
    recipe.name: recipe
    for recipe in (
        Recipe([StoreWeights("float16")], "float16"),
        Recipe([StoreWeights("int8")], "dynamic-range"),
        Recipe([PostTraining()], "int8"),
        Recipe([QuantizeAware(fine_tune=_LAST)], "int8-qat"),
        Recipe([Prune(0.8, fine_tune=_LONG), QuantizeAware(fine_tune=_LAST)], "sparse-int8"),
        Recipe([Cluster(32, fine_tune=_LAST), QuantizeAware(fine_tune=_LAST)], "clustered-int8"),
        Recipe([QuantizeAware(fine_tune=_TAUGHT)], "accuracy"),
        Recipe([Prune(0.5, fine_tune=_LONG), QuantizeAware(fine_tune=_LAST)], "balanced"),
        Recipe(
            [
                Prune(0.8, fine_tune=_LONG),
                Cluster(16, fine_tune=_LAST),
                QuantizeAware(fine_tune=_LAST),
            ],
            "size",
        ),
        Recipe(
            [
                Prune(0.98, scope="model", min_density=0.002, fine_tune=_LONG),
                Cluster(8, entropy_weight=0.01, fine_tune=_LAST),
                QuantizeAware(fine_tune=_LAST),
            ],
            "deep-compression",
        ),
    )
}
"""Recipes by name: what usually works. Read one with `print(PRESETS["size"].to_yaml())`, and change it as needed.

- `float16`: weights of 16 bits, computed with in floats. Half the size, nearly the same outputs.
- `dynamic-range`: large weights of 8 bits beside float activations. Up to a quarter of the size, without any data.
- `int8`: post-training quantization. Up to a quarter of the size, in seconds, without training.
- `int8-qat`: quantization-aware training, where `int8` costs accuracy.
- `accuracy`: the same, for longer, until validation gets no better.
- `sparse-int8`: 80 % zeros, then quantization-aware training.
- `clustered-int8`: 32 shared values, then quantization-aware training.
- `balanced`: 50 % zeros, then quantization-aware training.
- `size`: 80 % zeros, 16 shared values, quantization-aware training.
- `deep-compression`: 98 % zeros, 8 shared values, quantization-aware training, for models with many more weights than
  their task needs (Han et al., 2016, "Deep Compression", arXiv:1510.00149).
"""


def find_recipe(recipe: "Recipe | str | os.PathLike") -> Recipe:
    """A recipe by itself, by the name of a preset, or by the path of a YAML file.

    Args:
        recipe: one of these.

    Returns:
        The `Recipe`.

    Raises:
        TypeError: if it is none of these.
        ValueError: if there is neither such a preset nor such a file, or the file holds no recipe.
    """
    if isinstance(recipe, Recipe):
        return recipe
    if not isinstance(recipe, str | os.PathLike):
        stages = " Make a recipe of stages, `Recipe([...])`." if isinstance(recipe, list | tuple | Stage) else ""
        raise TypeError(
            f"`recipe` should be a `Recipe`, the name of a preset, or a path; received {describe(recipe)}.{stages}"
        )
    if isinstance(recipe, str) and recipe in PRESETS:
        return PRESETS[recipe]
    if not pathlib.Path(recipe).is_file():
        raise ValueError(
            f"There is no preset, and no file, {str(recipe)!r}.{nearest(recipe, PRESETS)} "
            f"Presets: {', '.join(PRESETS)}."
        )
    return Recipe.from_yaml(pathlib.Path(recipe))
