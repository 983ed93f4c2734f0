"""The way to an account, one command there, and what is sent to run it."""
