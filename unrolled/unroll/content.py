"""The values that a watch has read from a cell. They are compared as a whole, then name by name if they differ."""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from typing import Any, NamedTuple

#: Attributes, each given by the number of its module and its name.
Places = frozenset[tuple[int, str]]


class Content(NamedTuple):
    """Everything that a step can have read, as values that compare equal if nothing has changed.

    attributes: for each module, either empty or its attributes' names, types and values.
    members: the members of trusted classes.
    classes: the user's own classes.
    globals: names in namespaces.
    """

    attributes: tuple[tuple, ...]
    members: tuple[Hashable, ...]
    classes: tuple[Hashable, ...] = ()
    globals: tuple[Hashable, ...] = ()

    def without(self, places: Places) -> Hashable:
        """Return the content without the attributes at `places`."""
        left = (
            tuple(entry for entry in _entries(each) if (number, entry[0]) not in places)
            for number, each in enumerate(self.attributes)
        )
        return tuple(left), self[1:]

    def varying_floats(self, now: Content) -> Places:
        """Return the attributes that differ if all of them are floats; empty if anything else differs, or nothing."""
        if self[1:] != now[1:] or len(self.attributes) != len(now.attributes):
            return frozenset()
        found = set()
        for number, (old, new) in enumerate(zip(self.attributes, now.attributes, strict=True)):
            if old == new:
                continue
            if not old or not new or old[0] != new[0]:
                return frozenset()
            for was, is_now in zip(_entries(old), _entries(new), strict=True):
                if was == is_now:
                    continue
                name, kind, _ = is_now
                if kind is not float or was[1] is not float:
                    return frozenset()
                found.add((number, name))
        return frozenset(found)

    def first_difference(self, now: Content) -> str:
        """Return the name of the first attribute that has changed."""
        for old, new in zip(self.attributes, now.attributes, strict=True):
            was, is_now = ({entry[0]: entry[1:] for entry in _entries(each)} for each in (old, new))
            for name in {**was, **is_now}:
                if was.get(name) != is_now.get(name):
                    return f"`self.{name}`"
        return "a setting of its class or of a function"


def _entries(attributes: tuple) -> Iterator[tuple[str, type, Any]]:
    """Return the name, the type and the value of each attribute of a module."""
    return zip(*attributes, strict=True) if attributes else iter(())
