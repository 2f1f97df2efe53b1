"""BLEU of a small attention encoder-decoder, pruned to 80, 85 and 90 %, as in the published table of GNMT.

KERAS_BACKEND=tensorflow python benchmarks/translation.py --seeds 0 1 2 --folder DIR    # goes on where it stopped
"""

import json
import pathlib
import sys
import tempfile
import time

import keras
import numpy as np
from _common import ROOT, Table, environment, write_results
from _common import parser as common_parser

import keras_mot

sys.path.insert(0, str(ROOT / "examples"))
import translation as example

PUBLISHED = {"float": 26.77, "80": 26.86, "85": 26.52, "90": 26.19}
"""GNMT, English to German, on real text: TFMOT's page "Trim insignificant weights". Only differences compare."""
ASKED = {"80": 0.3, "85": 0.6, "90": 1.0}
NAMES = {
    "float": "float",
    "tuned": "float, trained on equally",
    **{each: f"{each} % zeros" for each in ASKED},
    "float-int8": "float, int8, in the runtime",
    "90-int8": "90 % zeros, int8, in the runtime",
}


def measured(name, seed, settings, folder):
    """BLEU and what else is known of one model; from the folder if it is there."""
    record = folder / f"{seed}-{name}.json"
    if record.exists():
        return json.loads(record.read_text())
    keras.utils.set_random_seed(seed)
    train_on, test = example.data(settings["count"], settings["held_out"], seed)
    started, more = time.process_time(), {}
    if name.endswith("-int8"):
        model = keras.models.load_model(folder / f"{seed}-{name.removesuffix('-int8')}.keras", compile=False)
        predict, more["bytes"] = example.in_integers(model, *train_on)
    else:
        model = trained(name, seed, settings, folder, train_on)
        predict = example.predictor(model)
        small = keras_mot.sparsity.strip_pruning(model) if name in ASKED else model
        more["sparsity"] = keras_mot.analysis.sparsity(small)
    seconds = time.process_time() - started
    row = {"model": name, "seed": seed, "bleu": example.bleu(predict, *test), "cpu_seconds": seconds, **more}
    record.write_text(json.dumps(row))
    return row


def trained(name, seed, settings, folder, train_on):
    path = folder / f"{seed}-{name}.keras"
    if path.exists():
        return keras.models.load_model(path, compile=False)
    if name == "float":
        model = example.train(example.build(*train_on, settings["units"]), *train_on, settings["epochs"])
    else:
        model = keras.models.load_model(folder / f"{seed}-float.keras", compile=False)
        if name == "tuned":
            model = example.train(model, *train_on, settings["more_epochs"], rate=example.MORE_RATE)
        else:
            model = example.prune(model, *train_on, int(name) / 100, settings["more_epochs"])
    model.save(path)
    return model


def main():
    parser = common_parser(__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--models", nargs="+", choices=NAMES, default=list(NAMES))
    parser.add_argument("--folder", type=pathlib.Path, help="where models are kept between runs")
    arguments = parser.parse_args()
    settings = {"count": 40_000, "held_out": 1000, "units": 96, "epochs": 5, "more_epochs": 4}
    if arguments.quick:
        settings = {"count": 256, "held_out": 8, "units": 16, "epochs": 1, "more_epochs": 1}
    folder = arguments.folder or pathlib.Path(tempfile.mkdtemp())
    folder.mkdir(parents=True, exist_ok=True)
    rows = [
        measured(name, seed, settings, folder) for seed in arguments.seeds for name in NAMES if name in arguments.models
    ]
    values = {"environment": environment(), "settings": settings, "published": PUBLISHED, "asked": ASKED, "rows": rows}
    write_results(arguments, "translation_tensorflow", values, [table(rows, settings)])


def table(rows, settings):
    count = len({row["seed"] for row in rows})
    result = Table(
        f"English and German, both ways: BLEU, mean of {count} seed{'s' if count > 1 else ''}",
        (
            "model",
            "BLEU",
            "below float",
            "asked: at most",
            "each seed",
            "published, GNMT",
            "zeros in kernels, %",
            "bytes",
        ),
        notes=(str(settings),),
    )
    mean = {name: np.mean(scores) for name in NAMES if (scores := [r["bleu"] for r in rows if r["model"] == name])}
    for name, score in mean.items():
        own = [row for row in rows if row["model"] == name]
        result.add(
            NAMES[name],
            f"{score:.2f}",
            f"{mean['float'] - score:.2f}" if "float" in mean else "",
            ASKED.get(name, ""),
            ", ".join(f"{row['bleu']:.2f}" for row in own),
            PUBLISHED.get(name, ""),
            f"{100 * own[0]['sparsity']:.1f}" if "sparsity" in own[0] else "",
            f"{own[0]['bytes']:,}" if "bytes" in own[0] else "",
        )
    return result


if __name__ == "__main__":
    main()
