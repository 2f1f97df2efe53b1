"""What `recipes.search` finds from a budget alone, beside recipes that were made by hand.

KERAS_BACKEND=tensorflow python benchmarks/search.py mnist
KERAS_BACKEND=tensorflow python benchmarks/search.py resnet8 ds_cnn_l --minutes 20 --folder /tmp/searches

Trials are compared on a part of the training data that nothing is trained on; the test set comes last.
A search that was stopped goes on in the folder.
"""

import dataclasses
import pathlib
import tempfile
import time

import keras
import numpy as np
from _common import Table, environment, write_results
from _common import parser as common_parser
from quantization_accuracy import TASKS

from keras_mot.analysis import measure
from keras_mot.recipes import Budget, FineTune, search


@dataclasses.dataclass(frozen=True)
class Asked:
    """A budget, what the best file must reach on the test set, and how stages train.

    Args:
        budget: of the search.
        drop: the asked largest loss of accuracy on the test set.
        fine_tune: as of `search`.
    """

    budget: Budget
    drop: float
    fine_tune: FineTune


ASKED = {
    "mnist": Asked(Budget(zipped=60_000), 0.0013, FineTune(4, 1e-3, schedule="cosine")),
    "resnet8": Asked(Budget(zipped=40_000), 0.010, FineTune(12, 1e-3, schedule="cosine")),
    "ds_cnn_l": Asked(Budget(zipped=120_000), 0.007, FineTune(40, 1e-3, schedule="cosine", batch_size=32)),
}
_VALIDATION = 0.1


def main():
    parser = common_parser(__doc__.splitlines()[0])
    parser.add_argument("tasks", nargs="*", default=["mnist"], help=f"of {', '.join(ASKED)}")
    parser.add_argument("--trials", type=int, default=60)
    parser.add_argument("--minutes", type=float, help="of each search; all trials by default")
    parser.add_argument("--families", help="some of them, with commas between; all by default")
    parser.add_argument("--folder", type=pathlib.Path, help="of the searches, to go on with them")
    parser.add_argument("--executor", default="local", choices=("local", "processes", "ray"))
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    for name in arguments.tasks:
        if name not in ASKED:
            parser.error(f"there is no task {name!r}; there are: {', '.join(ASKED)}")
        _run(name, arguments)


def _run(name, arguments):
    asked, task = ASKED[name], TASKS[name]()
    train, validation = _parts(task, arguments)
    test = task.test
    if task.prepared is not None:
        # The keyword clips that come for training are few: half of the speakers' clips of the test set train instead.
        (train, validation), test = _of_test(task), _rest_of_test(task)
    fine_tune, trials = asked.fine_tune, arguments.trials
    if arguments.quick:
        train, validation = [(x[:512], y[:512]) for x, y in (train, validation)]
        fine_tune, trials = dataclasses.replace(fine_tune, epochs=1), 3
    model = task.model
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=task.from_logits)
    settings = {} if arguments.executor != "local" else {"loss": loss}
    folder = arguments.folder or pathlib.Path(tempfile.mkdtemp(prefix="search_"))
    started = time.perf_counter()
    result = search(
        model,
        train,
        validation,
        budget=asked.budget,
        output_dir=folder / name,
        trials=trials,
        time_limit=None if arguments.minutes is None else 60 * arguments.minutes,
        families=arguments.families.split(",") if arguments.families else None,
        fine_tune=fine_tune,
        executor=arguments.executor,
        seed=arguments.seed,
        latency_runs=0,
        **settings,
    )
    seconds = time.perf_counter() - started
    print(result)
    files = {trial.number: next(trial.folder.glob("*.tflite"), None) for trial in result.front}
    on_test = {
        number: measure({"file": sorted(result.trials[number].folder.glob("*.tflite"))[-1]}, data=test)["file"].metric
        for number, file in files.items()
        if file is not None
    }
    float_accuracy = measure({"file": result.stages[0].artifact}, data=test)["file"].metric
    table = Table(
        f"{name}: {asked.budget}; asked: at most {asked.drop:.2%} below float on the test set",
        ("trial", "recipe", "epochs", "bytes", "zipped", "validation", "test", "below float"),
        notes=(
            f"Float: {float_accuracy:.2%} on the test set. {len(result.trials)} trials, {result.seconds:.0f} s in all, "
            f"{seconds:.0f} s in this call.",
        ),
    )
    for trial in result.front:
        if trial.number not in on_test:
            continue
        accuracy = on_test[trial.number]
        table.add(
            f"{trial.number}{' (best)' if trial == result.best_trial else ''}",
            trial.family,
            trial.epochs,
            f"{trial.bytes:,}",
            f"{trial.zipped:,}",
            f"{trial.metric:.2%}",
            f"{accuracy:.2%}",
            f"{100 * (float_accuracy - accuracy):.2f}",
        )
    values = {
        "environment": environment(),
        "budget": dataclasses.asdict(asked.budget),
        "asked_drop": asked.drop,
        "fine_tune": dataclasses.asdict(fine_tune),
        "float_accuracy": float_accuracy,
        "test_accuracy": on_test,
        "met": result.met,
        "seconds_of_this_call": seconds,
        "search": result.to_dict(),
    }
    write_results(arguments, f"search_{name}", values, [table])


def _parts(task, arguments):
    """The training data, and a part of it to compare trials on."""
    x, y = task.train
    order = np.random.default_rng(arguments.seed).permutation(len(x))
    held = int(_VALIDATION * len(x))
    return tuple((x[part], y[part]) for part in (np.sort(order[held:]), np.sort(order[:held])))


def _speakers(task):
    """Which clips of the test set train (0), choose (1) and test (2): by speaker."""
    from _common import loaders

    speakers = loaders().keyword_spotting()["speaker"]
    names = np.unique(speakers)
    fold = dict(zip(names, np.random.default_rng(0).permutation(len(names)) * 10 // len(names), strict=True))
    return np.array([0 if fold[each] < 5 else 1 if fold[each] < 6 else 2 for each in speakers])


def _of_test(task):
    (x, y), fold = task.test, _speakers(task)
    return (x[fold == 0], y[fold == 0]), (x[fold == 1], y[fold == 1])


def _rest_of_test(task):
    (x, y), fold = task.test, _speakers(task)
    return x[fold == 2], y[fold == 2]


if __name__ == "__main__":
    main()
