"""The command-line programs."""

__all__: list[str] = []
