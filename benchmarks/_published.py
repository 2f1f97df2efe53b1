"""The tables that TFMOT publishes, row by row: what was run here in place of each, and the command that runs the row.

Figures are from the pages named in `SOURCES`, read in the repositories that these pages are built from. A figure
that no such page states is not here.
"""

import dataclasses
import json

from _common import RESULTS

_GUIDE = "https://www.tensorflow.org/model_optimization/guide"
SOURCES = {
    "pruning": f"{_GUIDE}/pruning",
    "clustering": f"{_GUIDE}/clustering",
    "quantization-aware training": f"{_GUIDE}/quantization/training",
    "quantization after training": (
        "https://github.com/tensorflow/tensorflow/blob/v1.15.2/tensorflow/lite/g3doc/performance/model_optimization.md"
    ),
    "combinations": f"{_GUIDE}/combine/collaborative_optimization",
}


@dataclasses.dataclass(frozen=True)
class Figure:
    """A figure in a file of `results/`.

    Args:
        file: its name, without the ending.
        row: the name of the row.
        within: keys that lead to the list of rows.
        key: of the figure in its row, a share.
        naming: keys of the row that its name is made of, joined by commas.
    """

    file: str
    row: str
    within: tuple = ("rows",)
    key: str = "accuracy"
    naming: tuple = ("name",)

    def value(self, folder=RESULTS):
        """The figure, or `None` if there is no such file or row; a mean, where several runs have this name."""
        path = folder / f"{self.file}.json"
        if not path.is_file():
            return None
        rows = json.loads(path.read_text())
        for key in self.within:
            rows = rows.get(key, {}) if isinstance(rows, dict) else {}
        found = [
            row[self.key]
            for row in rows or ()
            if row.get(self.key) is not None and ", ".join(str(row.get(key)) for key in self.naming) == self.row
        ]
        return sum(found) / len(found) if found else None


@dataclasses.dataclass(frozen=True)
class StandIn:
    """What was run here instead: a model, and the figures of the same technique on it."""

    what: str
    start: Figure
    ours: Figure
    tfmot: Figure | None = None
    other: tuple[str, Figure] | None = None


@dataclasses.dataclass(frozen=True)
class Row:
    """A row of a published table.

    Args:
        table: a key of `SOURCES`.
        model: as the table calls it.
        technique: what is done to it.
        start: the published figure of the model as it was, in per cent or BLEU; `None` where the table has none.
        published: that of the result.
        application: the model of Keras Applications.
        run: what `imagenet.py --runs` calls it.
        command: what else would run it.
        stand_ins: what was run here.
        size: megabytes of the zipped file, before and after, where they are published.
    """

    table: str
    model: str
    technique: str
    start: float | None
    published: float
    application: str | None = None
    run: str | None = None
    command: str | None = None
    stand_ins: tuple[StandIn, ...] = ()
    size: tuple[float, float] | None = None

    def recipe(self):
        """The command that would run it on the data that it was published for."""
        if self.command:
            return self.command
        return f"python benchmarks/imagenet.py --data DIR --model {self.application} --runs {self.run}"


def published(application, run):
    """The rows of a model of Keras Applications and a run of `imagenet.py`: several tables may have it."""
    return tuple(row for row in ROWS if row.start is not None and (row.application, row.run) == (application, run))


def _pruning(file, row, start="float, as given"):
    return Figure(f"pruning_accuracy_{file}_tensorflow", start), Figure(f"pruning_accuracy_{file}_tensorflow", row)


def _clustering(file, row, start="float, as given"):
    return Figure(f"clustering_accuracy_{file}_tensorflow", start), Figure(
        f"clustering_accuracy_{file}_tensorflow", row
    )


def _kept(row, more=""):
    file = "collaborative_ds-cnn-l_tensorflow"
    return StandIn(f"{_DS_CNN_L}{more}", Figure(file, "float, trained for as long"), Figure(file, row))


def _together(how):
    file = "collaborative_resnet8_tensorflow"
    return StandIn(f"{_RESNET8}, 32 values", Figure(file, "float"), Figure(file, f"cluster 32, int8 {how}"))


def _new_speakers(row, package):
    return Figure("new_speakers", f"ds_cnn_s, {package}, {row}", within=("means",), naming=("model", "package", "row"))


def _speakers(row, start="float, tuned as long"):
    return StandIn(
        "DS-CNN-S, speakers not trained on",
        _new_speakers(start, "keras-mot"),
        _new_speakers(row, "keras-mot"),
        _new_speakers(row, "TFMOT"),
    )


def _depthwise(technique):
    rows = {"within": ("results", "ds_cnn_s", "means"), "naming": ("technique", "depthwise")}
    file = "depthwise_accuracy_tensorflow"
    return StandIn(
        "DS-CNN-S, speakers not trained on",
        Figure(file, "float, fine-tuned equally, ", **rows),
        Figure(file, f"{technique}, left alone", **rows),
        Figure(file, f"{technique}, TFMOT", **rows),
    )


def _after_training(model, what):
    rows = {"file": "quantization_ptq_tensorflow", "within": ("results", model)}
    return StandIn(
        what,
        Figure(row="float", **rows),
        Figure(row="int8", **rows),
        other=("TensorFlow's converter", Figure(row="TensorFlow's converter, int8", **rows)),
    )


def _aware(model, what, row="int8, trained"):
    file, within = f"quantization_qat_{model}_tensorflow", ("results", model) if model == "mnist" else ("rows",)
    start = "float, trained for as long" if model == "ds_cnn_l" else "float"
    return StandIn(what, Figure(file, start, within), Figure(file, row, within))


def _translation(share):
    rows = {"file": "translation_tensorflow", "key": "bleu", "naming": ("model",)}
    what = "small attention model, numbers and dates in words, both ways"
    return StandIn(what, Figure(row="float", **rows), Figure(row=str(share), **rows))


_RESNET8 = "ResNet-8, CIFAR-10"
_MNIST = "MNIST CNN"
_DS_CNN_L = "DS-CNN-L, speakers not trained on"
_EQUALLY = "float, fine-tuned equally"
_UNSAID = " (values not stated)"
_MOBILENET = "MobileNetV1 0.50-160, 500 images"

_HALF = (
    StandIn(_RESNET8, *_pruning("resnet8", "50 %, whole model")),
    _depthwise("50 % pruned"),
)
_QUARTER = (
    StandIn(_RESNET8, *_pruning("resnet8", "75 %, whole model")),
    StandIn(_MNIST, *_pruning("mnist-table", "75 %", _EQUALLY)),
)
_EIGHTH = (StandIn(_MNIST, *_pruning("mnist-table", "87.5 %", _EQUALLY)),)
_TWO_OF_FOUR = (StandIn(_MNIST, *_pruning("mnist-table", "2:4, all but the first layer", _EQUALLY)),)
_SELECTIVE = (
    StandIn(
        f"{_MOBILENET}, not trained",
        *_clustering("mobilenet", "last three convolutions: 256, 256, 32 clusters"),
    ),
)
_EVERYWHERE = (
    StandIn(_RESNET8, *_clustering("resnet8", "32 clusters")),
    _depthwise("16 values"),
)
_TRAINED_INTEGERS = (_aware("resnet8", _RESNET8), _aware("mnist", _MNIST))
_INTEGERS = (_after_training("resnet8", _RESNET8), _after_training("mobilenet", _MOBILENET))

ROWS = (
    Row("pruning", "InceptionV3", "50 % zeros", 78.1, 78.0, "InceptionV3", "prune-50", stand_ins=_HALF),
    Row("pruning", "InceptionV3", "75 % zeros", 78.1, 76.1, "InceptionV3", "prune-75", stand_ins=_QUARTER),
    Row("pruning", "InceptionV3", "87.5 % zeros", 78.1, 74.6, "InceptionV3", "prune-87.5", stand_ins=_EIGHTH),
    Row("pruning", "InceptionV3", "2 of 4 zeros", 78.1, 75.8, "InceptionV3", "prune-2:4", stand_ins=_TWO_OF_FOUR),
    Row("pruning", "MobileNetV1 224", "50 % zeros", 71.04, 70.84, "MobileNet", "prune-50", stand_ins=_HALF),
    Row("pruning", "MobileNetV1 224", "2 of 4 zeros", 71.04, 67.35, "MobileNet", "prune-2:4", stand_ins=_TWO_OF_FOUR),
    Row("pruning", "MobileNetV2 224", "50 % zeros", 71.77, 69.64, "MobileNetV2", "prune-50", stand_ins=_HALF),
    Row("pruning", "MobileNetV2 224", "2 of 4 zeros", 71.77, 66.75, "MobileNetV2", "prune-2:4", stand_ins=_TWO_OF_FOUR),
    *(
        Row(
            "pruning",
            f"GNMT {pair}",
            f"{share} % zeros (BLEU)",
            start,
            bleu,
            command=f"python benchmarks/translation.py --models float {share}",
            stand_ins=(_translation(share),),
        )
        for pair, start, figures in (("EN-DE", 26.77, (26.86, 26.52, 26.19)), ("DE-EN", 29.47, (29.50, 29.24, 28.81)))
        for share, bleu in zip((80, 85, 90), figures, strict=True)
    ),
    Row(
        "pruning",
        "DS-CNN-L",
        "50 % zeros",
        95.23,
        94.84,
        command="python benchmarks/pruning_accuracy.py ds-cnn-l",
        stand_ins=(StandIn(_DS_CNN_L, *_pruning("ds-cnn-l", "50 %", _EQUALLY)), _speakers("pruned")),
    ),
    Row(
        "pruning",
        "DS-CNN-L",
        "2 of 4 zeros",
        95.23,
        94.33,
        command="none here: Speech Commands is not split as it was",
        stand_ins=_TWO_OF_FOUR,
    ),
    *(
        Row("clustering", name, technique, start, accuracy, application, run, stand_ins=stand_ins, size=(before, after))
        for name, application, start, before, figures in (
            ("MobileNetV1", "MobileNet", 70.976, 14.97, ((70.294, 7.69), (70.69, 8.22), (69.4, 4.43))),
            ("MobileNetV2", "MobileNetV2", 71.778, 12.38, ((70.742, 6.68), (70.926, 7.03), (69.744, 4.05))),
        )
        for (technique, run, stand_ins), (accuracy, after) in zip(
            (
                ("16 values, last three convolutions", "cluster-last3-16", _SELECTIVE),
                ("32 values, last three convolutions", "cluster-last3-32", _SELECTIVE),
                ("32 values", "cluster-32", _EVERYWHERE),
            ),
            figures,
            strict=True,
        )
    ),
    *(
        Row(
            "clustering",
            "DS-CNN-L",
            f"{values} values",
            95.233,
            accuracy,
            command="python benchmarks/clustering_accuracy.py ds-cnn-l",
            stand_ins=(StandIn(what, *_clustering("ds-cnn-l", f"{ours} clusters", _EQUALLY)),),
            size=(1.46, size),
        )
        for values, ours, what, accuracy, size in (
            (32, 32, _DS_CNN_L, 95.09, 0.39),
            (8, 16, f"{_DS_CNN_L}, 16 values", 94.272, 0.27),
        )
    ),
    *(
        Row(
            "quantization-aware training",
            name,
            "8 bits",
            start,
            accuracy,
            application,
            "qat",
            stand_ins=_TRAINED_INTEGERS,
        )
        for name, application, start, accuracy in (
            ("MobileNetV1 224", "MobileNet", 71.03, 71.06),
            ("ResNet v1 50", "ResNet50", 76.3, 76.1),
            ("MobileNetV2 224", "MobileNetV2", 70.77, 70.01),
            ("NASNet-Mobile", "NASNetMobile", 74.0, 73.0),
            ("ResNet v2 50", "ResNet50V2", 75.6, 75.0),
        )
    ),
    *(
        Row("quantization after training", name, "8 bits", start, accuracy, application, "int8", stand_ins=_INTEGERS)
        for name, application, start, accuracy in (
            ("MobileNetV1 224", "MobileNet", 70.9, 65.7),
            ("MobileNetV2 224", "MobileNetV2", 71.9, 63.7),
            ("InceptionV3", "InceptionV3", 78.0, 77.2),
            ("ResNet v2 101", "ResNet101V2", 77.0, 76.8),
        )
    ),
    *(
        Row("combinations", model, technique, start, accuracy, application, run, command, stand_ins)
        for model, application, command, start, rows in (
            (
                "DS-CNN-L",
                None,
                "python benchmarks/collaborative_accuracy.py ds-cnn-l",
                95.23,
                (
                    ("8 bits after training", 94.48, None, (_aware("ds_cnn_l", _DS_CNN_L, "int8, not trained"),)),
                    ("8 bits trained", 94.72, None, (_aware("ds_cnn_l", _DS_CNN_L),)),
                    ("50 % zeros", 94.80, None, (_kept("prune 50 %"), _speakers("pruned"))),
                    (
                        "50 % zeros, 8 bits after training",
                        93.80,
                        None,
                        (_kept("prune 50 %, then int8 after training"),),
                    ),
                    (
                        "50 % zeros, 8 bits trained (PQAT)",
                        94.13,
                        None,
                        (_kept("prune 50 %, then int8 trained (PQAT)"), _speakers("PQAT")),
                    ),
                ),
            ),
            (
                "MobileNetV1 224",
                "MobileNet",
                None,
                70.99,
                (
                    ("8 bits after training", 69.37, "int8", _INTEGERS),
                    ("8 bits trained", 70.67, "qat", _TRAINED_INTEGERS),
                    ("50 % zeros", 70.11, "prune-50", _HALF),
                    (
                        "50 % zeros, 8 bits after training",
                        67.82,
                        "prune-50+int8",
                        (_kept("prune 50 %, then int8 after training"),),
                    ),
                    ("50 % zeros, 8 bits trained (PQAT)", 70.29, "prune-50+qat", (_speakers("PQAT"),)),
                ),
            ),
            (
                "MobileNetV1, CIFAR-10",
                None,
                "python benchmarks/collaborative_accuracy.py resnet8",
                94.88,
                (
                    ("8 bits after training", 94.65, None, (_after_training("resnet8", _RESNET8),)),
                    ("8 bits trained", 94.77, None, (_aware("resnet8", _RESNET8),)),
                    (f"clustered{_UNSAID}", 94.48, None, (_EVERYWHERE[0],)),
                    (f"clustered{_UNSAID}, 8 bits after training", 94.41, None, (_together("after training"),)),
                    (f"clustered{_UNSAID}, 8 bits trained (CQAT)", 94.52, None, (_together("trained"),)),
                ),
            ),
            (
                "MobileNetV1 224",
                "MobileNet",
                None,
                71.07,
                (
                    ("8 bits after training", 69.34, "int8", _INTEGERS),
                    ("8 bits trained", 70.35, "qat", _TRAINED_INTEGERS),
                    (f"clustered{_UNSAID}", 65.30, "cluster-16", _EVERYWHERE),
                    (
                        f"clustered{_UNSAID}, 8 bits after training",
                        60.60,
                        "cluster-16+int8",
                        (_together("after training"),),
                    ),
                    (f"clustered{_UNSAID}, 8 bits trained (CQAT)", 65.42, "cluster-16+qat", (_speakers("CQAT"),)),
                ),
            ),
        )
        for technique, accuracy, run, stand_ins in rows
    ),
    *(
        Row(
            "combinations",
            "DS-CNN-L",
            f"{what}{_UNSAID}, CQAT",
            None,
            accuracy,
            command="python benchmarks/collaborative_accuracy.py ds-cnn-l",
            stand_ins=(_kept("cluster 32, then int8 trained (CQAT)", ", 32 values"),),
        )
        for what, accuracy in (("clustered", 95.949), ("clustered by channel", 96.44))
    ),
    *(
        Row("combinations", "MobileNetV2", technique, None, accuracy, "MobileNetV2", run, stand_ins=(_speakers(row),))
        for technique, accuracy, run, row in (
            (f"clustered{_UNSAID}, CQAT", 71.538, "cluster-16+qat", "CQAT"),
            (f"clustered by channel{_UNSAID}, CQAT", 72.638, "cluster-channels-16+qat", "CQAT"),
            ("pruned, clustered, PCQAT", 71.45, "prune-50+cluster-16+qat", "PCQAT"),
            ("pruned, clustered by channel, PCQAT", 71.901, "prune-50+cluster-channels-16+qat", "PCQAT"),
        )
    ),
)
