"""What can be said of a `.keras` file without loading it: whether it is damaged."""

import os
import zipfile
import zlib

_CONFIG = "config.json"
_WEIGHTS = "model.weights."


def damage(path: str | os.PathLike) -> str | None:
    """What is wrong with a `.keras` file as an archive, or None if nothing is.

    Args:
        path: of an existing file.

    Returns:
        The end of a sentence that begins with the file, such as "is no zip archive".
    """
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            broken = archive.testzip()
    except zipfile.BadZipFile as error:
        return f"is no zip archive ({error})" if "not a zip" in str(error) else f"is a broken zip archive ({error})"
    except (OSError, EOFError, ValueError, RuntimeError, NotImplementedError, zlib.error) as error:
        return f"cannot be read as a zip archive ({error})"
    if broken is not None:
        return f"holds '{broken}' with a wrong checksum"
    if _CONFIG not in names:
        return f"lacks '{_CONFIG}'"
    if not any(name.startswith(_WEIGHTS) for name in names):
        return f"lacks the weights ('{_WEIGHTS}h5')"
    return None
