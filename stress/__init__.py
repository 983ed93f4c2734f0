"""Heavy tests, run by hand or at night: each is a program of its own. See docs/stress.md."""
