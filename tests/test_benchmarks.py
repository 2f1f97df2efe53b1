"""What benchmarks read and write, without running them."""

import pathlib
import re
import struct
import sys

import keras
import numpy as np
import pytest

pytestmark = pytest.mark.backend_independent

FOLDER = pathlib.Path(__file__).resolve().parents[1] / "benchmarks"
COLOURS = np.array([[250, 10, 20], [30, 240, 50], [60, 70, 230], [90, 90, 90]], "uint8")


@pytest.fixture(autouse=True)
def benchmarks(monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))
    yield
    for name in [name for name, each in sys.modules.items() if str(FOLDER) in str(getattr(each, "__file__", ""))]:
        del sys.modules[name]


def encoded():
    """Four images of one colour each, twice as wide as high: PNG and JPEG."""
    tf = pytest.importorskip("tensorflow")
    images = [np.broadcast_to(colour, (12, 24, 3)) for colour in COLOURS]
    kinds = [tf.io.encode_png, tf.io.encode_jpeg] * 2
    return [encode(image).numpy() for encode, image in zip(kinds, images, strict=True)]


def reader(**settings):
    from _imagenet_data import Reader

    return Reader(6, np.eye(3, dtype="float32"), np.zeros(3, "float32"), 3, **settings)


def read(images, **settings):
    """(colours in the middle of the images, labels, weights) of the validation batches."""
    batches = [[np.asarray(part) for part in batch] for batch in reader(**settings).validation(images)]
    assert all(batch[0].shape == (3, 6, 6, 3) for batch in batches)
    return tuple(np.concatenate(parts) for parts in zip(*((b[0][:, 3, 3], *b[1:]) for b in batches), strict=True))


def write_records(path, first_label, names=("image/encoded", "image/class/label")):
    tf = pytest.importorskip("tensorflow")
    with tf.io.TFRecordWriter(str(path)) as writer:
        for label, content in enumerate(encoded()):
            image = tf.train.Feature(bytes_list=tf.train.BytesList(value=[content]))
            number = tf.train.Feature(int64_list=tf.train.Int64List(value=[label + first_label]))
            features = tf.train.Features(feature=dict(zip(names, (image, number), strict=True)))
            writer.write(tf.train.Example(features=features).SerializeToString())


def check_four(found):
    colours, labels, weights = found
    assert colours.shape == (6, 3)
    assert np.abs(colours[:4] - COLOURS).max() < 6  # JPEG
    assert labels.tolist()[:4] == [0, 1, 2, 3]
    assert weights.tolist() == [1, 1, 1, 1, 0, 0]


def test_records_are_read(tmp_path):
    from _imagenet_data import check_labels, find

    for split in ("train-00000-of-00001", "validation-00000-of-00001"):
        write_records(tmp_path / split, first_label=1)
    training, validation = find(tmp_path)
    assert (training.count, validation.count) == (4, 4)
    assert "train-" in training.paths[0]
    check_four(read(validation))
    check_labels(validation, reader(), 4)
    with pytest.raises(SystemExit, match="class 3"):
        check_labels(validation, reader(), 3)
    images, labels = next(iter(reader().training(training)))
    assert images.shape == (3, 6, 6, 3)
    assert np.abs(np.asarray(images)[:, 3, 3] - COLOURS[np.asarray(labels)]).max() < 6
    assert reader().calibration(training, 2).shape == (2, 6, 6, 3)


def test_records_of_tensorflow_datasets_are_read(tmp_path):
    from _imagenet_data import find

    for split in ("imagenet2012-train.tfrecord-0", "imagenet2012-validation.tfrecord-0"):
        write_records(tmp_path / split, first_label=0, names=("image", "label"))
    check_four(read(find(tmp_path)[1]))


def test_records_that_are_cut_short_are_refused(tmp_path):
    from _imagenet_data import count_records

    path = tmp_path / "train-0"
    path.write_bytes((struct.pack("<Q", 5) + b"....12345....") * 3)
    assert count_records(path) == 3
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(SystemExit, match="cut short"):
        count_records(path)


def test_folders_are_read(tmp_path):
    from _imagenet_data import check_labels, find

    for split in ("train", "val"):
        for name, content in zip(("n01", "n02", "n03", "n04"), encoded(), strict=True):
            (tmp_path / split / name).mkdir(parents=True)
            (tmp_path / split / name / "image.JPEG").write_bytes(content)
    training, validation = find(tmp_path)
    assert (training.count, validation.classes) == (4, 4)
    check_four(read(validation))
    with pytest.raises(SystemExit, match="4 folders"):
        check_labels(training, reader(), 1000)


def test_a_folder_without_a_split_holds_images_out(tmp_path):
    from _imagenet_data import check_labels, find

    content = encoded()[0]
    for number in range(2, 12):  # alphabetically, 10 and 11 come first
        (tmp_path / str(number)).mkdir()
        (tmp_path / str(number) / "a.png").write_bytes(content)
    training, validation = find(tmp_path)
    assert (training.count, validation.count) == (8, 2)
    assert sorted(training.labels + validation.labels) == list(range(2, 12))
    assert all(f"/{label}/" in path for path, label in zip(training.paths, training.labels, strict=True))
    check_labels(training, reader(), 1000)
    with pytest.raises(SystemExit, match="no such folder"):
        find(tmp_path / "missing")
    with pytest.raises(SystemExit, match="No ImageNet"):
        find(tmp_path / "2")


@pytest.mark.parametrize("name", ["MobileNet", "ResNet50", "DenseNet121", "EfficientNetB0"])
def test_preprocessing_is_that_of_the_model(name):
    import imagenet
    from _imagenet_data import affine

    preprocess = imagenet.preprocessing(name)
    image = np.random.default_rng(0).uniform(0, 255, (5, 4, 3)).astype("float32")
    matrix, offset = affine(preprocess)
    np.testing.assert_allclose(image @ matrix + offset, preprocess(image.copy()), atol=1e-4)


def test_runs_are_stages_in_order():
    import imagenet

    assert [stage[0] for stage in imagenet.stages_of("prune-87.5+cluster-channels-16+qat")] == [
        "prune-87.5",
        "cluster-channels-16",
        "qat",
    ]
    for wrong in ("prune", "prune-100", "cluster-1", "int9", "qat+prune-50", "int8+qat", "prune-50+prune-2:4"):
        with pytest.raises(ValueError, match=re.escape(wrong.split("+")[0])):
            imagenet.stages_of(wrong)


def test_every_published_row_has_a_command_that_is_there():
    import imagenet
    from _published import ROWS, SOURCES

    assert {row.table for row in ROWS} == set(SOURCES)
    for row in ROWS:
        script = re.match(r"python (\S+\.py)", row.recipe())
        assert row.stand_ins, row
        if row.application:
            assert callable(getattr(keras.applications, row.application))
            assert imagenet.stages_of(row.run)
        if script and "GNMT" not in row.model:
            assert (FOLDER.parent / script[1]).is_file(), row.recipe()


def test_the_published_tables_are_as_written():
    import run_all

    assert run_all.published_tables() in (FOLDER / "RESULTS.md").read_text(), "run `run_all.py --page`"


def test_figures_are_found_by_name(tmp_path):
    from _published import Figure

    (tmp_path / "a.json").write_text('{"rows": [{"name": "x", "accuracy": 0.5}, {"name": "x", "accuracy": 0.7}]}')
    assert Figure("a", "x").value(tmp_path) == pytest.approx(0.6)
    assert Figure("a", "y").value(tmp_path) is None
    assert Figure("b", "x").value(tmp_path) is None


def test_the_table_of_the_readme_is_what_the_results_hold():
    from _readme import README, with_table

    text = README.read_text()
    assert with_table(text) == text
    assert "| as given |  | 99.13 % | 13.10 MB |" in text


def test_a_readme_without_the_place_of_its_table():
    from _readme import with_table

    with pytest.raises(ValueError, match="found 0"):
        with_table("# A project\n")


def test_the_page_of_results_has_every_result():
    from run_all import PAGE, RESULTS, page

    text = PAGE.read_text()
    assert text == page()
    assert all(f"## {path.stem}\n" in text for path in RESULTS.glob("*.md"))
