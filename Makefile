# The only entry point for developers and users. `make help` lists what there is.
# Targets are a few lines each; longer logic is Rust in integration/src/bin.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
MAKEFLAGS += --no-print-directory
PREFIX ?= /usr/local
DESTDIR ?=
CARGO ?= cargo

# The binaries that ship are linked statically against musl: no loader, and none of
# glibc's start-up, which asks the processor about itself some 80 times; in a virtual
# machine that traps cpuid this is most of a short command's time. Where rustup can't
# provide the target, glibc serves, linked statically too.
MUSL := x86_64-unknown-linux-musl
GLIBC := x86_64-unknown-linux-gnu
TARGET ?= $(shell rustup target add $(MUSL) >/dev/null 2>&1 && echo $(MUSL) || echo $(GLIBC))
STATIC := -C target-feature=+crt-static -C relocation-model=static
RELEASE := $(or $(CARGO_TARGET_DIR),target)/$(TARGET)/release
RUNTIME ?= $(abspath $(RELEASE)/hull-runtime)

PACKAGES := acl apparmor busybox-static ca-certificates conmon containerd containernetworking-plugins \
	cpio criu crun docker.io fuse-overlayfs gcc golang-github-containers-common iproute2 iptables jq \
	libc6-dev mmdebstrap nftables podman procps runc skopeo uidmap umoci util-linux

.PHONY: help
help: ## List the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | sort | expand -t 16

.PHONY: build
build: ## Build the release binaries
	@command -v $(CARGO) >/dev/null || { echo "cargo is missing: install Rust 1.95 or later" >&2; exit 1; }
	RUSTFLAGS="$(STATIC)" $(CARGO) build --release --locked --target $(TARGET) -p hull-runtime

.PHONY: deps
deps: ## Install the Debian packages that demo and test use (services are not started)
	@bash integration/deps.sh $(PACKAGES)

.PHONY: check
check: ## Formatting, lints, documentation, dependency rules
	$(CARGO) fmt --all --check
	$(CARGO) clippy --locked --workspace --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --locked --workspace --no-deps --document-private-items --quiet
	$(CARGO) run --locked --quiet -p hull-integration --bin tidy

.PHONY: unit
unit: ## Unit tests
	$(CARGO) test --locked --workspace --lib --bins

.PHONY: test
test: deps check unit build ## Everything that must pass before a change lands

.PHONY: clean
clean: ## Remove what was built
	$(CARGO) clean
