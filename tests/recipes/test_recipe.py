import dataclasses
import re
from typing import ClassVar

import keras
import numpy as np
import pytest

from keras_mot.recipes import (
    PRESETS,
    Cluster,
    FineTune,
    PostTraining,
    Prune,
    PruneChannels,
    QuantizeAware,
    Recipe,
    RemoveChannels,
    Stage,
    StoreWeights,
    Tune,
    find_recipe,
)
from keras_mot.recipes._stage import place_of
from keras_mot.transforms import FakeQuantize, Mask, PaletteTransform

TEXT = """\
name: mine
stages:
  - tune:
      fine_tune: {epochs: 3, learning_rate: 1e-3}
  - prune:
      sparsity: 0.9
      block: [1, 2]
      skip: ["dense_1$"]
      fine_tune:
        epochs: 2
        schedule: cosine
  - cluster:
      fine_tune: null
  - post_training
"""


def test_reading():
    recipe = Recipe.from_yaml(TEXT)
    assert recipe == Recipe(
        [
            Tune(FineTune(3, 1e-3)),
            Prune(0.9, block=(1, 2), skip=("dense_1$",), fine_tune=FineTune(2, schedule="cosine")),
            Cluster(fine_tune=None),
            PostTraining(),
        ],
        "mine",
    )


def test_numbers_of_numpy_are_written_as_numbers():
    fine_tune = FineTune(np.int64(2), np.float64(1e-3))
    stages = [Prune(np.float32(0.5), block=(np.int64(1), 2), overrides={"a": np.float64(0.25)}, fine_tune=fine_tune)]
    assert Recipe.from_yaml(Recipe(stages).to_yaml()) == Recipe(stages)


@pytest.mark.parametrize("name", PRESETS)
def test_presets_are_written_and_read(name, tmp_path):
    recipe = PRESETS[name]
    assert recipe.name == name
    assert Recipe.from_yaml(recipe.to_yaml()) == recipe
    recipe.to_yaml(tmp_path / "recipe.yaml")
    assert find_recipe(tmp_path / "recipe.yaml") == recipe
    assert find_recipe(name) is find_recipe(recipe) is recipe
    assert keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(recipe)) == recipe


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "sparsity: 0.9",
            "sparsty: 0.9",
            r"recipe:6: stage 'prune' has no setting 'sparsty'. Did you mean 'sparsity'\?",
        ),
        ("sparsity: 0.9", "sparsity: 90", r"recipe:6: `sparsity` should be from 0 to 1; received 90"),
        ("sparsity: 0.9", "sparsity: much", r"recipe:6: `sparsity` should be a number; received 'much'"),
        ("sparsity: 0.9", "sparsity: [", r"recipe:\d+: this is no YAML"),
        ("- prune:", "- prun:", r"recipe:5: there is no stage 'prun'. Did you mean 'prune'\?"),
        ("- cluster:", "- prune:", "recipe:12: 'prune' is there twice"),
        ("- cluster:", "- clusters:", "recipe:12: there is no stage 'clusters'. Did you mean 'cluster'"),
        ("block: [1, 2]", "block: 3", "recipe:7: `block` should be two integers; received 3"),
        ('["dense_1$"]', '["("]', r"recipe:8: `skip` holds '\(', which is no regular expression"),
        ('["dense_1$"]', "dense", "recipe:8: `skip` should be a list of regular expressions"),
        ("schedule: cosine", "schedule: cosin", "recipe:11: `schedule` should be one of"),
        ("epochs: 2", "epochs: two", "recipe:10: `epochs` should be an integer; received 'two'"),
        ("epochs: 2", "epoch: 2", "recipe:10: `fine_tune` has no setting 'epoch'. Did you mean 'epochs'"),
        ("block: [1, 2]", "sparsity: 0.8", "recipe:7: 'sparsity' is there twice"),
        ("  - post_training\n", "  - post_training\n  - tune\n", "recipe:15: 'tune' cannot follow 'post_training'"),
        ("stages:", "steps:", "recipe:2: a recipe has no setting 'steps'. Did you mean 'stages'"),
        ("name: mine", "name: my own", "recipe:1: `name` should be made of letters"),
        ("{epochs: 3, learning_rate: 1e-3}", "{optimizer: adm}", "recipe:4: `optimizer`.*Did you mean 'adam'"),
    ],
)
def test_mistakes_name_the_line_and_the_key(old, new, message):
    assert old in TEXT
    with pytest.raises(ValueError, match=message):
        Recipe.from_yaml(TEXT.replace(old, new))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("\n", "the recipe is empty"),
        ("name: a\n", "a recipe should have `stages`"),
        ("stages: prune\n", "`stages` should be a list"),
        ("stages:\n  - post_training:\n      input_type: int4\n", "recipe:3: `input_type` should be one of"),
        ("stages:\n  - post_training:\n      strict: maybe\n", "recipe:3: `strict` should be True or False"),
        ("stages: []\n", "`stages` is empty"),
        ("- prune\n", "a recipe should be settings"),
        ("stages:\n  - prune: 3\n", "recipe:2: stage 'prune' should be settings"),
        ("stages:\n  - [prune]\n", "recipe:2: a stage should be one name"),
    ],
)
def test_no_recipes(text, message):
    with pytest.raises(ValueError, match=message):
        Recipe.from_yaml(text)


@pytest.mark.parametrize(
    ("stages", "error", "message"),
    [
        ([QuantizeAware(), Prune()], ValueError, "'prune' cannot follow 'quantize_aware'"),
        ([Cluster(), Prune()], ValueError, "'prune' cannot follow 'cluster': weights are pruned first"),
        ([QuantizeAware(), PostTraining()], ValueError, "'post_training' cannot follow 'quantize_aware'"),
        ([StoreWeights(), Tune()], ValueError, "'tune' cannot follow 'store_weights', which is the last stage"),
        ([PostTraining(), StoreWeights()], ValueError, "'store_weights' cannot follow 'post_training'"),
        ([RemoveChannels(), Prune()], ValueError, "'prune' cannot follow 'remove_channels': weights are pruned first"),
        ([Prune(), PruneChannels()], ValueError, "'prune_channels' cannot follow 'prune'"),
        ([Prune(), Prune()], ValueError, "stage 2: 'prune' is there twice"),
        ([], ValueError, "has no stages"),
        (["prune"], TypeError, "list of stages"),
        (Prune(), TypeError, "list of stages"),
    ],
)
def test_orders_that_are_not_legal(stages, error, message):
    with pytest.raises(error, match=message):
        Recipe(stages)


@dataclasses.dataclass(frozen=True)
class Thin(Stage):
    """A user's stage, whose place follows from what it attaches."""

    key: ClassVar[str] = "thin"
    kind: ClassVar[str] = Mask.kind

    def apply(self, model, run):
        return model


def test_the_place_of_a_stage_follows_from_its_transforms():
    Recipe([Tune(), Thin(), RemoveChannels(), Cluster(), QuantizeAware()])
    for earlier, message in (
        (Prune(), "'thin' cannot follow 'prune'"),
        (Cluster(), "pruned first, then clustered, and"),
    ):
        with pytest.raises(ValueError, match=message):
            Recipe([earlier, Thin()])
    for first, second in ((Mask, PaletteTransform), (PaletteTransform, FakeQuantize)):
        assert place_of(first.kind) < place_of(second.kind)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: StoreWeights("float8"), ValueError, "`weights` should be 'float16' or 'int8'; received 'float8'"),
        (lambda: Prune(1.0), ValueError, "`sparsity` should be below 1"),
        (lambda: Prune(0.5, initial_sparsity=0.6), ValueError, "`initial_sparsity` should be at most"),
        (lambda: Prune(0.5, block=(1, 2), n_m=(2, 4)), ValueError, "cannot go together"),
        (lambda: Prune(0.5, block=(1, 2), channels=True), ValueError, "cannot go together"),
        (lambda: Prune(0.5, channels="all"), TypeError, "`channels` should be True or False"),
        (lambda: Prune(0.5, refit=1), TypeError, "`refit` should be True or False"),
        (lambda: Prune(0.5, 0.2, refit=True), ValueError, "leave `initial_sparsity` out"),
        (lambda: PruneChannels(1.0), ValueError, "`sparsity` should be below 1"),
        (lambda: PruneChannels(round_to=0), ValueError, "`round_to` should be at least 1"),
        (lambda: RemoveChannels(exact=1), TypeError, "`exact` should be True or False"),
        (lambda: Prune(0.5, n_m=(2, 4), scope="model"), ValueError, "cannot go with `scope`"),
        (lambda: Prune(fine_tune=3), TypeError, "`fine_tune` should be a `FineTune`"),
        (lambda: Cluster(1), ValueError, "at least 2"),
        (lambda: Cluster(per_channel=1), TypeError, "`per_channel` should be true or false"),
        (lambda: PostTraining(weight_bits=9), ValueError, "from 2 to 8"),
        (lambda: QuantizeAware(fine_tune=None), TypeError, "`fine_tune` should be a `FineTune`"),
        (lambda: Tune(None), TypeError, "`fine_tune` should be a `FineTune`"),
        (lambda: FineTune(0), ValueError, "`epochs` should be at least 1"),
        (lambda: FineTune(learning_rate=0), ValueError, "`learning_rate` should be above 0"),
        (lambda: FineTune(distillation=2), ValueError, "`distillation` should be from 0 to 1"),
        (lambda: FineTune(patience=True), TypeError, "`patience` should be an integer"),
    ],
)
def test_settings_are_refused_where_they_are_written(make, error, message):
    with pytest.raises(error, match=message):
        make()


def test_finding():
    with pytest.raises(
        ValueError, match=re.escape("no preset, and no file, 'deep-compresion'. Did you mean 'deep-comp")
    ):
        find_recipe("deep-compresion")
    with pytest.raises(TypeError, match="name of a preset"):
        find_recipe(3)


def test_other_files_are_not_overwritten_by_a_recipe(tmp_path):
    (tmp_path / "mine.keras").write_text("precious")
    with pytest.raises(ValueError, match=r"has the suffix of a Keras model; expected \.yaml or \.yml"):
        PRESETS["size"].to_yaml(tmp_path / "mine.keras")
    assert (tmp_path / "mine.keras").read_text() == "precious"
    for path, message in ((tmp_path, "is a folder"), (tmp_path / "no" / "r.yaml", "does not exist")):
        with pytest.raises(ValueError, match=message):
            PRESETS["size"].to_yaml(path)
    (tmp_path / "name").write_text("old")
    PRESETS["size"].to_yaml(tmp_path / "name")
    assert find_recipe(tmp_path / "name") == PRESETS["size"]
