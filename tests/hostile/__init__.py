"""Misbehaving servers and networks, and the client's reactions."""
