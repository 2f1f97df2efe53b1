"""YAML from elsewhere, as nodes: its size, its depth, and what its aliases stand for are limited."""

import os
import pathlib

import yaml

from keras_mot._messages import shortened

# A recipe with all its settings has some kilobytes.
_LARGEST, _DEEPEST = 50_000, 20


def read_text(path: str | os.PathLike) -> str:
    """The text of a recipe's file.

    Raises:
        FileNotFoundError: if there is no such file.
        OSError: if it cannot be read.
        ValueError: if it is too large for a recipe, or is not text in UTF-8.
    """
    with pathlib.Path(path).open("rb") as file:
        content = file.read(_LARGEST + 1)
    if len(content) > _LARGEST:
        raise ValueError(f"{path}: the file has more than {_LARGEST:,} bytes, too many for a recipe.")
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ValueError(
            f"{path}:{line}: this is not text in UTF-8 (byte 0x{content[error.start]:02x}). Save the file as UTF-8."
        ) from error


def compose(text: str, name: str) -> yaml.Node | None:
    """The tree of nodes of a text; `None` if there is nothing in it.

    Args:
        text: YAML.
        name: of the file, for messages.

    Raises:
        ValueError: if the text is no YAML, or more than a recipe could be; the message names the line.
    """
    if len(text) > _LARGEST:
        raise ValueError(f"{name}: the text has more than {_LARGEST:,} characters, too many for a recipe.")
    try:
        node = yaml.compose(text, Loader=_Loader)
    except yaml.YAMLError as error:
        mark, position = getattr(error, "problem_mark", None), getattr(error, "position", None)
        line = mark.line + 1 if mark else text.count("\n", 0, position) + 1 if position is not None else None
        problem = getattr(error, "problem", None) or getattr(error, "reason", None) or error
        raise ValueError(f"{name}{f':{line}' if line else ''}: this is no YAML: {shortened(problem)}.") from error
    if node is not None:
        _check_size(node, name, {})
    return node


class _Loader(yaml.SafeLoader):
    """Stops where nodes are nested too deeply, before Python does."""

    _depth = 0

    def compose_node(self, parent, index):
        self._depth += 1
        if self._depth > _DEEPEST:
            problem = f"it is nested more than {_DEEPEST} deep, which no recipe is"
            raise yaml.MarkedYAMLError(None, None, problem, self.peek_event().start_mark)
        node = super().compose_node(parent, index)
        self._depth -= 1
        return node


def _check_size(node, name, sizes):
    """Returns how many characters `node` stands for; raises a ValueError if there are too many, or no end of them.

    Args:
        node: of YAML. An alias is the very node that it stands for.
        name: of the file.
        sizes: dictionary of the sizes that are known, by the `id` of the node; 0 while one is looked at.
    """
    if id(node) in sizes:
        if not sizes[id(node)]:
            raise ValueError(f"{name}:{node.start_mark.line + 1}: this value holds itself, by an alias.")
        return sizes[id(node)]
    sizes[id(node)] = 0
    if isinstance(node, yaml.ScalarNode):
        total = 1 + len(node.value)
    else:
        parts = node.value if isinstance(node, yaml.SequenceNode) else [part for pair in node.value for part in pair]
        total = 1 + sum(_check_size(part, name, sizes) for part in parts)
    if total > 2 * _LARGEST:
        line = node.start_mark.line + 1
        raise ValueError(
            f"{name}:{line}: this stands for {total:,} characters with all its aliases, too many for a recipe."
        )
    sizes[id(node)] = total
    return total
