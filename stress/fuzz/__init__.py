"""A fuzzer for the data of a peer, guided by coverage; see docs/stress.md."""
