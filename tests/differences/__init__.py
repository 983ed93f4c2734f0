"""Every difference between this binding and the existing one, found by a program."""
