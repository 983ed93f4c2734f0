"""Heavy tests, which are run by hand or at night: fuzzing, and the soak. See docs/stress.md."""
