"""A host that is run twice on one input, or with one more layer, and the caches that belong to that."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

Arguments = tuple[tuple[Any, ...], dict[str, Any]]


def twin(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Arguments:
    """The arguments of a second run: those of the first with another cache, a copy of the first as it is now.

    The copy is kept on the first cache, so that decoding goes on with both.
    """
    return _with_cache(args, kwargs, "_twin", copy.deepcopy)


def extra(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Arguments:
    """The arguments of a layer that the host does not know, with a cache of its own, kept on the host's."""
    from transformers import DynamicCache

    return _with_cache(args, kwargs, "_extra", lambda cache: DynamicCache())


def _with_cache(args: tuple[Any, ...], kwargs: dict[str, Any], name: str, make: Callable[[Any], Any]) -> Arguments:
    """The arguments with what `name` is of the cache among them in its place, made by the first who asks."""
    from transformers import Cache

    def other(value: Any) -> Any:
        if not isinstance(value, Cache):
            return value
        if not hasattr(value, name):
            setattr(value, name, make(value))
        return getattr(value, name)

    return tuple(map(other, args)), {key: other(value) for key, value in kwargs.items()}
