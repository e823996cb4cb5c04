# `make` prints what there is. Targets that install or run containers need root.
SHELL := /bin/bash
export PATH := $(HOME)/.cargo/bin:$(PATH):/usr/sbin:/sbin
support := tests/support
nextest := $(shell command -v cargo-nextest 2>/dev/null)
shellcheck := $(shell command -v shellcheck 2>/dev/null)
scripts := $(wildcard $(support)/*.sh fixtures/images/*.sh .ci/run)

.DEFAULT_GOAL := help
.PHONY: help deps build images field-images demo test test-v2 lint bench clean

help: ## what there is
	@sed -nE 's/^([a-z0-9-]+):.*## (.*)$$/\1\t\2/p' Makefile | while IFS=$$'\t' read -r name text; do printf '  make %-12s %s\n' "$$name" "$$text"; done

deps: ## install what building, demo and tests need (Debian 12 and later, Fedora; root)
	@$(support)/deps.sh

build: ## the release binary, target/release/podstead
	cargo build --release --locked --bin podstead

images: ## the test images as OCI archives, fixtures/images/out
	@fixtures/images/build.sh

demo: deps images ## an nginx and a hello pod on the direct backend: ps, and a page from the pod
	@$(support)/demo.sh

field-images: ## the images of the manifests in fixtures/manifests/field, from packages of Debian
	@fixtures/images/field.sh > /dev/null || [ $$? = 77 ]

test: deps images field-images ## all tests, on containerd and libcontainer, then again on cgroup v2 where that can be had
ifdef nextest
	cargo nextest run --workspace --locked --no-fail-fast $(if $(CI),--profile ci)
	cargo test --workspace --locked --doc
else
	cargo test --workspace --locked --no-fail-fast
endif
	cargo test --package podstead --features mutants --test sim --locked every_planted_bug
	@$(support)/cgroup-v2.sh '^(conformance|traps)$$'
	@$(support)/cgroup-v2.sh '^e2e$$' walk:: slices::

test-v2: images ## only the tests on cgroup v2
	@$(support)/cgroup-v2.sh

lint: ## format, clippy, documentation, licences and sources of dependencies, shell scripts
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked -- -D warnings
	cargo clippy --package podstead --all-targets --features mutants --locked -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --document-private-items --locked
	@$(support)/deny.sh
	@$(if $(shellcheck),shellcheck $(scripts),echo "lint: shellcheck is not installed, scripts not checked")

bench: images ## the measurements behind docs/performance.md
	cargo bench --locked --bench "*"

clean: ## what was built
	cargo clean
	rm -rf fixtures/images/out
