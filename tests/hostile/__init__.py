"""Servers and networks that misbehave, and what a client makes of them."""
