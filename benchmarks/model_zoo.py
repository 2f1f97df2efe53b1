"""What becomes of more than a hundred architectures in every technique, and beside TensorFlow's own converter.

KERAS_BACKEND=tensorflow python benchmarks/model_zoo.py
KERAS_BACKEND=tensorflow python benchmarks/model_zoo.py --models vit mini_gpt --cells int8 --again

Each cell runs in a process of its own, with a limit of time. Results are kept as they come: what is there is not run
again without `--again`. KerasHub's backbones and keras_rs's recommenders want
`pip install --no-deps keras-hub keras-rs regex kagglehub kagglesdk tokenizers sentencepiece`, also into a folder on the
PYTHONPATH; without, these are left out.
"""

import collections
import concurrent.futures
import json
import os
import pathlib
import sys
import tempfile
import threading
import time

from _common import RESULTS, Table, environment, write_results
from _common import parser as common_parser
from _forked import Workshop
from _zoo_cells import CELLS, judged_beside_stock

QUICK = ("text_transformer", "convmixer", "wide_and_deep")
SLOWER = 1.05  # latencies closer than this are equal: the same file varies by as much
ASKED_OK = 0.95


def main():
    arguments = _arguments()
    started = time.monotonic()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")
    with Workshop("_zoo_cells", arguments.backend) as workshop:
        rows, missing = workshop.call("names").value
        architectures = _chosen(rows, arguments)
        print(f"{len(architectures)} architectures, cells: {', '.join(arguments.cells)}", flush=True)
        for module, reason in missing.items():
            print(f"left out: {module} ({reason})", flush=True)
    store = _Store(arguments)
    jobs = [
        (name, cell, factor)
        for name, _, _, backends, _, factor in architectures
        for cell in arguments.cells
        if arguments.backend in backends and (arguments.again or not store.has(name, cell))
    ]
    print(f"{len(jobs)} cells to run", flush=True)
    _run(jobs, arguments, store, rows)
    values = {"environment": environment(arguments.backend), "models": store.of(rows)}
    values["environment"]["keras-mot commit"] = _commit()
    summary = summarised(values["models"])
    values["summary"] = summary
    write_results(arguments, _file_name(arguments), values, _tables(values["models"], summary))
    print(f"{time.monotonic() - started:.0f} s")
    for line in _told(summary):
        print(line)


def _arguments():
    parser = common_parser(__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", help="names of architectures, or of domains; by default all")
    parser.add_argument("--cells", nargs="+", choices=CELLS, default=list(CELLS))
    parser.add_argument("--workers", type=int, default=1, help="cells that run at once; latencies want one")
    parser.add_argument("--backend", default=os.environ.get("KERAS_BACKEND", "tensorflow"))
    parser.add_argument("--again", action="store_true", help="run also what has a result")
    parser.add_argument("--limit", type=float, default=240.0, help="seconds of a cell")
    parser.add_argument("--not-ok", action="store_true", help="run again what has a result other than ok")
    arguments = parser.parse_args()
    if arguments.quick and not arguments.models:
        arguments.models = list(QUICK)
    return arguments


def _chosen(rows, arguments):
    if not arguments.models:
        return rows
    wanted = set(arguments.models)
    unknown = wanted - {row[0] for row in rows} - {row[1] for row in rows}
    if unknown:
        known = ", ".join(row[0] for row in rows)
        sys.exit(f"No such architectures or domains: {', '.join(sorted(unknown))}. There are: {known}")
    return [row for row in rows if row[0] in wanted or row[1] in wanted]


class _Store:
    """Results by model and cell, written after each cell, so that a broken run goes on where it was."""

    def __init__(self, arguments):
        base = arguments.output or (None if arguments.quick else RESULTS)
        self._path = base / f"{_file_name(arguments)}.json" if base else None
        self._not_ok, self._lock, self._before = arguments.not_ok, threading.Lock(), {}
        if self._path and self._path.is_file():
            self._before = json.loads(self._path.read_text())["models"]
        self.results = collections.defaultdict(dict, {name: model["cells"] for name, model in self._before.items()})

    def has(self, name, cell):
        found = self.results.get(name, {}).get(cell)
        return found is not None and not (self._not_ok and found["status"] != "ok")

    def put(self, name, cell, result, rows):
        with self._lock:
            self.results[name][cell] = result
            if self._path:
                self._path.parent.mkdir(parents=True, exist_ok=True)
                part = self._path.with_suffix(".part")
                part.write_text(json.dumps({"models": self.of(rows)}, default=float))
                part.replace(self._path)

    def of(self, rows):
        """What there is of the architectures that the rows name, and of those whose packages are missing now."""
        found = {
            row[0]: {"domain": row[1], "traits": row[2], "cells": self.results[row[0]]}
            for row in rows
            if self.results.get(row[0])
        }
        return found | {name: model for name, model in self._before.items() if name not in found}


def _run(jobs, arguments, store, rows):
    """All cells; each worker has a process that forks, opened anew after some cells, since what it holds may change."""
    done = collections.Counter()

    def work(part, kept):
        with Workshop("_zoo_cells", arguments.backend) as workshop:
            for name, cell, factor in part:
                outcome = workshop.call("cell", name, cell, {"kept": kept}, kill_after=arguments.limit * factor)
                result = outcome.value or _broken(outcome, arguments.limit * factor)
                result["wall"] = round(outcome.seconds, 1)
                if cell == "int8" and arguments.backend == "tensorflow":
                    result = _beside_stock(workshop, name, result, arguments, factor, kept)
                store.put(name, cell, result, rows)
                done["all"] += 1
                note = f"{result['status']}{': ' if result['reason'] else ''}{result['reason'][:150]}"
                print(f"[{done['all']}/{len(jobs)}] {name} {cell} ({result['wall']} s): {note}", flush=True)

    parts = [jobs[start :: arguments.workers] for start in range(arguments.workers)]
    with tempfile.TemporaryDirectory() as kept, concurrent.futures.ThreadPoolExecutor(arguments.workers) as pool:
        list(pool.map(lambda part: work(part, kept), [part for part in parts if part]))


def _beside_stock(workshop, name, result, arguments, factor, kept):
    """Runs the stock converter in a process that it may end, and adds what it gave to our own result."""
    outcome = workshop.call("cell", name, "stock", {"kept": kept}, kill_after=arguments.limit * factor)
    stock = outcome.value or _broken(outcome, arguments.limit * factor)
    result["figures"]["stock"] = f"{stock['status']}: {stock['reason'][:160]}"
    result["figures"] |= stock["figures"]
    result["seconds"] |= {key: stock["seconds"][key] for key in ("stock",) if key in stock["seconds"]}
    return judged_beside_stock(result, stock)


def _broken(outcome, limit):
    """What a cell that returned nothing has come to."""
    steps = [line.removeprefix("step ") for line in outcome.text.splitlines() if line.startswith("step ")]
    step = steps[-1] if steps else "start"
    if outcome.seconds >= limit:
        status, reason = "too slow", f"{step}: more than {limit:.0f} s"
    else:
        status, reason = "wrong", f"{step}: the process ended with {outcome.code}: {outcome.last_line[:300]}"
    return {"status": status, "reason": reason, "place": "", "seconds": {}, "memory_mib": 0, "figures": {}}


def summarised(models):
    """Shares of each status by cell, what is wrong, and how the files compare with the stock converter's."""
    counts = {cell: collections.Counter() for cell in CELLS}
    for model in models.values():
        for cell, result in model["cells"].items():
            counts[cell][result["status"]] += 1
    total = sum((counter for counter in counts.values()), collections.Counter())
    figures = {name: m["cells"]["int8"]["figures"] for name, m in models.items() if "int8" in m["cells"]}
    stock = {name: f for name, f in figures.items() if "stock_floats" in f and "floats" in f}
    placed = {name: f.get("integer_floats", f["floats"]) for name, f in stock.items()}
    timed = {name: f["latency_ms"] for name, f in figures.items() if {"int8", "stock"} <= set(f.get("latency_ms", ()))}
    return {
        "models": len(models),
        "by cell": {cell: dict(counter) for cell, counter in counts.items()},
        "all": dict(total),
        "ok": total["ok"] / max(1, total.total()),
        "ok or no more floats than stock": (
            total["ok"]
            + sum(
                m["cells"].get("int8", {}).get("status") == "floats listed"
                and len(placed[n]) <= len(stock[n]["stock_floats"])
                for n, m in models.items()
                if n in placed
            )
        )
        / max(1, total.total()),
        "wrong": [f"{n} {c}" for n, m in models.items() for c, r in m["cells"].items() if r["status"] == "wrong"],
        "beside stock": len(stock),
        "more floats than stock": {
            name: [len(placed[name]), len(f["stock_floats"])]
            for name, f in stock.items()
            if len(placed[name]) > len(f["stock_floats"])
        },
        "slower than stock": {
            name: round(t["int8"] / t["stock"], 2) for name, t in timed.items() if t["int8"] > SLOWER * t["stock"]
        },
        "slower than float": {
            name: round(t["int8"] / t["float"], 2)
            for name, t in timed.items()
            if "float" in t and t["int8"] > SLOWER * t["float"]
        },
        "timed": len(timed),
    }


def _told(summary):
    verdict = "met" if summary["ok"] >= ASKED_OK else "missed"
    yield f"ok in {summary['ok']:.1%} of cells (asked: {ASKED_OK:.0%}): {verdict}; {summary['all']}"
    for cell, counter in summary["by cell"].items():
        count = sum(counter.values())
        if count:
            yield f"  {cell}: {counter.get('ok', 0) / count:.1%} ok of {count}; {counter}"
    yield f"with floats listed that are no more than stock's: {summary['ok or no more floats than stock']:.1%}"
    yield f"wrong results (asked: none): {len(summary['wrong'])} {summary['wrong']}"
    yield f"more operators in floats than stock: {len(summary['more floats than stock'])} of {summary['beside stock']}"
    yield f"  (ours, stock): {summary['more floats than stock']}"
    for other in ("stock", "float"):
        slower = summary[f"slower than {other}"]
        yield f"slower than {other}: {len(slower)} of {summary['timed']}: {slower}"


def _tables(models, summary):
    cells = Table(
        "Architectures and techniques",
        ("model", "domain", *CELLS),
        notes=tuple(_told(summary)),
    )
    figures = Table(
        "Integer files beside the stock converter's",
        (
            *("model", "SNR, dB", "stock, dB", "same decisions", "in floats", "placement=integer", "stock"),
            *("float, ms", "int8, ms", "stock, ms", "stock / int8", "quantize, s", "export, s", "stock, s", "MiB"),
        ),
        notes=(
            "Latency: one sample, one thread, medians of interleaved runs, by the thread's own time where a cell has "
            "`latency_clock`, otherwise by the wall's. MiB: what the cell takes beside imports.",
        ),
    )
    reasons = Table("What is not ok", ("model", "cell", "status", "reason"))
    costs = Table("Seconds and MiB of each cell", ("model", *CELLS))
    for name, model in models.items():
        cells.add(name, model["domain"], *(_short(model["cells"].get(cell)) for cell in CELLS))
        costs.add(name, *(_cost(model["cells"].get(cell)) for cell in CELLS))
        for cell, result in model["cells"].items():
            if result["status"] != "ok":
                reasons.add(name, cell, result["status"], result["reason"].replace("\n", " ").replace("|", "/")[:300])
        if "int8" in model["cells"]:
            figures.add(name, *_figures(model["cells"]["int8"]))
    return [cells, figures, costs, reasons]


def _short(result):
    if result is None:
        return ""
    if result["status"] == "floats listed":
        return f"{len(result['figures'].get('listed', ()))} in floats"
    return result["status"]


def _cost(result):
    return "" if result is None else f"{result['wall']:.0f} s, {result['memory_mib']}"


def _figures(result):
    f, times, seconds = result["figures"], result["figures"].get("latency_ms", {}), result["seconds"]

    def count(key):
        return str(len(f[key])) if key in f else ""

    def shown(value, pattern):
        return "" if value is None else format(value, pattern)

    ratio = times["stock"] / times["int8"] if {"stock", "int8"} <= set(times) else None
    return (
        shown(f.get("snr"), ".1f"),
        shown(f.get("stock_snr"), ".1f"),
        shown(f.get("agreement"), ".1%"),
        count("floats"),
        count("integer_floats"),
        count("stock_floats") or str(f.get("stock", ""))[:60].replace("|", "/").replace("\n", " "),
        *(shown(times.get(kind), ".3f") for kind in ("float", "int8", "stock")),
        shown(ratio, ".2f"),
        *(shown(seconds.get(step), ".1f") for step in ("quantize", "export", "stock")),
        str(result["memory_mib"]),
    )


def _file_name(arguments):
    return f"model_zoo_{arguments.backend}"


def _commit():
    import subprocess

    root = pathlib.Path(__file__).resolve().parent
    ended = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=root, capture_output=True, text=True)
    return ended.stdout.strip() or None


if __name__ == "__main__":
    main()
