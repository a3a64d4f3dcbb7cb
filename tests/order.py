"""In which order the files of one folder are taken."""

from collections.abc import Callable
from pathlib import Path

import pytest


def sort_files(items: list[pytest.Item], *, folder: Path, rank: Callable[[str], int]) -> None:
    """Sort those of `items` whose files stand in `folder` by `rank` of the file's name without its ending, in place;
    all others stay where they are, and tests of a file side by side and in their order."""
    places = [place for place, item in enumerate(items) if item.path.parent == folder]
    ordered = sorted((items[place] for place in places), key=lambda item: rank(item.path.stem))
    for place, item in zip(places, ordered, strict=True):
        items[place] = item
