"""Recipes from elsewhere: refused with the file and the line, in bounded time, memory and length of the message."""

import pytest

from keras_mot.recipes import Recipe, find_recipe

pytestmark = pytest.mark.backend_independent


def setting(value):
    return f"stages:\n- prune:\n    sparsity: {value}\n".encode()


LAUGHS = "\n".join(
    [
        "stages:",
        "- prune:",
        "    a: &a0 [ha, ha, ha, ha, ha, ha, ha, ha, ha]",
        *(f"    a{number}: &a{number} [{', '.join([f'*a{number - 1}'] * 9)}]" for number in range(1, 10)),
        "    sparsity: *a9\n",
    ]
).encode()


@pytest.mark.parametrize(
    ("content", "line", "message"),
    [
        ("stages:\n- prune # dünn\n".encode("latin-1"), 2, "not text in UTF-8"),
        (bytes(range(256)), 2, "not text in UTF-8"),
        (b"stages:\n- prune\x00\n", 2, "this is no YAML"),
        (b"#" * 60_000, None, "more than 50,000 bytes"),
        (b"stages: " + b"[" * 20_000, 1, "nested more than 20 deep"),
        (b"".join(b" " * depth + b"a:\n" for depth in range(300)), 20, "nested more than 20 deep"),
        (LAUGHS, 7, "with all its aliases"),
        (b"stages: &s\n- *s\n", 1, "holds itself"),
        (b"stages:\n- prune:\n    sparsity: 0.5\n    sparsity: 0.9\n", 4, "'sparsity' is there twice"),
        (setting("!!python/object/apply:os.getpid []"), 3, "this value cannot be read"),
        (setting("2001-99-99"), 3, "this value cannot be read"),
        (setting("1" * 9000), 3, "this value cannot be read"),
        (setting('!!int ""'), 3, "this value cannot be read"),
        (setting("x" * 40_000), 3, "`sparsity` should be a number"),
        (b"stages:\n- ? [a]\n  : b\n", 2, "a key should be a name"),
        (b"? {a: b}\n: c\n", 1, "a key should be a name"),
        (b"stages:\n- " + b"x" * 40_000 + b"\n", 2, "there is no stage"),
    ],
)
def test_hostile_recipes(tmp_path, content, line, message):
    path = tmp_path / "hostile.yaml"
    path.write_bytes(content)
    place = "" if line is None else f":{line}"
    with pytest.raises(ValueError, match=rf"hostile\.yaml{place}: .*{message}") as caught:
        Recipe.from_yaml(path)
    assert type(caught.value) is ValueError
    assert len(str(caught.value)) < 1000
    with pytest.raises(ValueError, match=message):
        find_recipe(path)


def test_the_text_itself_has_the_same_limits():
    with pytest.raises(ValueError, match="more than 50,000 characters"):
        Recipe.from_yaml("stages:\n- prune\n" + "#" * 60_000)


def test_aliases_are_fine_where_they_are_few():
    text = "stages:\n- prune: {fine_tune: &once {epochs: 3}}\n- quantize_aware: {fine_tune: *once}\n"
    assert [stage.fine_tune.epochs for stage in Recipe.from_yaml(text).stages] == [3, 3]
