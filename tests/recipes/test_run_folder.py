"""The folder of a run, with stages that cost nothing: what is kept, what is done again, what is refused."""

import json
import os
import pathlib

import keras
import pytest

from keras_mot._lock import locked
from keras_mot.recipes import _run_log
from keras_mot.recipes._resumable import check_resumable
from keras_mot.recipes.result import CompressionResult, StageResult
from keras_mot.recipes.run_folder import run_folder

NAMES = ("float", "prune", "cluster")
IDENTITY = {"recipe": "r", "model": "m"}
FILES = [f"{number:02d}-{name}.{kind}" for number, name in enumerate(NAMES) for kind in ("keras", "tflite")]


@pytest.fixture(scope="module")
def model():
    return keras.Sequential([keras.Input((2,)), keras.layers.Dense(2, name="only")], name="given")


@pytest.fixture
def run(model, tmp_path):
    """Runs stages in the folder; `contents` are what their files come out as. Returns the names of those done."""

    def run(resume=True, names=NAMES, identity=IDENTITY, stop=None, contents=None, path=tmp_path):
        done = []
        with run_folder(path, identity, names, resume) as folder:
            while len(folder.stages) < min(len(names), stop or len(names)):
                name = names[len(folder.stages)]
                content = (contents or {}).get(name, f"content of {name}")
                checkpoint, file, _ = folder.add(name, model, lambda path: path.write_text(content))  # noqa: B023
                folder.finish(_result(name, checkpoint, file))
                done.append(name)
            if len(folder.stages) == len(names):
                folder.report(CompressionResult(model, folder.stages, "r", "accuracy", folder.path))
        return done

    return run


def _result(name, checkpoint, file):
    return StageResult(name, 0.5, 0.5, 10, 4, 4, 0.0, 3, {"kernel": 3}, None, 1.0, file, checkpoint)


def _log(folder):
    return json.loads((folder / "run.json").read_text())


def _write_log(folder, values):
    (folder / "run.json").write_text(json.dumps(values))


def test_a_run_that_goes_on(run, tmp_path):
    assert run(stop=2) == ["float", "prune"]
    assert sorted(os.listdir(tmp_path)) == [*FILES[:4], "run.json"]
    assert run() == ["cluster"]
    assert run() == []
    assert sorted(os.listdir(tmp_path)) == [*FILES, "report.json", "report.md", "run.json"]
    assert sorted(_log(tmp_path)["sha256"]) == FILES


def _damage(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("damage", [_damage, pathlib.Path.unlink, lambda path: path.write_bytes(b"")])
@pytest.mark.parametrize("file", FILES)
def test_only_what_is_damaged_is_done_again(damage, file, run, tmp_path):
    run()
    damage(tmp_path / file)
    with pytest.warns(UserWarning, match=f"'{file}' is (not as it was written|missing) in .*: the stage is done again"):
        assert run() == [file[3:].split(".")[0]]
    assert run() == []


def test_what_follows_from_another_file_is_done_again(run, tmp_path):
    run()
    (tmp_path / "01-prune.keras").unlink()
    with pytest.warns(UserWarning, match="is missing"):
        assert run(contents={"prune": "another"}) == ["prune", "cluster"]
    assert run() == []


def test_two_damaged_stages(run, tmp_path):
    run()
    _damage(tmp_path / "00-float.tflite")
    _damage(tmp_path / "02-cluster.keras")
    with pytest.warns(UserWarning, match="is not as it was written"):
        assert run() == ["float", "cluster"]


def test_one_run_at_a_time(run, tmp_path):
    run(stop=1)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with locked(tmp_path):
        for resume in (True, False):
            with pytest.raises(ValueError, match=f"in use by another run: process {os.getpid()} on "):
                run(resume=resume)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_beginning_anew_leaves_no_old_stages_and_takes_nothing_else(run, tmp_path):
    run()
    own = ["07-mine.keras", "01-prune.txt", "model.keras", "notes.md"]
    for name in own:
        (tmp_path / name).write_text("own")
    assert run(resume=False, names=("float", "tune")) == ["float", "tune"]
    new = ["00-float.keras", "00-float.tflite", "01-tune.keras", "01-tune.tflite"]
    assert sorted(os.listdir(tmp_path)) == sorted([*own, *new, "report.json", "report.md", "run.json"])
    assert all((tmp_path / name).read_text() == "own" for name in own)


def test_what_a_killed_run_left_is_removed(run, tmp_path):
    run(stop=1)
    (tmp_path / "02-cluster.keras").write_text("not in the log yet")
    (tmp_path / ".keras_mot-run-0123abcd.keras").write_text("half")
    (tmp_path / ".keras_mot-0123abcd.tflite").write_text("of a process that is at work")
    run(resume=False, names=NAMES[:2])
    assert sorted(os.listdir(tmp_path)) == [
        ".keras_mot-0123abcd.tflite",
        *FILES[:4],
        "report.json",
        "report.md",
        "run.json",
    ]


LOGS = {
    "half": lambda log: json.dumps(log)[:-20],
    "empty": lambda log: "",
    "binary": lambda log: "\x00\x7f" * 50,
    "of another tool": lambda log: json.dumps({"runs": [1, 2]}),
    "a list": lambda log: "[]",
    "deep": lambda log: "[" * 100_000,
    "without digests": lambda log: json.dumps({key: value for key, value in log.items() if key != "sha256"}),
    "types": lambda log: json.dumps({**log, "stages": {"float": 1}}),
    "stages of numbers": lambda log: json.dumps({**log, "stages": [1, 2]}),
    "a digest is missing": lambda log: json.dumps({**log, "sha256": {}}),
    "more stages than names": lambda log: json.dumps({**log, "names": ["float"]}),
    "numbers": lambda log: json.dumps({**log, "stages": [{**log["stages"][0], "bytes": "many"}]}),
    "a huge number": lambda log: json.dumps({**log, "stages": [{**log["stages"][0], "metric": 10**400}]}),
    "fields": lambda log: json.dumps({**log, "stages": [{**log["stages"][0], "more": 1}]}),
}


@pytest.mark.parametrize("kind", LOGS)
def test_logs_that_cannot_be_gone_by(kind, run, tmp_path):
    run()
    text = LOGS[kind](_log(tmp_path))
    (tmp_path / "run.json").write_text(text)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(ValueError, match=r"run\.json' is damaged, or of no run: .* `resume=False` \(on the "):
        run()
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    assert run(resume=False, names=NAMES[:2]) == ["float", "prune"]
    assert sorted(os.listdir(tmp_path)) == [*FILES[:4], "report.json", "report.md", "run.json", "run.json.old"]
    assert (tmp_path / "run.json.old").read_text() == text


def test_a_huge_log_is_not_read(run, tmp_path):
    run()
    with (tmp_path / "run.json").open("ab") as file:
        file.truncate(2**33)  # takes no room on the disk
    with pytest.raises(ValueError, match="more than any run writes"):
        run()


@pytest.mark.parametrize("name", ["../../outside.keras", "/outside.keras", "other.keras", "00-float.tflite"])
@pytest.mark.parametrize("key", ["model_path", "artifact"])
def test_names_in_a_log_lead_nowhere_else(key, name, run, tmp_path):
    folder = tmp_path / "a" / "b"
    run(path=folder)
    log = _log(folder)
    if name == log["stages"][0][key]:
        name = "01-float.tflite"
    log["stages"][0][key] = name
    _write_log(folder, log)
    (tmp_path / "outside.keras").write_text("own")
    with pytest.raises(ValueError, match=f"'{key}' of stage 0 is '.*', not '00-float"):
        run(path=folder)
    run(path=folder, resume=False)
    assert (tmp_path / "outside.keras").read_text() == "own"


def test_names_of_stages_lead_nowhere_else(run, tmp_path):
    folder = tmp_path / "a" / "b"
    run(path=folder)
    log = _log(folder)
    log["names"][0] = log["stages"][0]["name"] = "/../../../outside"
    for key, name in zip(("model_path", "artifact"), _run_log.files_of(0, log["names"][0]), strict=True):
        log["stages"][0][key] = name
        log["sha256"][pathlib.Path(name).name] = "0"
    _write_log(folder, log)
    (tmp_path / "outside.keras").write_text("own")
    with pytest.raises(ValueError, match="a run of other stages"):
        run(path=folder)
    run(path=folder, resume=False)
    assert (tmp_path / "outside.keras").read_text() == "own"


def test_the_folders_own_files(run, tmp_path):
    (tmp_path / "report.json").write_text("own")
    for resume in (True, False):
        with pytest.raises(ValueError, match=r"holds no run, but 'report\.json', which a run would replace"):
            run(resume=resume)
    (tmp_path / "report.json").unlink()
    (tmp_path / "01-prune.keras").mkdir()
    with pytest.raises(ValueError, match=r"01-prune\.keras' is no file; a run writes one of that name"):
        run()
    assert os.listdir(tmp_path) == ["01-prune.keras"]


@pytest.mark.skipif(os.name == "nt", reason="symbolic links need a privilege")
def test_links_among_the_files_are_not_written_through(run, tmp_path):
    folder, own = tmp_path / "run", tmp_path / "own"
    own.write_text("own")
    folder.mkdir()
    for name in ("00-float.tflite", "run.json", "report.md"):
        (folder / name).symlink_to(own)
    with pytest.raises(ValueError, match="is damaged, or of no run"):
        run(path=folder)
    run(path=folder, resume=False)
    assert own.read_text() == "own"
    assert not (folder / "00-float.tflite").is_symlink()


def test_a_disk_that_is_full(run, tmp_path, monkeypatch):
    resource = pytest.importorskip("resource")
    run(stop=1)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, before[1]))
    try:
        with pytest.raises(OSError, match=r"stage 'prune' could not be written.*File too large.*\(float\) lie there"):
            run()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert sorted(os.listdir(tmp_path)) == [*FILES[:2], "run.json"]
    assert run() == ["prune", "cluster"]


class Unregistered(keras.layers.Dense):
    pass


@keras.saving.register_keras_serializable("tests")
class Forgetful(keras.layers.Dense):
    """Saves no weights."""

    def save_own_variables(self, store):
        pass

    def load_own_variables(self, store):
        pass


@pytest.mark.parametrize(
    ("layer", "reason"),
    [
        (lambda: keras.layers.Lambda(lambda x: 2 * x, output_shape=(2,)), "cannot be loaded: .*[Ll]ambda"),
        (lambda: Unregistered(2), "cannot be loaded: .*Unregistered"),
        (lambda: Forgetful(2), "has other values in '.*kernel'"),
    ],
)
def test_a_run_that_could_not_be_resumed(layer, reason, model, recwarn):
    doubtful = keras.Sequential([keras.Input((2,)), layer()], name="doubtful")
    check_resumable(model)
    assert not recwarn.list
    with pytest.warns(UserWarning, match=f"This run cannot be resumed, .*'doubtful' {reason}.* Register layers"):
        check_resumable(model, doubtful)


def test_a_lambda_that_is_trusted(monkeypatch, recwarn):
    doubtful = keras.Sequential([keras.Input((2,)), keras.layers.Lambda(lambda x: 2 * x, output_shape=(2,))])
    keras.config.enable_unsafe_deserialization()
    try:
        check_resumable(doubtful)
    finally:
        keras.src.saving.serialization_lib.global_state.set_global_attribute("safe_mode_saving", None)
    assert not recwarn.list


def test_a_model_that_cannot_be_saved():
    class Odd(keras.layers.Dense):
        def get_config(self):
            raise NotImplementedError("no configuration")

    with pytest.raises(ValueError, match="'odd' cannot be saved, as it is after each stage: no configuration"):
        check_resumable(keras.Sequential([keras.Input((2,)), Odd(2)], name="odd"))


def test_a_checkpoint_that_cannot_be_loaded(model, tmp_path):
    doubtful = keras.Sequential([keras.Input((2,)), Unregistered(2)], name="doubtful")
    with run_folder(tmp_path, IDENTITY, NAMES, True) as folder:
        checkpoint, file, _ = folder.add("float", doubtful, lambda path: path.write_text(""))
        folder.finish(_result("float", checkpoint, file))
        with pytest.raises(
            ValueError, match=r"cannot be loaded: .*Unregistered.* Layers of your own must be registered"
        ):
            folder.last_model()
        checkpoint.write_bytes(checkpoint.read_bytes()[:100])
        with pytest.raises(ValueError, match=r"'00-float\.keras' is not as it was written in .*: call it again"):
            folder.last_model()
