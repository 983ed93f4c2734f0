"""Fuzzing: what a peer may send, found by coverage; see docs/stress.md."""
