# Pinfold's targets. `make help` lists them. Every one that needs a Debian package or a newer
# Rust says so through scripts/setup.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory
export PATH := $(PATH):/usr/sbin:/sbin:$(HOME)/.cargo/bin

TARGET := x86_64-unknown-linux-gnu
TARGET_DIR := $(or $(CARGO_TARGET_DIR),target)
RELEASE := $(TARGET_DIR)/$(TARGET)/release
PINFOLD := $(RELEASE)/pinfold
CARGO := cargo
LOCKED := --locked
# nextest where it is installed; cargo's own runner everywhere else. Both read CARGO_TARGET_DIR.
HAS_NEXTEST := $(shell cargo nextest --version >/dev/null 2>&1 && echo yes)
JUNIT := $(TARGET_DIR)/nextest/default/junit.xml

.PHONY: help
help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-14s %s\n", $$1, $$2}'

.PHONY: setup
setup: ## install the Debian packages that are missing, and check Rust
	@scripts/setup

.PHONY: build
build: setup ## debug build: pinfold, its guest and its launcher
	$(CARGO) build $(LOCKED) --workspace --bins --tests

.PHONY: release
release: setup ## one static binary, in dist/pinfold
	@scripts/release

.PHONY: run
run: release ## build a release and run the server in the foreground
	$(PINFOLD) up

.PHONY: test
test: build ## all tests
ifeq ($(HAS_NEXTEST),yes)
	$(CARGO) test $(LOCKED) --workspace --doc --quiet
	$(CARGO) nextest run $(LOCKED) --workspace --no-fail-fast
else
	$(CARGO) test $(LOCKED) --workspace --no-fail-fast
endif
	@$(CARGO) xtask controls $(if $(HAS_NEXTEST),--ran $(JUNIT))

.PHONY: lint
lint: ## formatting and clippy, warnings are errors
	$(CARGO) fmt --all --check
	$(CARGO) clippy $(LOCKED) --workspace --all-targets -- -D warnings

.PHONY: check
check: ## the house rules: floors, sizes, unsafe, bans, controls, docs, secrets
	$(CARGO) xtask check

.PHONY: dogfood
dogfood: release ## this repository's own tests inside its own workspaces, in four forks
	@PINFOLD=$(PINFOLD) scripts/dogfood

.PHONY: bench-setup
bench-setup: ## install the peers that the benchmarks run beside
	@scripts/setup bench
	@scripts/bench-peers

.PHONY: bench
bench: release ## the benchmark table beside its peers, into docs/reports/bench.md
	$(CARGO) build --release $(LOCKED) -p pinfold-bench
	$(RELEASE)/pinfold-bench --pinfold $(PINFOLD) --report docs/reports/bench.md

.PHONY: soak
soak: build ## the long tests: kill-test, 5,000 workspaces, the API; report in docs/reports/
	@scripts/soak

.PHONY: schemathesis
schemathesis: build ## the API against its own document
	$(CARGO) test $(LOCKED) --workspace --test openapi -- --nocapture --test-threads=1

.PHONY: conformance
conformance: build ## the official MCP conformance runner, against /mcp and against fixtures
	$(CARGO) test $(LOCKED) --workspace --test it --test mcp scenario

.PHONY: fuzz-smoke
fuzz-smoke: ## every fuzz target for a minute (60 s; FUZZ_SECONDS changes it)
	@scripts/fuzz-smoke

.PHONY: ci
ci: ## what CI runs
	@bash .ci/run

.PHONY: clean
clean: ## remove what the targets built
	$(CARGO) clean
	rm -rf dist
