# The client libraries: what they send and read, their types, and both against a real sidecar.
.PHONY: clients
clients: setup system-packages ## The Python and Node.js clients
	@$(PYTEST) tests/clients
