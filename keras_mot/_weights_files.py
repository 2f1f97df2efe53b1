"""HDF5 files from elsewhere, as the weights in `.keras` files are: what they declare is checked before it is read."""

import io

# HDF5 stores nothing for values that were never written, so that a small file can declare any number of them.
_LARGEST_EXPANSION, _ALWAYS_READ = 100, 2**28
_MOST_OBJECTS, _DEEPEST = 500_000, 64


def count_values(content: bytes) -> int:
    """The number of values in all data sets of an HDF5 file.

    Raises:
        ValueError: The file is damaged, declares far more than it stores, refers to other files, or has groups that
            go too deep or in circles.
    """
    import h5py

    try:
        with h5py.File(io.BytesIO(content), "r") as file:
            return sum(_checked(dataset, len(content)) for dataset in _datasets(file, h5py))
    except ValueError:
        raise
    except Exception as error:  # the library raises whatever it met
        raise ValueError(f"its weights are damaged ({type(error).__name__}: {error})") from error


def _datasets(file, h5py):
    """All data sets; a loop instead of the library's own recursion, which a deep file would overflow."""
    waiting, seen = [(file, 0)], 0
    while waiting:
        group, depth = waiting.pop()
        for name in group:
            seen += 1
            if seen > _MOST_OBJECTS or depth > _DEEPEST:
                raise ValueError("the groups of its weights go too deep, or in circles")
            if group.get(name, getlink=True, getclass=True) is not h5py.HardLink:
                raise ValueError(f"its weights refer to another place with '{name}'")
            member = group[name]
            if isinstance(member, h5py.Group):
                waiting.append((member, depth + 1))
            elif isinstance(member, h5py.Dataset):
                yield member


def _checked(dataset, length):
    if dataset.external or dataset.is_virtual:
        raise ValueError(f"its weights '{dataset.name}' are in another file")
    size = dataset.size or 0
    declared = size * dataset.dtype.itemsize
    if declared > max(_ALWAYS_READ, _LARGEST_EXPANSION * min(dataset.id.get_storage_size(), length)):
        raise ValueError(
            f"its weights '{dataset.name}' of shape {dataset.shape} would take {declared:,} bytes, of which the file "
            f"stores {dataset.id.get_storage_size():,}"
        )
    return size
