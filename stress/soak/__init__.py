"""The soak: very many commands, opens, threads, forks and signals; what is held must stay flat."""
