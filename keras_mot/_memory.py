"""How much memory there is to read into, and giving back what large models that are gone still hold."""

import contextlib
import ctypes
import gc
import math
import os
import pathlib
import re
from typing import Any

_LARGE = 2**26  # bytes; of smaller models, looking for them takes longer than it is worth


def free_discarded(model: Any) -> None:
    """Gives back the memory of models that nobody uses any more, if they are as large as this one.

    A Keras model refers to itself through the tensors between its layers, so that Python frees it at some later time.

    Args:
        model: a Keras model.
    """
    if sum(math.prod(variable.shape) * 4 for variable in model.variables) > _LARGE:
        gc.collect()
        # glibc keeps what is freed; other libraries have no such function, and Windows no such handle.
        with contextlib.suppress(OSError, AttributeError, TypeError):
            ctypes.CDLL(None).malloc_trim(0)


def available_bytes() -> int | None:
    """Bytes of memory that can be taken without swapping; `None` where the system does not tell.

    In a container that is what its limit leaves.
    """
    sizes = [size for size in (_of_the_machine(), _of_the_container()) if size is not None]
    return min(sizes, default=None)


def _of_the_machine():
    try:
        text = pathlib.Path("/proc/meminfo").read_text()
        return int(re.search(r"MemAvailable:\s*(\d+) kB", text)[1]) * 1024
    except (OSError, TypeError):
        pass
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):
        return None


def _of_the_container():
    folder = pathlib.Path("/sys/fs/cgroup")
    for limit, used, statistics, cached in (
        ("memory.max", "memory.current", "memory.stat", "inactive_file"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "memory/memory.stat", "total_inactive_file"),
    ):
        try:
            left = int((folder / limit).read_text()) - int((folder / used).read_text())
        except (OSError, ValueError):  # no such limit
            continue
        # What files were read into counts as used, and is given back when it is needed.
        with contextlib.suppress(OSError, TypeError):
            left += int(re.search(rf"^{cached} (\d+)$", (folder / statistics).read_text(), re.M)[1])
        return max(0, left)
    return None
