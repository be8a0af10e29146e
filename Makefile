# What a person types; the work is done by the scripts in tools/.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help setup tools demo test test-kernel check simulate soak bench golden lock clean

BIN := .venv/bin
# Our own tools first, and a CLI configuration of our own: the environment's may be anything.
export PATH := $(CURDIR)/.tools/bin:$(PATH):/usr/sbin:/sbin
export TF_CLI_CONFIG_FILE := $(CURDIR)/.tools/terraform.rc

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## /\1|/p' $(MAKEFILE_LIST) | awk -F '|' '{ printf "  make %-11s %s\n", $$1, $$2 }'

setup: .venv/.done ## the command .venv/bin/skyspan and everything to work on it
.venv/.done: requirements/dev.txt pyproject.toml tools/setup
	tools/setup
	@touch $@

tools: setup ## what a rehearsal drives: Debian packages, OpenTofu, containerlab, a provider mirror, an image
	@tools/debian world
	@tools/build
	@tools/mirror
	@tools/image
	@tools/netlab

demo: tools ## rehearse examples/hybrid: up, up again, stop, start, destroy (as root; make demo EXAMPLE=tailnet)
	@$(if $(filter tailnet,$(EXAMPLE)),tools/build tailnet)
	$(BIN)/skyspan rehearse run -f examples/$(or $(EXAMPLE),hybrid) $(addprefix --input ,$(INPUTS))

check: setup ## what every change must pass, in minutes
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo
	$(BIN)/pytest -q -n 2 $(wildcard tests/unit tests/golden tests/contract)

test: tools ## everything: the checks, then the tests with real tools (as root)
	@tools/debian test
	@tools/build tailnet test
	$(MAKE) --no-print-directory check
	$(BIN)/pytest -q -n 2 --dist worksteal $(wildcard tests/integration tests/chaos)

test-kernel: tools ## links carried by a real kernel, in a guest under QEMU (as root; minutes)
	@tools/kernel
	tools/kernel run $(BIN)/pytest -q -s -p no:cacheprovider --durations=5 tests/kernel/planes.py \
	  tests/integration/test_wireguard_link.py tests/integration/test_aws_vpn_link.py \
	  -k 'planes or sites_reach or stop_takes or bgp_announces'

soak: tools ## break every kind of link for ten minutes each (as root; make soak MINUTES=3)
	SKYSPAN_FAULT_MINUTES=$(or $(MINUTES),10) $(BIN)/pytest -q -s -n 0 tests/chaos/test_link_faults.py

bench: tools ## the budgets, measured beside other tools (make bench ARGS=--quick: two minutes)
	@tools/bench-peers
	$(BIN)/python -m bench $(ARGS)

simulate: setup ## random runs of the engine, judged (make simulate SEEDS=1000000, or SEEDS=FIRST-LAST)
	SKYSPAN_SEEDS=$(or $(SEEDS),100000) $(BIN)/pytest -q -n 2 tests/chaos/test_simulator.py -k no_seed

golden: setup ## renew the golden files; review them as a diff
	$(BIN)/pytest -q tests/golden --renew

lock: ## renew requirements/*.txt from pyproject.toml (make lock ARGS=--upgrade for newer versions)
	tools/lock $(ARGS)

clean: ## remove all that was made here
	rm -rf .venv .bench .tools .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis build dist
	find . -name __pycache__ -prune -exec rm -rf {} +
