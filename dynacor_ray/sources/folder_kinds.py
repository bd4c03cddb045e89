"""What a folder holds, by the names of its files: rows in files below, or images with a list of their labels."""

from __future__ import annotations

from dynacor_ray.core.errors import DataError, expected_got
from dynacor_ray.core.storage import Location
from dynacor_ray.sources.folder_scan import SYSTEM_FOLDERS
from dynacor_ray.sources.image_files import is_image_name
from dynacor_ray.sources.row_files import is_row_file

METADATA = ("metadata.csv", "metadata.jsonl")
"""Hugging Face's names of the list beside images."""
_LOOKED_AT = 32
_DEPTH = 3


def find_metadata(place: Location, files: list[str], folders: list[str], split: str | None) -> str | None:
    """The list of labels beside images, in the folder itself or in that of a split.

    Args:
        place: the folder.
        files: names of its files.
        folders: names of its folders.
        split: the one that the user named.

    Returns:
        Its path below the folder, or None.

    Raises:
        DataError: several splits have one.
    """
    own = [name for name in METADATA if name in files]
    if own and split is None:
        return own[0]
    wanted = [split] if split in folders else folders[:_LOOKED_AT] if split is None else []
    below = [f"{folder}/{name}" for folder in wanted for name in METADATA if (place / folder / name).exists()]
    if len(below) > 1:
        got = ", ".join(below)
        raise DataError(expected_got(f"one list of labels in {place}", got, "choose one with --split"))
    return below[0] if below else None


def has_rows_below(place: Location, folders: list[str]) -> bool:
    """Whether parquet or Arrow files lie in sub-folders, and no images."""
    found = False
    level = folders
    for _ in range(_DEPTH):
        inner: list[str] = []
        for folder in level[:_LOOKED_AT]:
            if folder.rpartition("/")[2].lower() in SYSTEM_FOLDERS:
                continue
            try:
                names = (place / folder).names()
            except UnicodeDecodeError:  # pyarrow's, of a file name; a list of images copes with it
                return False
            if any(map(is_image_name, names)):
                return False
            found = found or any(map(is_row_file, names))
            inner += [f"{folder}/{name}" for name in names if "." not in name]
        level = [folder for folder in inner if (place / folder).is_dir()] if inner and not found else []
    return found
