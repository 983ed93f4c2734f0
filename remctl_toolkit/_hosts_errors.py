"""Exceptions of host lists."""

from __future__ import annotations


class HostListError(ValueError):
    """A host list is wrong or cannot be read; the text is one line."""


class MissingExtraError(ImportError):
    """A package is not installed that comes with an extra.

    Attributes:
        package: the package.
        purpose: what needs it.
        extra: the extra.
    """

    def __init__(self, package: str, purpose: str, extra: str = "fleet") -> None:
        super().__init__(package, purpose, extra)
        self.package = package
        self.purpose = purpose
        self.extra = extra

    def __str__(self) -> str:
        return f"{self.purpose} needs {self.package}: pip install 'python-remctl[{self.extra}]'"
