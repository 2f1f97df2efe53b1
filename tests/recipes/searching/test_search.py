import json
import re
import shutil
import warnings

import keras
import numpy as np
import pytest
from keras import layers

from keras_mot.recipes import Budget, Factorize, FineTune, PostTraining, Processes, Recipe, _run_log, search
from keras_mot.recipes._run_log import RunLog, digest
from keras_mot.recipes.result import StageResult
from keras_mot.recipes.searching.executors import Executor, find_executor
from keras_mot.recipes.searching.shared_start import begin_with
from keras_mot.recipes.searching.stored_data import load_data, store_data
from keras_mot.recipes.searching.worker import trial_folder
from tests.quantization.test_coverage import only_tensorflow

SHORT = FineTune(1, 0.01, batch_size=16)


@pytest.fixture(scope="module")
def arrays():
    """Three separable classes of points."""
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 3, 160)
    x = generator.standard_normal((160, 8)).astype("float32")
    x[np.arange(160), labels] += 4.0
    return (x[:100], labels[:100]), (x[100:], labels[100:])


@pytest.fixture(scope="module")
def model(arrays):
    keras.utils.set_random_seed(1)
    network = keras.Sequential(
        [
            keras.Input((8,)),
            layers.Dense(64, activation="relu", name="first"),
            layers.Dense(64, activation="relu", name="second"),
            layers.Dense(3, activation="softmax", name="last"),
        ]
    )
    network.compile(keras.optimizers.Adam(0.02), "sparse_categorical_crossentropy")
    network.fit(*arrays[0], epochs=4, batch_size=16, verbose=0)
    return network


def searched(model, arrays, folder, budget, trials=3, **settings):
    options = {"families": ["dense", "pruned-clustered"], "fine_tune": SHORT, "latency_runs": 0, "progress": False}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*whose weights are clustered")
        return search(model, *arrays, budget=budget, output_dir=folder, trials=trials, **{**options, **settings})


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("searches") / "all"


@pytest.fixture(scope="module")
def result(model, arrays, folder):
    return searched(model, arrays, folder, Budget(zipped=5000))


@only_tensorflow
def test_the_size_is_met(result, folder):
    dense, *others = result.trials
    assert dense.family == "dense"
    assert dense.zipped > 5000
    assert result.best_trial in others
    assert result.met
    assert result.best_trial.zipped == result.stages[-1].zipped_bytes <= 5000
    assert result.best_trial.brotli_bytes == result.stages[-1].brotli_bytes
    assert result.stages[-1].metric == result.best_trial.metric
    assert result.artifact.is_file()
    assert result.what_stood_in_the_way() == ""
    assert json.loads((folder / "search.json").read_text())["best_trial"] == result.best_trial.number


@only_tensorflow
def test_layers_have_settings_of_their_own(result):
    recipe = (result.best_trial.folder / "recipe.yaml").read_text()
    assert re.search(r"(first|second|last)\$", recipe)
    assert result.stages[-1].sparsity > 0.2 or result.stages[-1].values <= 64


@only_tensorflow
def test_the_front(result):
    sizes, drops = [each.zipped for each in result.front], [each.drop for each in result.front]
    assert sizes == sorted(sizes)
    assert drops == sorted(drops, reverse=True)
    for trial in result.trials:
        kept = trial in result.front or trial == result.best_trial
        assert not kept or list(trial.folder.glob("*.tflite"))
    assert "the front" in str(result)
    assert "*" in str(result)
    assert result.to_markdown().count("zipped") >= 2


@only_tensorflow
def test_it_goes_on_where_it_was(result, model, arrays, folder):
    """With as many trials, nothing is done; with another budget, the same trials are judged anew."""
    again = searched(model, arrays, folder, Budget(drop=0.99))
    assert [trial.number for trial in again.trials] == [trial.number for trial in result.trials]
    assert again.best_trial.zipped == min(trial.zipped for trial in again.trials)
    more = searched(model, arrays, folder, Budget(zipped=5000), trials=4, families=["dense", "pruned"])  # other ones
    assert {trial.family for trial in more.trials} >= {"dense", "pruned"}
    impossible = searched(model, arrays, folder, Budget(zipped=100), trials=4)
    assert not impossible.met
    assert "No trial keeps to the budget (at most 100 bytes, zipped)" in impossible.what_stood_in_the_way()
    assert impossible.what_stood_in_the_way() in " ".join(str(impossible).split())


@only_tensorflow
def test_first_without_training_then_the_best_with_it(model, arrays, tmp_path):
    result = searched(model, arrays, tmp_path, Budget(zipped=5000), trials=4)
    assert [trial.epochs for trial in result.trials] == [0, 0, 0, 1]
    longest = result.trials[-1]
    begun = result.trials[longest.after]
    assert (begun.family, begun.epochs, begun.balance) == (longest.family, 0, longest.balance)
    assert "fine_tune" in (longest.folder / "recipe.yaml").read_text()
    assert "post_training" in (begun.folder / "recipe.yaml").read_text()


@only_tensorflow
def test_a_limit_of_time(model, arrays, tmp_path):
    """One trial is always made, and its result is there; a call with more time goes on."""
    result = searched(model, arrays, tmp_path, Budget(zipped=5000), trials=30, time_limit=0.0)
    assert len(result.trials) == 1
    assert result.artifact.is_file()
    assert "No trial keeps to the budget" in result.what_stood_in_the_way()
    again = searched(model, arrays, tmp_path, Budget(zipped=5000), trials=30, time_limit=0.0)
    assert len(again.trials) == 1
    more = searched(model, arrays, tmp_path, Budget(zipped=5000), trials=30, time_limit=4 * result.seconds)
    assert 1 < len(more.trials) < 30
    assert any(trial.epochs for trial in more.trials)  # half of the time is for training


@only_tensorflow
def test_bits_of_each_layer(model, arrays, tmp_path):
    """Files as they are stored become smaller by bits, not by zeros."""
    families = ["dense", "bits", "pruned-clustered"]
    settings = {"families": families, "fine_tune": None}
    dense = searched(model, arrays, tmp_path, Budget(bytes=100), trials=1, **settings)
    limit = dense.best_trial.bytes - 1000  # less than all layers would save: 2,400
    result = searched(model, arrays, tmp_path, Budget(bytes=limit), trials=4, **settings)
    assert {trial.family for trial in result.trials} == {"dense", "bits"}
    assert result.met
    assert result.best_trial.family == "bits"
    stage = Recipe.from_yaml(result.best_trial.folder / "recipe.yaml").stages[-1]
    assert stage.weight_bits == 8
    assert set(stage.overrides.values()) == {4}
    assert 1 <= len(stage.overrides) < 3  # some layers keep 8 bits
    assert result.stages[-1].bytes <= limit


@only_tensorflow
def test_another_model_is_refused(result, model, arrays, folder):
    other = keras.models.clone_model(model)
    other.set_weights([weight + 1 for weight in model.get_weights()])
    with pytest.raises(ValueError, match="differs in its model"):
        searched(other, arrays, folder, Budget(zipped=5000))
    with pytest.raises(ValueError, match="differs in its data"):
        searched(model, (arrays[1], arrays[0]), folder, Budget(zipped=5000))


@only_tensorflow
def test_a_folder_whose_trials_are_gone_is_refused(result, model, arrays, folder):
    moved = trial_folder(folder, 0).rename(folder / "elsewhere")
    try:
        with pytest.raises(ValueError, match=r"recipes are gone.*trial-0000"):
            searched(model, arrays, folder, Budget(zipped=5000))
    finally:
        moved.rename(trial_folder(folder, 0))
    with pytest.raises(TypeError, match="`search` expects a Keras model"):
        searched("model.keras", arrays, folder, Budget(zipped=5000))


class _Killing(Processes):
    """Kills the process of the second trial."""

    def submit(self, folder, number):
        place = super().submit(folder, number)
        if number == 1:
            place.stop()
        return place


@only_tensorflow
def test_a_killed_worker_loses_its_trial_alone(model, arrays, tmp_path):
    result = searched(model, arrays, tmp_path, Budget(zipped=5000), trials=3, executor=_Killing(2), fine_tune=None)
    lost = [trial for trial in result.trials if trial.failure]
    assert [trial.number for trial in lost] == [1]
    assert "was killed by signal 9" in lost[0].failure
    assert len(result.trials) == 3
    assert "(1 without a result)" in " ".join(str(result).split())
    assert result.artifact.is_file()


@only_tensorflow
def test_on_a_ray_cluster(model, arrays, tmp_path):
    pytest.importorskip("ray")
    from keras_mot.recipes import Ray

    result = searched(model, arrays, tmp_path, Budget(zipped=5000), trials=2, executor=Ray(2), fine_tune=None)
    assert [trial.failure for trial in result.trials] == ["", ""]
    assert result.artifact.is_file()


class _Failing(Executor):
    def submit(self, folder, number):
        return self

    def done(self):
        return True

    def wait(self):
        raise OSError("the disk is gone")

    def stop(self):
        """There is nothing to stop."""


@only_tensorflow
def test_nothing_but_failures(model, arrays, tmp_path):
    with pytest.raises(RuntimeError, match=r"The first 3 trials have no result.*the disk is gone"):
        searched(model, arrays, tmp_path, Budget(zipped=5000), trials=9, executor=_Failing())


@pytest.mark.parametrize(
    ("settings", "error", "words"),
    [
        ({"budget": 40_000}, TypeError, "`budget` should be a `Budget`"),
        ({"trials": 0}, ValueError, "`trials` should be at least 1"),
        ({"time_limit": -1.0}, ValueError, "`time_limit` should be at least 0"),
        ({"time_limit": "20m"}, TypeError, "`time_limit` should be a number"),
        ({"families": ["small"]}, ValueError, "There is no family 'small'"),
        ({"families": [["dense"]]}, ValueError, r"There is no family \['dense'\]"),
        ({"families": "dense"}, TypeError, "`families` should be a list"),
        ({"executor": "cloud"}, ValueError, "`executor` should be one of"),
        ({"executor": 2}, TypeError, "`executor` should be an `Executor`"),
        ({"fine_tune": 4}, TypeError, "`fine_tune` should be a `FineTune`"),
        ({"budget": Budget(latency_ms=1.0)}, ValueError, "`latency_runs` is 0"),
        ({"executor": "processes", "metric": lambda y, p: 0.0}, ValueError, "`metric` should be a name"),
    ],
)
@only_tensorflow
def test_mistakes(model, arrays, tmp_path, settings, error, words):
    with pytest.raises(error, match=words):
        searched(model, arrays, tmp_path / "none", **{"budget": Budget(zipped=5000), **settings})
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("storage", [3, "nonsense", "sqlite:////no/such/folder/search.db"])
@only_tensorflow
def test_no_place_for_trials(model, arrays, tmp_path, storage):
    with pytest.raises(ValueError, match="No trials can be kept in"):
        searched(model, arrays, tmp_path, Budget(zipped=5000), storage=storage)


@only_tensorflow
def test_a_damaged_log_of_trials(model, arrays, tmp_path):
    (tmp_path / "study.log").write_text("garbage\n")
    with pytest.raises(ValueError, match=r"No trials can be kept in .*study\.log.*JSONDecodeError"):
        searched(model, arrays, tmp_path, Budget(zipped=5000))


@only_tensorflow
def test_batches_cannot_go_to_other_processes(model, arrays, tmp_path):
    x, y = arrays[0]
    batches = [(x[:50], y[:50]), (x[50:], y[50:])]
    with pytest.raises(ValueError, match=r"`train_data` are batches \(list\)"):
        searched(model, (batches, arrays[1]), tmp_path, Budget(zipped=5000), executor="processes")


@pytest.mark.backend_independent
def test_stored_data(tmp_path):
    x, y = np.arange(6).reshape(3, 2), np.arange(3)
    train = {"a": x, "b": x + 1}, [y, y + 1]
    store_data(tmp_path / "data.npz", train, None)
    (inputs, labels), validation = load_data(tmp_path / "data.npz")
    assert validation is None
    assert sorted(inputs) == ["a", "b"]
    np.testing.assert_array_equal(inputs["b"], x + 1)
    np.testing.assert_array_equal(labels[1], y + 1)
    store_data(tmp_path / "data.npz", (x, y), (x, y))
    _, (inputs, labels) = load_data(tmp_path / "data.npz")
    np.testing.assert_array_equal(labels, y)


@pytest.mark.backend_independent
def test_executors_by_name(tmp_path):
    assert find_executor("local").shares_process
    assert find_executor("processes").workers == 2
    assert trial_folder(tmp_path, 3) == tmp_path / "trial-0003"
    shutil.rmtree(tmp_path)


@only_tensorflow
def test_the_float_model_is_measured_once(result, model, arrays, folder):
    """Files of it are one on the disk; a run that finds them damaged measures it again."""
    first, last = (trial.folder / "report.json" for trial in (result.trials[0], result.trials[-1]))
    floats = [json.loads(path.read_text())["stages"][0] for path in (first, last)]
    assert floats[0]["metric"] == floats[1]["metric"]
    assert floats[0]["keras_metric"] == floats[1]["keras_metric"]
    assert (folder / "float" / "00-float.tflite").is_file()
    assert result.best_trial.number > 0
    kept = result.best_trial.folder / "00-float.tflite"
    assert kept.samefile(folder / "float" / "00-float.tflite")


@only_tensorflow
def test_a_damaged_float_model_is_made_again(model, arrays, tmp_path):
    searched(model, arrays, tmp_path, Budget(zipped=5000), trials=1, fine_tune=None)
    kept = tmp_path / "float" / "00-float.tflite"
    kept.unlink()
    kept.write_bytes(b"nothing")
    more = searched(model, arrays, tmp_path, Budget(zipped=5000), trials=2, fine_tune=None)
    assert not more.trials[-1].failure
    assert (more.trials[-1].folder / "00-float.tflite").stat().st_size > 1000


@only_tensorflow
def test_what_an_earlier_trial_has_trained_is_not_trained_again(model, arrays, tmp_path):
    """The few bits of the best are rounded in another way, behind the same factors."""
    settings = {"budget": Budget(zipped=20_000), "families": ["low-rank-bits"]}
    searched(model, arrays, tmp_path, trials=1, **settings)
    result = searched(model, arrays, tmp_path, trials=2, **settings)
    trained, rounded = result.trials
    assert (trained.epochs, trained.learned, rounded.epochs, rounded.learned) == (1, False, 1, True)
    logs = [json.loads((trial.folder / "run.json").read_text()) for trial in result.trials]
    assert logs[0]["names"] == logs[1]["names"] == ["float", "factorize", "post_training"]
    assert "adaround" in (rounded.folder / "recipe.yaml").read_text()
    assert logs[0]["stages"][1] == logs[1]["stages"][1]  # to the second


@only_tensorflow
def test_a_best_file_of_which_nothing_is_left_is_warned_of(model, arrays, tmp_path):
    budget = {"budget": Budget(zipped=100), "families": ["pruned-clustered"], "fine_tune": None, "trials": 1}
    with pytest.warns(UserWarning, match="takes more than this model can give"):
        result = searched(model, arrays, tmp_path, **budget)
    assert result.stages[-1].collapsed


@only_tensorflow
def test_what_an_earlier_trial_has_lost_is_made_again(model, arrays, tmp_path):
    settings = {"budget": Budget(zipped=20_000), "families": ["low-rank-bits"], "fine_tune": None}
    first = searched(model, arrays, tmp_path, trials=1, **settings).trials[0]
    for path in first.folder.glob("01-*"):
        path.unlink()
    second = searched(model, arrays, tmp_path, trials=2, **settings).trials[1]
    assert second.learned
    assert not second.failure


@only_tensorflow
def test_another_seed_or_loss_is_refused(model, arrays, tmp_path):
    settings = {"budget": Budget(zipped=5000), "families": ["dense"], "fine_tune": None, "trials": 1}
    searched(model, arrays, tmp_path, **settings)
    with pytest.raises(ValueError, match="differs in its seed"):
        searched(model, arrays, tmp_path, seed=1, **settings)
    with pytest.raises(ValueError, match="differs in its loss"):
        searched(model, arrays, tmp_path, loss="SparseCategoricalCrossentropy", **settings)


@pytest.mark.backend_independent
def test_the_last_stage_is_not_taken_over(tmp_path):
    """It is timed anew; nor is anything written through a link to another trial's file."""
    stages = [Factorize(0.5, fine_tune=None), PostTraining()]
    recipe = Recipe(stages, "a")
    kept, one, other, new = (tmp_path / name for name in ("float", "one", "other", "new"))
    for number, folder in enumerate((kept, one, other, new)):
        folder.mkdir()
        if folder is new:
            break
        names = ("float", "factorize", "post_training")[: 1 if folder is kept else 3]
        done = [stage_result(folder, place, name, f"{number}") for place, name in enumerate(names)]
        digests = {path.name: digest(path) for stage in done for path in (stage.model_path, stage.artifact)}
        RunLog({"recipe": "b"}, names, tuple(done), digests).write(folder)
        recipe.to_yaml(folder / "recipe.yaml")
    (one / "01-factorize.keras").unlink()
    begin_with(kept, new, recipe, [one, other])
    log = _run_log.read(new)
    assert [stage.name for stage in log.stages] == ["float", "factorize"]
    assert log.names == ("float", *recipe.stage_names)
    assert log.identity["recipe"] == recipe.to_yaml()
    assert (new / "01-factorize.keras").samefile(other / "01-factorize.keras")
    begin_with(kept, new, Recipe([Factorize(0.3, fine_tune=None), PostTraining()], "c"), [one, other])
    assert (new / "00-float.keras").read_text() == "0"
    assert (other / "00-float.keras").read_text() == "2"


def stage_result(folder, place, name, text):
    """Of a stage whose files hold a text."""
    model, file = (folder / each for each in _run_log.files_of(place, name))
    model.write_text(text)
    file.write_text(text)
    return StageResult(name, 0.9, 0.9, 60, 1, 1, 0.0, 9, {}, 0.1, 1.0, file, model)
