"""The soak: very many commands, opens, threads, forks and signals must not leak anything."""
