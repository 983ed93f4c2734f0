"""What goes over a stream: frames, and values."""
