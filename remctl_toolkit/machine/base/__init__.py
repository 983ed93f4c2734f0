"""Connections to accounts, single commands, and the programs that are sent to run them."""
