# Side by side with the peers; not part of `make test`. docs/benchmarks/README.md explains.
BENCHMARKS := docs/benchmarks

.PHONY: bench-tools
bench-tools: setup system-packages
	@$(PYTHON) tests/tools/apt.py wrk
	@$(PYTHON) tests/tools/build.py daprd ferretdb weaviate >/dev/null

.PHONY: bench
bench: bench-tools ## Plan2 and its peers in turn; writes docs/benchmarks/results.{json,md,svg}
	@PYTHONPATH=tests $(PYTHON) -m bench --out $(BENCHMARKS)

.PHONY: bench-growth
bench-growth: bench-tools ## How cost grows with clients, sessions, keys and payloads
	@PYTHONPATH=tests $(PYTHON) -m bench.growth --out $(BENCHMARKS)

.PHONY: bench-operator
bench-operator: setup system-packages ## What 1, 50, 200 and 500 resources cost the operator
	@PYTHONPATH=tests $(PYTHON) -m bench.operator_growth --out $(BENCHMARKS)

.PHONY: tune
tune: bench-tools ## Load on each engine's pool; the sizes it would set. TUNE="--url …" for yours
	@PYTHONPATH=tests $(PYTHON) -m bench.tune $(TUNE)
