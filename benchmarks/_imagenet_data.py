"""Reading ImageNet: TFRecord shards or folders of classes, as batches for Keras on any backend.

Images are decoded and cut by `tf.data`, so that TensorFlow is needed whatever the backend is.
"""

import dataclasses
import functools
import pathlib
import re
import struct
import sys

import numpy as np

TRAINING, VALIDATION = ("train", "training"), ("validation", "val", "valid")
_IMAGES = {".jpeg", ".jpg", ".png", ".bmp", ".gif"}
_NO_RECORDS = {*_IMAGES, ".txt", ".csv", ".json", ".md", ".xml", ".py", ".npz", ".tar", ".gz", ".zip", ".keras", ".h5"}
_HELD_OUT = 5
"""Without a split for validation, every fifth image is one."""


@dataclasses.dataclass(frozen=True)
class Images:
    """The images of a split: TFRecord files, or image files with their labels.

    Args:
        paths: of the files.
        labels: the class of each image file; `None` of TFRecords, which hold them.
        count: how many images there are.
        classes: how many classes the folders are; `None` of TFRecords.
    """

    paths: tuple[str, ...]
    labels: tuple[int, ...] | None
    count: int
    classes: int | None = None


def find(folder):
    """The (training, validation) `Images` below a folder.

    It holds folders or TFRecord files that are called `train...` and `validation...` (or `val...`); or folders of
    classes alone, of which every fifth image is held out. Classes are the folders in alphabetical order, which is
    the order of ImageNet's synsets and of Keras Applications; or, if all are called by numbers, these numbers.

    Args:
        folder: a `pathlib.Path`.
    """
    if not folder.is_dir():
        sys.exit(f"There is no such folder: {folder}")
    training, validation = (_split(folder, names) for names in (TRAINING, VALIDATION))
    if training and validation:
        return training, validation
    if training or validation:
        there, missing = ("train", "validation") if training else ("validation", "train")
        sys.exit(f"{folder} has images called '{there}...', but none called '{missing}...'.")
    whole = _classes(folder)
    if whole is None:
        sys.exit(
            f"No ImageNet in {folder}: it should hold TFRecord files called train-... and validation-..., folders of "
            "these names with TFRecords or with a folder for each class, or a folder for each class."
        )
    print(f"No split for validation in {folder}: every fifth image is held out.", flush=True)
    held_out = np.arange(whole.count) % _HELD_OUT == _HELD_OUT - 1
    if not 0 < held_out.sum() < whole.count:
        sys.exit(f"{folder} has {whole.count} images: too few to hold out every fifth.")
    return tuple(_chosen(whole, mask) for mask in (~held_out, held_out))


def _chosen(images, mask):
    places = np.flatnonzero(mask)
    labels = tuple(images.labels[place] for place in places)
    return dataclasses.replace(
        images, paths=tuple(images.paths[place] for place in places), labels=labels, count=len(places)
    )


def _split(folder, names):
    for name in names:
        if (folder / name).is_dir():
            return _classes(folder / name) or _records(folder / name)
    return _records(folder, names)


def _classes(folder):
    """The images in the folders of classes below `folder`, or `None` if it has none."""
    folders = sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    if not folders:
        return None
    numbered = all(path.name.isdigit() for path in folders)
    paths, labels = [], []
    for place, each in enumerate(folders):
        found = sorted(str(path) for path in each.rglob("*") if path.suffix.lower() in _IMAGES)
        paths += found
        labels += [int(each.name) if numbered else place] * len(found)
    if not paths:
        return None
    return Images(tuple(paths), tuple(labels), len(paths), max(labels) + 1 if numbered else len(folders))


def _records(folder, names=("",)):
    """The TFRecord files in `folder` that have one of the words in their names, or `None`."""
    word = re.compile(rf"(?:^|[^a-z])(?:{'|'.join(names)})(?:[^a-z]|$)") if names != ("",) else re.compile("")
    files = [
        path
        for path in sorted(folder.iterdir())
        if path.is_file() and path.suffix.lower() not in _NO_RECORDS and word.search(path.name.lower())
    ]
    if not files:
        return None
    return Images(tuple(map(str, files)), None, sum(map(count_records, files)))


def count_records(path):
    """How many records a TFRecord file has; ends the program if it is none, or cut short.

    A record is its length in 8 bytes, a checksum in 4, the bytes, a checksum in 4.
    """
    size, place, count = pathlib.Path(path).stat().st_size, 0, 0
    with open(path, "rb") as file:
        while place < size:
            file.seek(place)
            header = file.read(8)
            place += 16 + (struct.unpack("<Q", header)[0] if len(header) == 8 else size)
            count += 1
    if place != size or not count:
        sys.exit(f"{path} is no TFRecord file, or has been cut short.")
    return count


def affine(preprocess):
    """(matrix, offset) of a preprocessing of Keras Applications: RGB in 0..255, times the matrix, plus the offset.

    All of them scale channels, shift them, or change their order; seen here from what becomes of black and of the three
    colours.
    """
    offset = preprocess(np.zeros((1, 1, 3), "float32"))[0, 0]
    colours = preprocess(np.eye(3, dtype="float32")[None] * 255)[0]
    return ((colours - offset) / 255).astype("float32"), offset.astype("float32")


@dataclasses.dataclass(frozen=True)
class Reader:
    """Makes batches of images and labels.

    Args:
        size: height and width that the model takes.
        matrix, offset: of `affine`.
        batch_size: images in a batch.
        crop: the share of the shorter side that is cut out of the middle for validation.
        seed: of the order and the changes of training images.
        first_label: the number of the first class in `image/class/label` of TFRecords: 1 in ImageNet's usual shards.
    """

    size: int
    matrix: np.ndarray
    offset: np.ndarray
    batch_size: int
    crop: float = 0.875
    seed: int = 0
    first_label: int = 1

    def training(self, images):
        """Batches without an end: parts of images, 8 to 100 % of their area, half of them mirrored."""
        import tensorflow as tf

        data = self._encoded(images, shuffled=True).map(self._changed, num_parallel_calls=tf.data.AUTOTUNE)
        return data.batch(self.batch_size, drop_remainder=True).prefetch(tf.data.AUTOTUNE)

    def validation(self, images, limit=None):
        """(images, labels, weights): the middles of images, in whole batches; what fills the last one has weight 0."""
        import tensorflow as tf

        count = min(images.count, limit or images.count)
        filling = -count % self.batch_size
        data = self._middles(images).take(count)
        data = data.map(lambda image, label: (image, label, 1.0))
        if filling:
            empty = (tf.zeros((self.size, self.size, 3)), tf.constant(0), 0.0)
            data = data.concatenate(tf.data.Dataset.from_tensors(empty).repeat(filling))
        return data.batch(self.batch_size, drop_remainder=True).prefetch(tf.data.AUTOTUNE)

    def calibration(self, images, count):
        """An array of the middles of `count` training images, of classes in random order."""
        data = self._encoded(images, shuffled=True).take(min(count, images.count))
        return np.stack([image.numpy() for image, _ in data.map(self._middle)])

    def _middles(self, images):
        import tensorflow as tf

        return self._encoded(images).map(self._middle, num_parallel_calls=tf.data.AUTOTUNE)

    def _encoded(self, images, shuffled=False):
        """Pairs of an encoded image and its label; shuffled ones without an end."""
        import tensorflow as tf

        if images.labels is None:
            files = tf.data.Dataset.from_tensor_slices(list(images.paths))
            if shuffled:
                files = files.shuffle(len(images.paths), seed=self.seed).repeat()
            data = files.interleave(
                tf.data.TFRecordDataset, cycle_length=8 if shuffled else 1, num_parallel_calls=tf.data.AUTOTUNE
            )
            if shuffled:
                data = data.shuffle(min(images.count, 4096), seed=self.seed)
            return data.map(functools.partial(_parsed, first_label=self.first_label))
        data = tf.data.Dataset.from_tensor_slices((list(images.paths), list(images.labels)))
        if shuffled:
            data = data.shuffle(images.count, seed=self.seed).repeat()
        return data.map(lambda path, label: (tf.io.read_file(path), label), num_parallel_calls=tf.data.AUTOTUNE)

    def _middle(self, encoded, label):
        import tensorflow as tf

        image = _decoded(encoded)
        shape = tf.shape(image)[:2]
        side = tf.cast(self.crop * tf.cast(tf.reduce_min(shape), tf.float32), tf.int32)
        top, left = tf.unstack((shape - side) // 2)
        return self._prepared(image[top : top + side, left : left + side]), label

    def _changed(self, encoded, label):
        import tensorflow as tf

        image = _decoded(encoded)
        begin, size, _ = tf.image.sample_distorted_bounding_box(
            tf.shape(image),
            tf.zeros((1, 1, 4)) + [0.0, 0.0, 1.0, 1.0],
            seed=self.seed,
            min_object_covered=0.08,
            aspect_ratio_range=(3 / 4, 4 / 3),
            area_range=(0.08, 1.0),
        )
        part = tf.slice(image, begin, size)
        return self._prepared(tf.image.random_flip_left_right(part, seed=self.seed)), label

    def _prepared(self, image):
        import tensorflow as tf

        image = tf.image.resize(image, (self.size, self.size), antialias=True)
        image = tf.tensordot(image, tf.constant(self.matrix), 1) + self.offset
        return tf.ensure_shape(image, (self.size, self.size, 3))


def _decoded(encoded):
    import tensorflow as tf

    image = tf.io.decode_image(encoded, channels=3, expand_animations=False)
    return tf.ensure_shape(image, (None, None, 3))


def _parsed(record, first_label):
    """The encoded image and the label, counted from 0, of ImageNet's usual records or of TensorFlow Datasets' ones."""
    import tensorflow as tf

    text, number = tf.io.FixedLenFeature((), tf.string, ""), tf.io.FixedLenFeature((), tf.int64, -1)
    names = {"image/encoded": text, "image": text, "image/class/label": number, "label": number}
    fields = tf.io.parse_single_example(record, names)
    image = tf.where(fields["image/encoded"] == "", fields["image"], fields["image/encoded"])
    usual = fields["image/class/label"]
    label = tf.cast(tf.where(usual >= 0, usual - first_label, fields["label"]), tf.int32)
    with tf.control_dependencies([tf.debugging.assert_greater_equal(label, 0, "A record has no label.")]):
        return image, tf.identity(label)


def check_labels(images, reader, classes):
    """Ends the program if the labels cannot be those of a model of `classes` outputs."""
    if images.labels is None:
        sample = [int(label) for _, label in reader._encoded(images).take(256)]
        if max(sample) >= classes:
            sys.exit(f"The records hold class {max(sample)}, counted from 0, and the model has {classes} classes.")
    elif max(images.labels) >= classes or (classes == 1000 and images.classes < 1000 and not _numbered(images)):
        sys.exit(
            f"The data have {images.classes} folders of classes, and the model {classes} classes. Where some are "
            f"missing, call the folders by the numbers of their classes, 0 to {classes - 1}."
        )


def _numbered(images):
    return pathlib.Path(images.paths[0]).parent.name.isdigit()
