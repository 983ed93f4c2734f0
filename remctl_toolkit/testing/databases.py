"""The database of a realm, of whichever kind its KDC is."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from . import programs
from .heimdal import find_heimdal

if TYPE_CHECKING:
    from ._k5 import Database

__all__ = ["database_maker"]


def database_maker(kind: str) -> Callable[..., Database]:
    """Return what makes the database of a realm with that KDC.

    Raises:
        MissingPrograms: something that it needs is not installed.
    """
    found = programs.find(*programs.REALM_PROGRAMS[kind], "k5test")
    heimdal = find_heimdal() if kind == "heimdal" else None
    if heimdal is not None:
        from ._heimdal import HeimdalDatabase

        return partial(HeimdalDatabase, programs=found, heimdal=heimdal)
    from ._k5 import Database

    return partial(Database, programs=found)
