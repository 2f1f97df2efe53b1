"""The table at the top of the README, made from the files in `results/`: `run_all.py --page` writes it there."""

import dataclasses
import re

from _common import RESULTS, ROOT
from _published import Figure

README = ROOT / "README.md"
_START, _END = "<!-- Written by `make results` -->\n", "<!-- To here -->\n"
_HEADERS = ("", "epochs", "accuracy in the runtime", "`.tflite`", "zipped", "sparsely encoded `.tflite`")
_SHARED = "collaborative_mnist_tensorflow"


@dataclasses.dataclass(frozen=True)
class Line:
    """A line of the table.

    Args:
        what: was done; `{...}` is replaced by `zipped` and `latency`, of the model as given over the line's.
        epochs: of training, stage by stage.
        file, row, within: as of `Figure`.
        bold: the columns in bold.
        before: the row of the same file that holds the model as given, where `what` compares with it.
    """

    what: str
    epochs: str
    file: str
    row: str
    bold: tuple = ()
    within: tuple = ("rows",)
    before: str | None = None

    def figure(self, key, row=None):
        return Figure(self.file, row or self.row, self.within, key).value(RESULTS)

    def ratio(self, key):
        """How many times larger this figure of the model as given is."""
        return self.figure(key, self.before) / self.figure(key)

    def cells(self):
        """The texts of the columns; a figure that no file holds is empty."""
        sizes = {"bytes": "bytes", "zipped": "zipped_bytes", "sparse": "sparse_bytes"}
        found = {name: self.figure(key) for name, key in sizes.items()}
        megabytes = {name: "" if value is None else f"{value / 1e6:.2f} MB" for name, value in found.items()}
        marked = {name: f"**{text}**" if name in self.bold else text for name, text in megabytes.items()}
        what = self.what
        if self.before:
            zipped, latency = (
                f"{self.ratio(key):.{digits}f}" if self.figure(key) else ""
                for key, digits in (("zipped_bytes", 0), ("latency_ms", 1))
            )
            what = what.format(zipped=zipped, latency=latency)
        return (what, self.epochs, f"{100 * self.figure('accuracy'):.2f} %", *marked.values())


LINES = (
    Line("as given", "", "pruning_accuracy_mnist-90_tensorflow", "float, as given"),
    Line(
        "pruned to 90 %, mean of three seeds",
        "2",
        "pruning_accuracy_mnist-90_tensorflow",
        "90 %",
        ("zipped", "sparse"),
    ),
    Line(
        "half of the channels cut out, {latency} times as fast",
        "2",
        "pruning_accuracy_mnist-channels_tensorflow",
        "cut out",
        ("bytes", "zipped"),
        before="float, as given",
    ),
    Line("16 values in each weight tensor", "1", "clustering_accuracy_mnist_tensorflow", "16 clusters", ("zipped",)),
    Line(
        "8-bit integers, not trained",
        "",
        "quantization_ptq_tensorflow",
        "int8",
        ("bytes",),
        within=("results", "mnist"),
    ),
    Line(
        "8-bit integers, trained",
        "1",
        "quantization_qat_mnist_tensorflow",
        "int8, trained",
        ("bytes",),
        within=("results", "mnist"),
    ),
    Line(
        "16 values that zip well¹, then 8-bit integers, trained",
        "1 + 1",
        _SHARED,
        "cluster 16, entropy weight 0.02, CQAT",
        ("bytes", "zipped"),
    ),
    Line(
        "pruned to 90 %, 16 values that zip well¹, 8-bit integers",
        "2 + 1 + 1",
        "collaborative_mnist-sizes_tensorflow",
        "the same, then int8 trained (PCQAT)",
        ("bytes", "zipped"),
    ),
    Line(
        '`compress(model, "deep-compression", ...)`, {zipped} times smaller',
        "4 + 2 + 2",
        _SHARED,
        "deep-compression (preset)",
        ("bytes", "zipped"),
        before="float",
    ),
)


def table():
    """The lines of the table, as Markdown."""
    rows = [_HEADERS, ["---", *["---:"] * (len(_HEADERS) - 1)], *(line.cells() for line in LINES)]
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def with_table(text):
    """The README's text with the table as the results have it."""
    pattern = f"{re.escape(_START)}.*?{re.escape(_END)}"
    found = re.findall(pattern, text, flags=re.S)
    if len(found) != 1:
        raise ValueError(f"the README needs one {_START.strip()} and one {_END.strip()} after it; found {len(found)}")
    return text.replace(found[0], f"{_START}\n{table()}\n{_END}")
