"""Installs the built wheel with one backend in fresh environments, and tries in each what works without any extra.

`python benchmarks/fresh_install.py --pythons python3.11 python3.12 python3.13`. It needs the network, and some
gigabytes of disk for a while.
"""

import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time

from _common import BACKENDS, RESULTS, ROOT, Table, environment, parser, write_results

LARGEST = 1_000_000
_NOT_INHERITED = ("PYTHONPATH", "PYTHONDONTWRITEBYTECODE", "KERAS_BACKEND")
PACKAGES = {"tensorflow": ("tensorflow-cpu", "tensorflow"), "jax": ("jax",), "torch": ("torch",)}

_TRIAL = """
import json, os, sys, tempfile
import keras_mot as kmot  # before Keras, whose backend it sets to the one that is installed
import keras
import numpy as np

keras.utils.set_random_seed(0)
others = [name for name in ("tensorflow", "jax", "torch") if name != keras.backend.backend()]
done = {"backend": keras.backend.backend(), "keras": keras.__version__}
x = np.random.default_rng(0).normal(size=(256, 8, 8, 1)).astype("float32")
y = (x.mean((1, 2, 3)) > 0).astype("int32")
model = keras.Sequential([
    keras.Input((8, 8, 1)), keras.layers.Conv2D(8, 3, activation="relu"),
    keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(2, activation="softmax"),
])

def train(model):
    model.compile("adam", "sparse_categorical_crossentropy")
    model.fit(x, y, epochs=1, batch_size=32, verbose=0)
    return model

pruned = train(kmot.sparsity.prune_low_magnitude(model, kmot.sparsity.ConstantSparsity(0.5, 0)))
clustered = train(kmot.clustering.cluster_weights(pruned, 4))
quantized = train(kmot.quantization.quantize_model(clustered, calibration_data=x[:64]))
plain = kmot.quantization.quantize_post_training(model, calibration_data=x[:64])
with tempfile.TemporaryDirectory() as folder:
    path = os.path.join(folder, "model.keras")
    quantized.save(path)
    again = keras.models.load_model(path)
    assert np.allclose(again.predict(x, verbose=0), quantized.predict(x, verbose=0), atol=1e-6)
    kmot.clustering.strip_clustering(clustered).save(path)
    print(keras.models.load_model(path).layers[0].name)
    try:
        kmot.export.export_litert(plain, os.path.join(folder, "model.tflite"))
        done["export"] = "works"
    except ImportError as error:
        done["export"] = str(error)
done["others"] = [name for name in others if name in sys.modules]
print("RESULT " + json.dumps(done))
"""


def built_wheel(folder):
    """The wheel of the checkout, built from what it has."""
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(folder), str(ROOT)]
    subprocess.run(command, check=True)
    return next(pathlib.Path(folder).glob("keras_mot-*.whl"))


def try_in(python, backend, wheel, folder):
    """The record of one environment: what was installed, and what came of the trial."""
    place = pathlib.Path(folder) / f"{pathlib.Path(python).name}-{backend}"
    record = {"python": python, "backend": backend, "outcome": "works", "export": "", "seconds": 0.0}
    started = time.perf_counter()
    variables = {name: value for name, value in os.environ.items() if name not in _NOT_INHERITED}
    variables |= {"KERAS_HOME": str(place / "keras"), "TF_CPP_MIN_LOG_LEVEL": "3"}

    def run(*words):
        # Away from the checkout, whose folder would be imported instead of the wheel.
        return subprocess.run(words, capture_output=True, text=True, cwd=place.parent, env=variables)

    inside = place / ("Scripts" if os.name == "nt" else "bin")
    steps = {
        "venv": [python, "-m", "venv", str(place)],
        "install": [str(inside / "python"), "-m", "pip", "install", "--quiet", "--no-compile", f"{wheel}[{backend}]"],
        "trial": [str(inside / "python"), "-c", _TRIAL],
        "doctor": [str(inside / "keras-mot"), "doctor"],
        "version": [str(inside / "keras-mot"), "--version"],
    }
    for name, words in steps.items():
        ended = run(*words)
        if ended.returncode and name != "doctor":  # which ends with 1 where something is missing
            record["outcome"] = f"{name} failed: {(ended.stderr.strip().splitlines() or ['no message'])[-1]}"
            print(ended.stdout[-2000:], ended.stderr[-4000:], sep="\n", file=sys.stderr)
            break
        if name == "trial":
            line = next(line for line in ended.stdout.splitlines() if line.startswith("RESULT "))
            record |= json.loads(line.removeprefix("RESULT "))
        if name == "doctor" and "Traceback" in ended.stderr:
            record["outcome"] = "doctor failed"
    record["seconds"] = round(time.perf_counter() - started, 1)
    installed = []
    if (inside / "python").exists():  # else there is no such Python
        installed = json.loads(run(str(inside / "python"), "-m", "pip", "list", "--format", "json").stdout or "[]")
    versions = {each["name"].lower().replace("_", "-"): each["version"] for each in installed}
    record["versions"] = {name: versions[name] for name in PACKAGES[backend] if name in versions}
    return record


def environment_of(record):
    """(Python, backend) that a record is of."""
    return pathlib.Path(record["python"]).name, record["backend"]


def kept(arguments):
    """The records of earlier calls."""
    path = (arguments.output or RESULTS) / "fresh_install.json"
    return json.loads(path.read_text())["rows"] if path.exists() else []


def show(arguments, size, records):
    """Prints and writes what there is, after each environment."""
    note = f"The wheel has {size:,} bytes; asked: at most {LARGEST:,}."
    headers = ("Python", "backend", "outcome", "export", "s")
    table = Table("The wheel in fresh environments, with one backend and no other extra", headers, notes=(note,))
    for record in records:
        installed = " ".join(f"{name} {version}" for name, version in record["versions"].items())
        name = pathlib.Path(record["python"]).name
        table.add(name, installed or record["backend"], record["outcome"], record["export"], record["seconds"])
    values = {"environment": environment("-"), "wheel_bytes": size, "rows": records}
    write_results(arguments, "fresh_install", values, [table])


def main():
    arguments = parser(__doc__.splitlines()[0])
    arguments.add_argument("--pythons", nargs="+", default=[sys.executable], metavar="PYTHON")
    arguments.add_argument("--backends", nargs="+", choices=BACKENDS, default=list(BACKENDS))
    arguments.add_argument("--add", action="store_true", help="keep what was found in other environments before")
    arguments = arguments.parse_args()
    pythons, backends = (
        (arguments.pythons[:1], arguments.backends[:1]) if arguments.quick else (arguments.pythons, arguments.backends)
    )
    with tempfile.TemporaryDirectory() as folder:
        wheel = built_wheel(folder)
        size = wheel.stat().st_size
        earlier, records = kept(arguments) if arguments.add else [], []
        for python in pythons:
            for backend in backends:
                with tempfile.TemporaryDirectory() as place:
                    records.append(try_in(python, backend, wheel, place))
                tried = {environment_of(record) for record in records}
                others = [record for record in earlier if environment_of(record) not in tried]
                show(arguments, size, sorted(others + records, key=environment_of))
    return 1 if size > LARGEST or any(record["outcome"] != "works" for record in records) else 0


if __name__ == "__main__":
    sys.exit(main())
