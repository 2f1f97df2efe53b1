"""Pages of the site that are made of files elsewhere in the repository: README, benchmarks, examples, docstrings.

MkDocs calls these functions by their names (https://www.mkdocs.org/user-guide/plugins/#events).
"""

import ast
import importlib.util
import pathlib
import re

from mkdocs.structure.files import File

ROOT = pathlib.Path(__file__).resolve().parents[2]
PAGES = {
    "README.md": "index.md",
    "CHANGELOG.md": "changes.md",
    "CONTRIBUTING.md": "contributing.md",
    "benchmarks/README.md": "benchmarks.md",
    "benchmarks/RESULTS.md": "results.md",
    "benchmarks": "benchmarks.md",
    "examples": "examples.md",
}
"""Files and folders of the repository, and the pages of the site that hold them."""


def on_config(config):
    """Adds a page of reference for each room."""
    for entry in config.nav:
        if "Reference" in entry:
            entry["Reference"] = [{f"keras_mot.{room}": f"reference/{room}.md"} for room in _rooms()]
    return config


def on_files(files, config):
    """Adds the pages."""
    made = {page: (ROOT / source).read_text() for source, page in PAGES.items() if source.endswith(".md")}
    made["examples.md"] = _examples()
    made |= {f"reference/{room}.md": _reference(room) for room in _rooms()}
    for page, text in made.items():
        source = next((source for source, name in PAGES.items() if name == page and source.endswith(".md")), "")
        files.append(File.generated(config, page, content=_with_links(text, pathlib.PurePosixPath(source).parent)))
    notebooks = _notebooks()
    for path in notebooks.examples():
        text = notebooks.as_json(notebooks.notebook(path))
        files.append(File.generated(config, f"notebooks/{path.stem}.ipynb", content=text))
    for path in (ROOT / "benchmarks" / "results").glob("*.png"):
        files.append(File.generated(config, f"benchmarks/results/{path.name}", abs_src_path=str(path)))
    return files


def on_page_markdown(markdown, page, config, files):
    """Makes links to the files that have become pages lead there."""
    if page.file.generated_by is not None:
        return markdown
    return _with_links(markdown, pathlib.PurePosixPath("docs"))


def _with_links(text, folder):
    """The text of a file in a folder of the repository, with its links as they are on the site."""

    def link(match):
        path, hash_sign, anchor = match[1].partition("#")
        if not path or ":" in path:
            return match[0]
        target = _normal(folder / path)
        page = PAGES.get(target, target.removeprefix("docs/"))
        return f"]({page}{hash_sign}{anchor})"

    return re.sub(r"\]\(([^)\s]+)\)", link, text)


def _normal(path):
    parts = []
    for part in path.parts:
        if part == "..":
            parts.pop()
        else:
            parts.append(part)
    return "/".join(parts)


def _rooms():
    """The rooms of the package, as `keras_mot.__all__` lists them."""
    names = _literal(ROOT / "keras_mot" / "__init__.py", "__all__")
    return [name for name in names if (ROOT / "keras_mot" / name / "__init__.py").is_file()]


def _literal(path, name):
    """The value of a constant of a module, which is not imported."""
    for statement in ast.parse(path.read_text()).body:
        if isinstance(statement, ast.Assign) and getattr(statement.targets[0], "id", None) == name:
            return ast.literal_eval(statement.value)
    raise LookupError(f"{path} has no {name}.")


def _reference(room):
    """The page of a room; functions that are called like their modules, and modules, are written by themselves."""
    names = _literal(ROOT / "keras_mot" / room / "__init__.py", "__all__")
    folder = ROOT / "keras_mot" / room
    functions = [name for name in names if (folder / f"{name}.py").is_file()]
    modules = [name for name in names if (folder / name / "__init__.py").is_file() and name not in functions]
    modules = [name for name in modules if _has_literal(folder / name / "__init__.py", "__all__")]
    own = [name for name in names if name not in functions + modules]
    parts = [f"# keras_mot.{room}\n\n::: keras_mot.{room}\n    options:\n{_members(own)}"]
    shown = "    options:\n      show_root_heading: true\n      show_root_toc_entry: true\n"
    parts += [f"::: keras_mot.{room}.{name}.{name}\n{shown}" for name in functions]
    for name in modules:
        inner = _literal(folder / name / "__init__.py", "__all__")
        parts.append(f"::: keras_mot.{room}.{name}\n{shown}      heading_level: 2\n{_members(inner)}")
    return "\n".join(parts)


def _members(names):
    return "      members:\n" + "".join(f"        - {name}\n" for name in names)


def _has_literal(path, name):
    try:
        return bool(_literal(path, name))
    except LookupError:
        return False


def _notebooks():
    """The module `docs/notebooks.py`."""
    spec = importlib.util.spec_from_file_location("keras_mot_notebooks", ROOT / "docs" / "notebooks.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _examples():
    parts = ["# Examples\n\nEach runs as it stands, from `examples/` of the repository; the suite runs all of them.\n"]
    for path in sorted((ROOT / "examples").glob("*.py")):
        text = path.read_text()
        about = ast.get_docstring(ast.parse(text))
        link = f"[As a notebook](notebooks/{path.stem}.ipynb)"
        parts.append(f"## {path.name}\n\n{about}\n\n{link}\n\n```python\n{text.strip()}\n```\n")
    return "\n".join(parts)
