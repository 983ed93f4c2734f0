"""The parts of a channel: what is sent and read, and the threads that do it."""
