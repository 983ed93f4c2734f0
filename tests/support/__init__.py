"""Stand-ins for the far end of a connection, and helpers for waiting and measuring."""
