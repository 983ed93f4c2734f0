"""The commands that users type."""

__all__: list[str] = []
