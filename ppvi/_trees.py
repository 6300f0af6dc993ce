"""Trees of dicts, lists and tuples, whatever is in them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any


def mapped(tree: Any, function: Callable[[str, Any], Any], path: str = "") -> Any:
    """The tree of what a function makes of every leaf and where it is, `a/0/b`; None stays."""
    if isinstance(tree, Mapping):
        return {key: mapped(x, function, f"{path}/{key}") for key, x in tree.items()}
    if isinstance(tree, list | tuple):
        kind = list if isinstance(tree, list) else tuple
        return kind(mapped(x, function, f"{path}/{i}") for i, x in enumerate(tree))
    return None if tree is None else function(path.removeprefix("/"), tree)
