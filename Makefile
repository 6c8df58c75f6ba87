# Each of these sets up what is missing first: see .ci/setup.

.PHONY: setup demo test test-kernel vm-box test-vm lint bench clean

setup:
	@.ci/setup

# Cuts a Raft leader off for some seconds, and leaves a report. Fails when a promise was broken.
demo: setup
	.ci/privileged .venv/bin/splitbrain run raft-leader-isolated

# Whole experiments come last and one after another: each wants the machine to itself, and says so if it has not.
test: ALONE = tests/end_to_end/test_parity.py tests/end_to_end/test_run.py
test:
	@.ci/setup --test
	.ci/privileged .venv/bin/pytest -n 2 --dist worksteal $(ALONE:%=--ignore %)
	.ci/privileged .venv/bin/pytest $(ALONE)

# The tests of the kernel's own backends, in an emulated machine that boots a kernel which has them.
test-kernel:
	@.ci/setup --kernel
	.ci/test-kernel

# A Vagrant box with everything in it, .vm/splitbrain.box: `vagrant up` with it wants no network.
vm-box:
	@.ci/setup --vm
	vagrant/build-box

# That box, `vagrant up`, two experiments in it, their results here, `vagrant destroy`; and nothing is left.
test-vm: setup vm-box
	.ci/test-vm

lint: setup
	.venv/bin/ruff check
	.venv/bin/ruff format --check
	.venv/bin/mypy
	.venv/bin/lint-imports

# One after another, each with the machine to itself; fails if an aim was missed, after the last.
bench:
	@.ci/setup --bench
	@missed=; for name in wire raft fabric throughput ecmp mtu failover detectors simulator; do \
		.ci/privileged .venv/bin/splitbrain bench $$name || missed="$$missed $$name"; done; \
	[ -z "$$missed" ] || { echo "missed:$$missed" >&2; exit 1; }

# What these targets made in the checkout, but not the runs: they are results.
clean:
	rm -rf .venv .uv .kernel .vm .peers dist .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
