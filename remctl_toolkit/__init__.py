"""Tools built on the ``remctl`` module: clients, credentials, backends and a test realm."""

__all__: list[str] = []
