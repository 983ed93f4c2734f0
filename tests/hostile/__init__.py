"""What a server, or somebody on the way to it, can do to a client, and what the client makes of it."""
