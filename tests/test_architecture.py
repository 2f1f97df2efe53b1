"""What the architecture guide says of all of the code: rooms, their order, the wall around Keras, sizes of files.

Each check reads the sources. It is tested itself, on a few lines that break its rule.
"""

import ast
import functools
import pathlib
import re

import keras
import pytest

from keras_mot import _keras

pytestmark = pytest.mark.backend_independent

ROOT = pathlib.Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "keras_mot"
# A room imports from those above it only; rooms of one line do not import from each other.
ORDER = (
    ("data",),
    ("transforms",),
    ("layers",),
    ("graph",),
    ("second_order",),
    ("sparsity", "clustering"),
    ("targets",),
    ("quantization",),
    ("export", "tfmot", "low_rank"),
    ("analysis",),
    ("recipes",),
    ("cli",),
)
LONGEST_FILE, LONGEST_TEST = 400, 600

# What is still to be mended: (check, file, name). An entry that is not needed any more fails, too.
EXCEPTIONS = set()


@functools.cache
def parsed():
    return [
        (path.relative_to(PACKAGE).as_posix(), ast.parse(path.read_text())) for path in sorted(PACKAGE.rglob("*.py"))
    ]


def sources(without=()):
    """(path below the package, syntax tree) of each file."""
    return [(file, tree) for file, tree in parsed() if not file.startswith(tuple(without))]


def check(rule, find, without=()):
    """Applies a function from (file, syntax tree) to names that break a rule, and compares with the exceptions."""
    found = {}
    for file, tree in sources(without=without):
        for name, line in find(file, tree):
            found.setdefault((rule, file, name), []).append(line)
    known = {entry for entry in EXCEPTIONS if entry[0] == rule}
    places = [f"keras_mot/{file}, lines {found[rule, file, name]}: {name}" for _, file, name in set(found) - known]
    assert not places, "\n".join([f"{rule}:", *sorted(places)])
    assert not known - set(found), f"these exceptions are needed no more: {sorted(known - set(found))}"


# --- Keras behind a wall


@functools.cache
def private_names_of_keras():
    """The names with a leading underscore that classes and modules of the installed Keras define or set."""
    definition = re.compile(r"(?:self\.|cls\.|\bdef |^    |^)(_[a-z]\w*)\b", re.MULTILINE)
    files = [file for file in (pathlib.Path(keras.__file__).parent / "src").rglob("*.py") if "_test" not in file.name]
    assert len(files) > 100
    return frozenset(name for file in files for name in definition.findall(file.read_text()))


def own_private_names(tree):
    """The names with a leading underscore that a file itself defines or sets on `self`."""
    names = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and is_self(node.value):
            names.add(node.attr)
    return names


def is_self(node):
    return isinstance(node, ast.Name) and node.id in ("self", "cls")


def private_uses_of_keras(file, tree):
    """(name, line) of each use of a private name of Keras, and of each import of its private modules."""
    own = own_private_names(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            name = node.attr
            if name == "src" and isinstance(node.value, ast.Name) and node.value.id == "keras":
                yield "keras.src", node.lineno
        elif isinstance(node, ast.Call) and called_name(node) in ("getattr", "hasattr", "setattr", "delattr"):
            name = constant(node.args[1]) if len(node.args) > 1 else None
        elif isinstance(node, ast.Subscript):  # vars(layer)["_name"]
            name = constant(node.slice)
        elif isinstance(node, ast.ImportFrom | ast.Import):
            modules = [node.module or ""] if isinstance(node, ast.ImportFrom) else [each.name for each in node.names]
            yield from (("keras.src", node.lineno) for module in modules if f"{module}.".startswith("keras.src."))
            continue
        else:
            continue
        if isinstance(name, str) and name.startswith("_") and name in private_names_of_keras() - own:
            yield name, node.lineno


def called_name(call):
    return call.func.id if isinstance(call.func, ast.Name) else getattr(call.func, "attr", None)


def constant(node):
    return node.value if isinstance(node, ast.Constant) else None


def test_private_names_of_keras_are_used_behind_the_wall_only():
    check("private name of Keras", private_uses_of_keras, without=("_keras/",))


@pytest.mark.parametrize(
    ("line", "name"),
    [
        ("layer._losses.append(loss)", "_losses"),
        ("tensor._keras_history.operation", "_keras_history"),
        ("getattr(model, '_functional', None)", "_functional"),
        ("vars(layer)['_layers']", "_layers"),
        ("from keras.src.models.functional import Functional", "keras.src"),
        ("import keras.src.backend", "keras.src"),
        ("keras.src.saving", "keras.src"),
        ("class Mine(keras.layers.Layer):\n    def f(self):\n        return self._inbound_nodes", "_inbound_nodes"),
    ],
)
def test_a_private_name_is_found(line, name):
    assert [found for found, _ in private_uses_of_keras("", ast.parse(line))] == [name]


@pytest.mark.parametrize(
    "line",
    [
        "weight._stack_of_ours",
        "keras.layers.Dense",
        "class Mine:\n    def f(self, other):\n        self._model = 1\n        return other._model",
    ],
)
def test_what_is_public_or_of_the_file_itself_is_not_found(line):
    assert not list(private_uses_of_keras("", ast.parse(line)))


def test_each_function_of_the_wall_is_used():
    used = set()
    for _, tree in sources(without=("_keras/",)):
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("keras_mot._keras"):
                used.update(each.name for each in node.names)
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "_keras":
                used.add(node.attr)
    known = {name for rule, _, name in EXCEPTIONS if rule == "unused function of the wall"}
    assert set(_keras.__all__) - used == known


def test_each_function_of_the_wall_is_exported_or_used_within():
    files = {path: path.read_text() for path in (PACKAGE / "_keras").glob("*.py")}
    everything = "\n".join(files.values())
    defined = [
        node.name
        for path, text in files.items()
        for node in ast.parse(text).body
        if isinstance(node, ast.FunctionDef | ast.ClassDef)
    ]
    assert len(defined) > 20
    assert [name for name in defined if len(re.findall(rf"\b{name}\b", everything)) < 2] == []


# --- classes by themselves, not by their names


def class_name_comparisons(file, tree):
    """(expression, line) wherever the name of a class decides something."""
    for scope in [tree, *(node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef))]:
        named = {
            target.id
            for node in ast.walk(scope)
            if isinstance(node, ast.Assign) and is_class_name(node.value)
            for target in node.targets
            if isinstance(target, ast.Name) and scope is not tree
        }
        for node in ast.walk(scope):
            for part in deciding_parts(node):
                if (scope is tree and is_class_name(part)) or (isinstance(part, ast.Name) and part.id in named):
                    yield ast.unparse(part), node.lineno


def is_class_name(node):
    """Whether an expression is `type(x).__name__` or `x.__class__.__name__`."""
    if not (isinstance(node, ast.Attribute) and node.attr in ("__name__", "__qualname__")):
        return False
    of = node.value
    is_type = isinstance(of, ast.Call) and isinstance(of.func, ast.Name) and of.func.id == "type"
    return is_type or (isinstance(of, ast.Attribute) and of.attr == "__class__")


def deciding_parts(node):
    """The parts of a comparison, of a look-up, or of a text's test, by which it comes out as it does."""
    if isinstance(node, ast.Compare):
        parts = [node.left, *node.comparators]
    elif isinstance(node, ast.Subscript):
        parts = [node.slice]
    elif isinstance(node, ast.Match):
        parts = [node.subject]
    elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
        parts = [node.func.value] if node.func.attr in ("startswith", "endswith") else []
        parts += node.args[:1] if node.func.attr == "get" else []
    else:
        parts = []
    return [each for part in parts for each in (part.elts if isinstance(part, ast.Tuple | ast.Set) else [part])]


def test_no_name_of_a_class_is_compared():
    check("comparison of a class's name", class_name_comparisons)


@pytest.mark.parametrize(
    "line",
    [
        "type(x).__name__ == 'Stack'",
        "x.__class__.__name__ in KINDS",
        "TABLE[type(x).__name__]",
        "TABLE.get(type(x).__name__)",
        "type(x).__name__.endswith('Pooling')",
        "def f(x):\n    name = type(x).__name__\n    return name == 'Add'",
    ],
)
def test_a_comparison_is_found(line):
    assert list(class_name_comparisons("", ast.parse(line)))


def test_a_name_in_a_message_is_no_comparison():
    assert not list(class_name_comparisons("", ast.parse("raise TypeError(f'received {type(x).__name__}')")))


# --- rooms


def imported_modules(tree):
    """(module, line) of each import from the package; of `from a import b` both `a` and `a.b`."""
    for node in ast.walk(tree):
        names = []
        if isinstance(node, ast.Import):
            names = [each.name for each in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports from the package are absolute"
            names = [node.module, *(f"{node.module}.{each.name}" for each in node.names)]
        yield from ((name, node.lineno) for name in names if name.startswith("keras_mot."))


def room_of(file):
    """The room that a file lies in; `None` for a file beside the rooms."""
    return file.split("/")[0] if "/" in file else None


def private_modules(file, tree):
    """(module, line) of each import of an underscored module or name of another room."""
    for module, line in imported_modules(tree):
        _, room, *rest = module.split(".")
        if room != room_of(file) and any(part.startswith("_") for part in rest) and room in rooms():
            yield module, line


@functools.cache
def rooms():
    folders = {path.parent.name for path in PACKAGE.glob("*/__init__.py")} - {"_keras"}
    assert folders
    return folders


def imports_against_the_order(file, tree):
    """(module, line) of each import from a room that is not above that of the file."""
    places = {room: place for place, line in enumerate(ORDER) for room in line}
    own = room_of(file)
    for module, line in imported_modules(tree) if own in places else ():
        room = module.split(".")[1]
        if room in places and room != own and places[room] >= places[own]:
            yield f"keras_mot.{room}", line


def test_no_room_imports_what_is_private_to_another():
    check("private module of another room", private_modules)


def test_imports_point_one_way():
    assert rooms() <= {room for line in ORDER for room in line}, "a new room has its place in ORDER"
    check("import against the order of rooms", imports_against_the_order)


def test_imports_of_private_modules_are_found():
    line = "from keras_mot.layers import _weights"
    assert [name for name, _ in private_modules("graph/a.py", ast.parse(line))] == ["keras_mot.layers._weights"]
    assert not list(private_modules("layers/sub/a.py", ast.parse(line)))
    assert not list(private_modules("graph/a.py", ast.parse("from keras_mot._keras import call_of")))


def test_imports_against_the_order_are_found():
    line = "def f():\n    from keras_mot.quantization.schemes import INT8"
    assert {name for name, _ in imports_against_the_order("layers/a.py", ast.parse(line))} == {"keras_mot.quantization"}
    assert not list(imports_against_the_order("export/a.py", ast.parse(line)))


# --- sizes


@pytest.mark.parametrize(
    ("folder", "limit"), [("keras_mot", LONGEST_FILE), ("tests", LONGEST_TEST)], ids=["package", "tests"]
)
def test_files_can_be_read_in_one_sitting(folder, limit):
    lengths = {
        path.relative_to(ROOT).as_posix(): len(path.read_text().splitlines()) for path in (ROOT / folder).rglob("*.py")
    }
    assert lengths
    known = {entry[1:] for entry in EXCEPTIONS if entry[0] == "length"}
    assert {(file, folder) for file, length in lengths.items() if length > limit} == {
        entry for entry in known if entry[1] == folder
    }
