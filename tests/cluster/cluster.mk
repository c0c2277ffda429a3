# The cluster of the tests and the programs that they build. PLAN2_CLUSTER=auto|kind|node|current
# chooses the cluster, PLAN2_STATE the node's folder, PLAN2_CACHE where built programs are kept.
PYTHON ?= .venv/bin/python
SYSTEM_PYTHON ?= python3

.PHONY: cluster-up
cluster-up: setup ## A cluster: kind where a Docker engine answers, else a real single node
	@$(PYTHON) tests/cluster/cli.py up

.PHONY: cluster-down
cluster-down: setup ## End that cluster and leave nothing of it behind
	@$(PYTHON) tests/cluster/cli.py down

.PHONY: cluster-status
cluster-status: setup ## Say which cluster is up and what of it runs
	@$(PYTHON) tests/cluster/cli.py status

.PHONY: kubeconfig
kubeconfig: setup ## Print the path of the cluster's kubeconfig (make -s kubeconfig)
	@$(PYTHON) tests/cluster/cli.py kubeconfig

.PHONY: system-packages
system-packages: ## Install the Debian packages that the tests need, where missing
	@$(SYSTEM_PYTHON) tests/tools/apt.py

.PHONY: tools
tools: system-packages ## Build the Go programs that the tests need, where missing
	@$(SYSTEM_PYTHON) tests/tools/build.py all >/dev/null
