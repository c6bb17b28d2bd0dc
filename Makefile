# The commands of this repository; `make help` lists them.
# Everything that is built or installed lands in .venv, target, dist, .state and examples/digits/{models,baseline}.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.NOTPARALLEL:

PYTHON ?= python3
HTTP ?= 127.0.0.1:8000
GRPC ?= 127.0.0.1:8001
OBSERVE ?= 127.0.0.1:8002
ADMIN ?= 127.0.0.1:8003
STATE ?= .state
PYTEST_ARGS ?=
# Half as many again as cores: many tests wait for a gateway that starts, or for a deadline.
WORKERS ?= $(shell echo $$(( ($$(nproc) * 3 + 1) / 2 )))
# Of Cargo.toml: what the extension is built with, and the tests of the crates.
NATIVE_PROFILE ?= release
CRATES_PROFILE ?= dev
FUZZ ?= 100
ROLLOUTS ?= 2000
SECONDS ?= 600
SEED ?=
FAULT ?=

VENV := .venv
PY := $(VENV)/bin/python
STAMPS := $(VENV)/stamps
RUST_SOURCES := $(shell find rust -name '*.rs' -o -name Cargo.toml) Cargo.toml Cargo.lock
EXAMPLE := examples/digits
# What the gRPC code is generated from, and that code.
PROTO_FILES := $(sort $(wildcard proto/*.proto) $(wildcard tools/proto/Cargo.* tools/proto/src/*.rs) $(wildcard rust/*/src/generated/* rust/*/src/*/generated/* rust/*/src/*/*/generated/*))

# ONNX Runtime reports to its maker unless this is set before it loads.
export ORT_DISABLE_TELEMETRY := 1
export PYO3_PYTHON := $(CURDIR)/$(PY)
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: help
help:  ## list these commands
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  make \1\t/' | expand -t 20

.PHONY: serve
serve: $(STAMPS)/native $(STAMPS)/digits  ## install, build, prepare the example and serve it; Ctrl-C drains and stops
	@exec $(PY) $(EXAMPLE)/serve.py --state $(STATE) --http $(HTTP) --grpc $(GRPC) --observe $(OBSERVE) --admin $(ADMIN)

.PHONY: demo
demo: $(STAMPS)/native $(STAMPS)/digits  ## two rollouts of the example in a minute: a good version takes over, a broken one is gone
	@$(PY) $(EXAMPLE)/demo.py

.PHONY: test
test: test-rust test-models test-python  ## run every test: cargo's, then pytest's

.PHONY: test-rust
# Most tests of a running gateway wait for a deadline, so that more of them than cores run side by side.
test-rust: $(STAMPS)/native $(STAMPS)/digits  ## run the tests of the crates
	HEADGATE_ORT_LIBRARY="$$($(PY) -c 'from headgate import runtime_library; print(runtime_library.find().path)')" \
	RUST_TEST_THREADS=$${RUST_TEST_THREADS:-$$((2 * $$(nproc)))} \
		cargo test --profile $(CRATES_PROFILE) --workspace --exclude headgate-py --locked

.PHONY: test-models
test-models:  ## model checking: every order of the threads that meet in a sketch's shard, a batch and a queue (loom)
	cargo test --locked -p headgate-sketch -p headgate-runtime -p headgate-engine --features headgate-sketch/loom,headgate-engine/loom --lib models

.PHONY: test-python
test-python: $(STAMPS)/native $(STAMPS)/digits  ## run pytest, WORKERS processes side by side; PYTEST_ARGS="-k traffic" narrows it
	$(PY) -m pytest -n $(WORKERS) --dist worksteal -m "not quiet and not alone" $(PYTEST_ARGS)
	$(PY) -m pytest -n 2 -m quiet $(PYTEST_ARGS) || test $$? = 5  # 5: PYTEST_ARGS left none of these
	$(PY) -m pytest -m alone $(PYTEST_ARGS) || test $$? = 5

.PHONY: chaos
chaos: $(STAMPS)/native  ## a gateway under random writes and faults for SECONDS, in the order of SEED (one is drawn and printed without it)
	PYTHONPATH=python:tests $(PY) -m chaos --seconds $(SECONDS) $(if $(SEED),--seed $(SEED)) $(if $(FAULT),--fault $(FAULT))

.PHONY: fuzz
fuzz:  ## the fuzz targets of the crates, FUZZ times as long as in `make test`
	HEADGATE_FUZZ=$(FUZZ) cargo test --release --locked -p headgate-protocol --test fuzz --test protobuf --test predict --test bounds
	BOLERO_RANDOM_TEST_TIME_MS=$$((1000 * $(FUZZ))) cargo test --release --locked -p headgate-protocol -p headgate-http2 -p headgate-server --lib --test protocol any_

.PHONY: simulate
simulate:  ## rollouts with made-up requests on the real counters and gates: false rollbacks and medians; ROLLOUTS of each kind
	ROLLOUTS=$(ROLLOUTS) CARGO_PROFILE_RELEASE_OPT_LEVEL=3 cargo test --release --locked -p headgate-core --test rollouts -- --ignored --nocapture

.PHONY: lint
lint: $(STAMPS)/native  ## formatting, clippy, ruff, strict mypy, the stub, the import and crate directions, links, lock files
	cargo fmt --all --check
	@# mypy takes one core for as long as clippy takes the other.
	cargo clippy --profile $(CRATES_PROFILE) --workspace --all-targets --locked -- -D warnings & clippy=$$!; $(MAKE) --no-print-directory lint-python; wait $$clippy

.PHONY: lint-python
lint-python: $(STAMPS)/native
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy
	$(PY) tools/check_stub.py
	$(PY) tools/check_imports.py
	$(PY) tools/check_rooms.py
	$(PY) tools/check_sizes.py
	$(PY) tools/reference.py --check
	$(PY) -m tools.dashboard --check
	$(PY) tools/check_links.py
	$(PY) tools/check_locks.py
	$(MAKE) --no-print-directory proto-check

.PHONY: proto
proto:  ## generate the gRPC messages and services from proto/, without protoc
	CARGO_TARGET_DIR=target/proto cargo run --quiet --locked --manifest-path tools/proto/Cargo.toml -- .
	sha256sum $(PROTO_FILES) > proto/generated.sha256

.PHONY: proto-check
proto-check:  ## check that what is generated from proto/, and what it is made from, is as `make proto` left it
	@sha256sum $(PROTO_FILES) | diff proto/generated.sha256 - || { echo "Run: make proto" >&2; exit 1; }

.PHONY: format
format: $(STAMPS)/python  ## format all sources
	cargo fmt --all
	$(PY) -m ruff check --fix .
	$(PY) -m ruff format .

.PHONY: wheel
wheel: $(STAMPS)/python  ## build the abi3 wheel into dist/
	$(PY) -m maturin build --release --locked --interpreter $(PY) --out dist

.PHONY: bench
bench: bench-micro bench-macro bench-wires bench-batches bench-overload bench-lifecycle bench-scaling bench-shadows  ## run all benches; prints ratios and writes benches/results/

.PHONY: bench-peers
bench-peers:
	CARGO_TARGET_DIR=target/peers cargo build --release --locked --manifest-path benches/peers/bare/Cargo.toml

.PHONY: bench-micro
bench-micro:  ## ns per value of the sketches, ns per number of the JSON scanner, ns per choice of a version
	CARGO_TARGET_DIR=target/micro cargo bench --locked --manifest-path benches/micro/Cargo.toml

.PHONY: bench-macro
bench-macro: $(STAMPS)/native $(STAMPS)/digits bench-peers  ## against nginx, a bare loop and a hand-written server; needs nginx and wrk
	$(PY) -m benches.macro

.PHONY: bench-neighbour
bench-neighbour: $(STAMPS)/native $(STAMPS)/digits bench-peers  ## CPU time of a request beside a process that fills the last-level cache; needs nginx and wrk
	$(PY) -m benches.neighbour

.PHONY: bench-wire-costs
bench-wire-costs: $(STAMPS)/native  ## CPU time of a request by wire, numbers and connections, user and system apart; BUILDS="before=LIBRARY after=LIBRARY" compares two; needs h2load
	$(PY) -m benches.wire_costs $(or $(BUILDS),present=target/release/lib_native.so)

.PHONY: bench-batches
bench-batches: $(STAMPS)/native  ## rows batched against ONNX Runtime alone
	$(PY) -m benches.batches

.PHONY: bench-shadows
bench-shadows: $(STAMPS)/native  ## what a champion feels of a shadow that hangs, fails or is as heavy; needs wrk
	$(PY) -m benches.shadows

.PHONY: bench-rollouts
bench-rollouts: $(STAMPS)/native  ## false rollbacks of a model against itself, and how fast a rollback takes effect under load: about five minutes
	$(PY) -m benches.rollouts

.PHONY: bench-load
bench-load: $(STAMPS)/native $(STAMPS)/digits bench-peers  ## the load generator against wrk, h2load, servers of a known delay, and its own promises; needs nginx and wrk
	$(PY) -m benches.load

.PHONY: bench-sweep
bench-sweep: $(STAMPS)/native  ## which settings `headgate bench sweep` finds for three models, and how near its simulations are: about 45 minutes
	$(PY) -m benches.sweep

.PHONY: bench-plans
bench-plans: $(STAMPS)/native  ## what `headgate bench plan` says of three models, against other rates that are then measured
	$(PY) -m benches.plans

.PHONY: bench-overload
bench-overload: $(STAMPS)/native  ## an open loop at 0.5 to 10 times what a model can do
	$(PY) -m benches.overload

.PHONY: bench-capacity
bench-capacity:  ## how often the intervals and verdicts of `headgate bench` are right, by simulation: tables, about ten minutes
	cargo test --release --locked -p headgate-core --test load_statistics -- --ignored --nocapture --test-threads 1

.PHONY: bench-isolation
bench-isolation: $(STAMPS)/native  ## a good endpoint beside clients, models and loads at their worst, against honest ones
	$(PY) -m benches.isolation

.PHONY: bench-lifecycle
bench-lifecycle: $(STAMPS)/native  ## swaps under load, a thousand models, ten thousand loads; needs wrk
	$(PY) -m benches.lifecycle

.PHONY: bench-scrapes
bench-scrapes: $(STAMPS)/native  ## bytes and time of a page of /metrics, for each version
	$(PY) -m benches.scrapes

.PHONY: bench-commands
bench-commands: $(STAMPS)/native  ## wall and processor time of client commands
	$(PY) -m benches.commands

.PHONY: bench-control-plane
bench-control-plane: $(STAMPS)/native  ## starts, commands, calls and rollbacks with 1 000 endpoints and 50 000 revisions
	$(PY) -m benches.control_plane

.PHONY: bench-intake
bench-intake: $(STAMPS)/native  ## how long a large model that is taken in keeps other threads from Python
	$(PY) -m benches.intake

.PHONY: bench-restart
bench-restart: $(STAMPS)/native  ## from the death of a supervised gateway to the next process and its ready line
	$(PY) -m benches.restart

.PHONY: bench-scaling
bench-scaling: $(STAMPS)/native $(STAMPS)/digits  ## CPU time with two IO threads, latencies at half load; needs wrk
	$(PY) -m benches.scaling

.PHONY: bench-profile
bench-profile: $(STAMPS)/native $(STAMPS)/digits  ## instructions and code lines of a request, by wire and function; needs valgrind
	PYO3_PYTHON=$(abspath $(PY)) cargo build --release --locked -p headgate-py --lib
	$(PY) -m benches.profile

.PHONY: bench-wires
bench-wires: $(STAMPS)/native  ## gRPC against a bare tonic echo, images in binary and JSON; needs h2load and wrk
	CARGO_TARGET_DIR=target/peers cargo build --release --locked --manifest-path benches/peers/tonic_echo/Cargo.toml
	$(PY) -m benches.wires

.PHONY: lock
lock: $(STAMPS)/python  ## resolve requirements.lock anew
	$(PY) -m pip install --quiet uv
	$(PY) -m uv pip compile pyproject.toml --extra cpu --extra examples --extra dev --universal \
		--python-version 3.11 --generate-hashes --no-header --quiet --upgrade --output-file requirements.lock

.PHONY: clean
clean:  ## remove everything that these commands made
	rm -rf $(VENV) target dist $(STATE) $(EXAMPLE)/models $(EXAMPLE)/baseline
	rm -rf .pytest_cache .mypy_cache .ruff_cache .hypothesis python/headgate/*.so
	find python tests tools benches examples -name __pycache__ -type d -prune -exec rm -rf {} +

# What the commands above stand on. A stamp is newer than all it was made from, so nothing is done twice.

$(STAMPS)/python: requirements.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Headgate needs Python 3.11 or newer; $(PYTHON) is older. Use: make PYTHON=python3.12 ..." >&2; exit 1; }
	@command -v cargo >/dev/null || \
		{ echo "Headgate is built with Rust; no cargo on PATH. Install a stable toolchain first." >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(PY) -m pip install --quiet --require-hashes --requirement requirements.lock
	@mkdir -p $(STAMPS) && touch $@

$(STAMPS)/native: $(STAMPS)/python pyproject.toml $(RUST_SOURCES)
	PIP_QUIET=1 VIRTUAL_ENV=$(CURDIR)/$(VENV) $(PY) -m maturin develop --profile $(NATIVE_PROFILE) --locked
	@touch $@

$(STAMPS)/digits: $(STAMPS)/python $(EXAMPLE)/prepare.py
	$(PY) $(EXAMPLE)/prepare.py
	@touch $@
