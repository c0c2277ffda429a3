"""`plan2-sidecar --embedded`: real engines as child processes, for a laptop without a cluster.

`folder` keeps what lasts (data, passwords, ports, the lock), each engine's module says how it is
started and when it is ready, `supervisor` starts, watches and ends the processes. The engines
come from the package index (the extra `embedded`); none of them is imported here.
"""
