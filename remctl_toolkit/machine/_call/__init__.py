"""What calls are made of: the link to an interpreter, what is sent to it, and what comes back."""
