"""Fake servers and networks, and helpers for waiting and measuring."""
