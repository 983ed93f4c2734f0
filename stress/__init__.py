"""Long-running tests, each a separate program, to run by hand or at night. See docs/stress.md."""
