"""Packages: they come back as they were, differences are small, and whatever is wrong leaves nothing behind."""

import json
import tracemalloc

import numpy as np
import pytest

import keras_mot.export.dependencies
import keras_mot.export.packing
from keras_mot._packages import is_installed
from keras_mot.cli import main
from keras_mot.export.packing import pack, package_of, unpack
from keras_mot.export.value_differences import differences, restored

pytestmark = [
    pytest.mark.backend_independent,
    pytest.mark.skipif(
        not (is_installed("brotli") and is_installed("bsdiff4")), reason="needs the extra 'pack' (brotli, bsdiff4)"
    ),
]


@pytest.fixture
def files(tmp_path):
    """An older file of few values, and a newer one that differs from it in one of a hundred."""
    generator = np.random.default_rng(0)
    older = generator.integers(0, 16, 50_000).astype("uint8")
    newer = older.copy()
    newer[generator.permutation(50_000)[:500]] ^= 1
    paths = tmp_path / "old.tflite", tmp_path / "new.tflite"
    for path, values in zip(paths, (older, newer), strict=True):
        path.write_bytes(values.tobytes())
    return paths


def test_files_come_back(files, tmp_path):
    _, newer = files
    package = pack(newer, tmp_path / "new.kmot")
    assert package.method == "brotli"
    assert package.bytes == (tmp_path / "new.kmot").stat().st_size < 0.55 * 50_000
    assert package == package_of(tmp_path / "new.kmot")
    assert unpack(tmp_path / "new.kmot", tmp_path / "back.tflite").read_bytes() == newer.read_bytes()
    assert "brotli" in str(package)


@pytest.mark.parametrize("size", [2**16, 2**17, 300_001, 2**20])
def test_large_files_that_compress_well_come_back(size, tmp_path, monkeypatch):
    """Of such, the decompressor holds much back when it has read all."""
    path = tmp_path / "large.tflite"
    path.write_bytes(np.random.default_rng(0).choice([0, 0, 0, 7, 249], size).astype("u1").tobytes())
    monkeypatch.setattr("keras_mot.export.packing._QUALITY", 5)  # the best ones take a second for a megabyte
    package = pack(path, tmp_path / "large.kmot")
    assert package.bytes < 0.3 * size
    assert unpack(package.path, tmp_path / "again.tflite").read_bytes() == path.read_bytes()


def test_differences_are_small_and_want_their_base(files, tmp_path):
    older, newer = files
    whole, package = pack(newer, tmp_path / "whole.kmot"), pack(newer, tmp_path / "new.kmot", base=older)
    assert package.method == "delta"
    assert package.bytes < whole.bytes / 10
    output = tmp_path / "back.tflite"
    with pytest.raises(ValueError, match="pass that as `base`"):
        unpack(package.path, output)
    with pytest.raises(ValueError, match="the difference from another file"):
        unpack(package.path, output, base=newer)
    assert not output.exists()
    assert unpack(package.path, output, base=older).read_bytes() == newer.read_bytes()


def clustered(generator, palettes, moved):
    """Channels of weights with a palette each, some of which have moved to another of its values."""
    chosen = np.random.default_rng(1).integers(0, 16, (40, 1000))
    places = generator.random(chosen.shape) < moved
    chosen = np.where(places, generator.integers(0, 16, chosen.shape), chosen)
    return np.take_along_axis(palettes, chosen, 1).astype("u1").tobytes()


def test_values_that_move_together(tmp_path):
    """After fine-tuning: other palettes, nearly the same assignments."""
    generator = np.random.default_rng(0)
    palettes = np.sort(generator.permuted(np.tile(np.arange(256), (40, 1)), axis=1)[:, :16], axis=1)
    older = clustered(generator, palettes, 0.0)
    newer = clustered(generator, palettes + generator.integers(-2, 3, palettes.shape), 0.02)
    assert np.mean(np.frombuffer(older, "u1") != np.frombuffer(newer, "u1")) > 0.7
    found = differences(older, newer)
    assert np.mean(np.frombuffer(found, "u1") == 0) > 0.9
    assert restored(older, found) == newer
    for other in (older[:500], older + older, b""):
        assert restored(other, differences(other, newer)) == newer
    (tmp_path / "old").write_bytes(older)
    (tmp_path / "new").write_bytes(newer)
    package = pack(tmp_path / "new", tmp_path / "p.kmot", base=tmp_path / "old")
    alone = pack(tmp_path / "new", tmp_path / "alone.kmot")
    assert package.method == "delta"
    assert package.bytes < 0.25 * alone.bytes
    assert unpack(package.path, tmp_path / "again", base=tmp_path / "old").read_bytes() == newer
    with pytest.raises(ValueError, match="another file than"):
        unpack(package.path, tmp_path / "wrong", base=tmp_path / "new")


def test_a_difference_that_is_no_smaller_is_not_kept(tmp_path):
    generator = np.random.default_rng(1)
    for name in ("old", "new"):
        (tmp_path / name).write_bytes(generator.integers(0, 256, 5_000, "uint8").tobytes())
    assert pack(tmp_path / "new", tmp_path / "new.kmot", base=tmp_path / "old").method == "brotli"


def test_an_empty_file(tmp_path):
    (tmp_path / "empty").write_bytes(b"")
    pack(tmp_path / "empty", tmp_path / "empty.kmot")
    assert unpack(tmp_path / "empty.kmot", tmp_path / "back").read_bytes() == b""


@pytest.mark.parametrize("base", [False, True], ids=["whole", "difference"])
def test_damaged_packages_write_nothing(base, files, tmp_path):
    older, newer = files
    base = older if base else None
    path, output = pack(newer, tmp_path / "new.kmot", base=base).path, tmp_path / "back.tflite"
    whole = path.read_bytes()
    for place in [*range(0, 300, 7), *range(300, len(whole), max(1, len(whole) // 40))]:
        damaged = bytearray(whole)
        damaged[place % len(whole)] ^= 0x11
        path.write_bytes(damaged)
        try:
            unpack(path, output, base=base)
        except ValueError as error:
            assert "new.kmot" in str(error)  # noqa: PT017
            assert not output.exists()
        else:  # the name alone is nobody's checksum
            assert output.read_bytes() == newer.read_bytes()
            output.unlink()
    for length in (0, 3, 8, 40, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(ValueError, match=r"new\.kmot"):
            unpack(path, output, base=base)
    assert not output.exists()


def test_packages_that_say_less_than_they_hold(tmp_path):
    import brotli

    (tmp_path / "zeros").write_bytes(bytes(10_000_000))
    path = pack(tmp_path / "zeros", tmp_path / "zeros.kmot").path
    content = path.read_bytes()
    length = int.from_bytes(content[5:9], "little")
    header, stored = json.loads(content[9 : 9 + length]), content[9 + length :]
    assert brotli.decompress(stored) == bytes(10_000_000)
    header["parts"][0][0] = header["bytes"] = 100
    text = json.dumps(header).encode()
    path.write_bytes(content[:5] + len(text).to_bytes(4, "little") + text + stored)
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match="more than it says"):
            unpack(path, tmp_path / "back")
        assert tracemalloc.get_traced_memory()[1] < 1_000_000  # the ten million were not made
    finally:
        tracemalloc.stop()


def test_packages_of_more_than_there_is_memory_for(files, tmp_path, monkeypatch):
    older, newer = files
    path = pack(newer, tmp_path / "new.kmot", base=older).path
    monkeypatch.setattr(keras_mot.export.packing, "available_bytes", lambda: 60_000)
    with pytest.raises(ValueError, match=r"takes 1\d\d,\d{3} bytes of memory; there are 60,000"):
        unpack(path, tmp_path / "back", base=older)
    assert not (tmp_path / "back").exists()


@pytest.mark.parametrize("damage", ["negative", "beyond", "cut"])
def test_lengths_in_a_difference_that_are_wrong(damage, files, tmp_path, monkeypatch):
    older, newer = files
    before = keras_mot.export.packing._difference

    def difference(*contents):
        control, *others = before(*contents)
        lengths = np.frombuffer(control, "<u8").copy()
        lengths[0] = {"negative": lengths[0] | np.uint64(2**63), "beyond": 60_000, "cut": lengths[0]}[damage]
        return [lengths.tobytes()[: -1 if damage == "cut" else None], *others]

    monkeypatch.setattr(keras_mot.export.packing, "_difference", difference)
    monkeypatch.setattr(keras_mot.export.packing, "_LARGEST_WALKED", 0)  # so that it is the one of bsdiff
    path = pack(newer, tmp_path / "new.kmot", base=older).path
    with pytest.raises(ValueError, match="the lengths in it are wrong"):
        unpack(path, tmp_path / "back", base=older)


def test_another_form_of_differences_is_found_before_it_is_packed(files, tmp_path, monkeypatch):
    import bsdiff4.core

    older, newer = files
    known = bsdiff4.core.diff
    monkeypatch.setattr(bsdiff4.core, "diff", lambda *contents: ([(1, 2, 3)], *known(*contents)[1:]))
    with pytest.raises(ImportError, match=r"install bsdiff4 1\.3\.2 or later"):
        pack(newer, tmp_path / "new.kmot", base=older)


def test_what_is_packed_stays(files, tmp_path):
    older, newer = (each.rename(each.with_suffix(".kmot")) for each in files)
    known = older.read_bytes(), newer.read_bytes()
    with pytest.raises(ValueError, match="`output` is `path`"):
        pack(newer, newer)
    with pytest.raises(ValueError, match="`output` is `base`"):
        pack(newer, older, base=older)
    assert (older.read_bytes(), newer.read_bytes()) == known


def test_names_that_do_not_print(tmp_path):
    (tmp_path / "two\nlines").write_bytes(b"abc")
    package = pack(tmp_path / "two\nlines", tmp_path / "new.kmot")
    assert package.name == "two_lines"
    content = package.path.read_bytes()
    package.path.write_bytes(content.replace(b'"two_lines"', b'"two\\nline"'))
    with pytest.raises(ValueError, match="is damaged"):
        package_of(package.path)


def test_what_is_no_package(files, tmp_path):
    with pytest.raises(ValueError, match="is no package"):
        unpack(files[0], tmp_path / "back")
    with pytest.raises(ValueError, match=r"should end in \.kmot"):
        pack(files[0], tmp_path / "new.zip2")
    with pytest.raises(ValueError, match="which is none"):
        pack(tmp_path / "missing", tmp_path / "new.kmot")


def test_a_missing_package_is_named(files, tmp_path, monkeypatch):
    known = keras_mot.export.dependencies.is_installed
    for missing, base in (("brotli", None), ("bsdiff4", files[0])):
        monkeypatch.setattr(
            keras_mot.export.dependencies, "is_installed", lambda name, lost=missing: name != lost and known(name)
        )
        with pytest.raises(ImportError, match=f"pip install {missing}"):
            pack(files[1], tmp_path / "new.kmot", base=base)


def test_the_command_line(files, tmp_path, capsys):
    older, newer = map(str, files)
    package, back = str(tmp_path / "update.kmot"), tmp_path / "back.tflite"
    assert main(["pack", newer, "--base", older, "-o", package]) == 0
    assert "delta" in capsys.readouterr().out
    assert main(["unpack", package, "-o", str(back)]) == 2
    assert "name that one by `--base FILE`" in capsys.readouterr().err
    assert not back.exists()
    assert main(["unpack", package, "--base", older, "-o", str(back)]) == 0
    assert back.read_bytes() == files[1].read_bytes()
    assert main(["pack", newer, "-o", str(tmp_path / "update.zip")]) == 2


def test_a_package_is_not_lost_to_what_it_holds(tmp_path):
    (tmp_path / "old.bin").write_bytes(b"old" * 100)
    (tmp_path / "new.bin").write_bytes(b"new" * 100)
    pack(tmp_path / "new.bin", tmp_path / "new.kmot", base=tmp_path / "old.bin")
    content = (tmp_path / "new.kmot").read_bytes()
    for output in ("new.kmot", "old.bin"):
        with pytest.raises(ValueError, match="which would be lost: choose another `output`"):
            unpack(tmp_path / "new.kmot", tmp_path / output, base=tmp_path / "old.bin")
    assert (tmp_path / "new.kmot").read_bytes() == content
    assert unpack(tmp_path / "new.kmot", tmp_path / "out.bin", base=tmp_path / "old.bin").read_bytes() == b"new" * 100
