# The only entry point for developers and users. `make help` lists what there is.
# Targets are a few lines each; longer logic is Rust in integration/src/bin.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
MAKEFLAGS += --no-print-directory
.NOTPARALLEL:
CARGO ?= cargo
PREFIX ?= /usr/local
DESTDIR ?=

# The binaries that ship are linked statically against musl: no loader, and none of
# glibc's start-up, which asks the processor about itself some 80 times; in a virtual
# machine that traps cpuid this is most of a short command's time. Where the target is
# neither installed nor to be had from rustup, glibc serves, linked statically too.
# `make TARGET=...` decides. The question is asked once, and only where it matters.
MUSL := x86_64-unknown-linux-musl
GLIBC := x86_64-unknown-linux-gnu
FIND_TARGET = if [ -d "$$(rustc --print target-libdir --target $(MUSL) 2>/dev/null)" ] || \
	timeout 120 rustup target add $(MUSL) >/dev/null 2>&1; then echo $(MUSL); else echo $(GLIBC); fi
ifndef TARGET
TARGET = $(eval TARGET := $$(shell $$(FIND_TARGET)))$(TARGET)
endif
STATIC := -C target-feature=+crt-static -C relocation-model=static
BUILT = $(or $(CARGO_TARGET_DIR),target)/$(TARGET)
RELEASE = $(BUILT)/release
RUNTIME ?= $(abspath $(RELEASE)/hull-runtime)
SHIM ?= $(abspath $(RELEASE)/containerd-shim-hull-v2)
INIT ?= $(abspath $(RELEASE)/hull-init)
HULLD = $(abspath $(BUILT)/manager/hulld)
HULL = $(abspath $(BUILT)/manager/hull)
CNI = $(abspath $(BUILT)/manager/hull-cni)
# SQLite and ring are C: for musl they are compiled by its own wrapper of gcc.
export CC_x86_64_unknown_linux_musl ?= musl-gcc

# What `--version` calls the commit. Empty outside a git repository.
COMMIT = $(shell git describe --always --dirty --abbrev=12 --exclude='*' 2>/dev/null)

# Debian packages: to build, for the demo, for `make test`, for the virtual machine.
BUILD_PACKAGES := gcc libc6-dev musl-tools
DEMO_PACKAGES := $(BUILD_PACKAGES) busybox-static iproute2 jq mmdebstrap procps util-linux
PACKAGES := $(DEMO_PACKAGES) acl ca-certificates conmon containerd \
	containernetworking-plugins criu crun docker.io docker-registry fuse-overlayfs \
	golang-github-containers-common iproute2 iptables jq nftables openssl podman \
	python3-venv runc skopeo strace \
	uidmap umoci util-linux
VM_PACKAGES := $(DEMO_PACKAGES) cpio e2fsprogs jq kmod qemu-system-x86 util-linux

BIN = $(DESTDIR)$(PREFIX)/bin
# Where podman looks for plugins; containerd is told of it, or has a link in /opt/cni/bin.
PLUGINS = $(DESTDIR)$(PREFIX)/lib/cni
SHARE = $(DESTDIR)$(PREFIX)/share
# Completions and manual pages are made by the programs that they are of.
DOCUMENTED = hull hull-runtime
BASH_COMPLETION = $(SHARE)/bash-completion/completions
ZSH_COMPLETION = $(SHARE)/zsh/site-functions
FISH_COMPLETION = $(SHARE)/fish/vendor_completions.d
MAN = $(SHARE)/man
UNITS = $(DESTDIR)$(PREFIX)/lib/systemd/system

.PHONY: help
help: ## List the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | sort | expand -t 16

.PHONY: demo
demo: demo-deps build ## Start a manager, run containers, explain each step (as root)
	@HULL_HULLD=$(HULLD) HULL_CLI=$(HULL) HULL_INIT=$(INIT) HULL_SHIM_PROGRAM=$(SHIM) \
		HULL_RUNTIME=$(RUNTIME) bash integration/demo.sh

.PHONY: test
test: deps check unit build check-install integration shim manager strangers ## Everything that must pass before a change lands (as root)

.PHONY: check
check: ## Formatting, lints, documentation, the repository's own rules
	$(CARGO) fmt --all --check
	$(CARGO) clippy --locked --workspace --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --locked --workspace --no-deps --document-private-items --quiet
	$(CARGO) run --locked --quiet -p hull-integration --bin tidy

.PHONY: unit
unit: ## Unit tests, and the tests of single packages
	$(CARGO) test --locked --workspace --exclude hull-integration --tests
	$(CARGO) test --locked -p hull-integration --lib --bins

.PHONY: registry
registry: ## The registry client against Debian's registry, and against hostile ones
	$(CARGO) test --locked -p hull-manager-registry --test registry -- $(ARGS)

.PHONY: integration
integration: build ## The suite against the release binary, or RUNTIME=runc (as root)
	HULL_RUNTIME=$(RUNTIME) $(CARGO) test --locked -p hull-integration --test runtime -- $(ARGS)

.PHONY: shim
shim: build ## The shim's suite; SHIM=runc drives containerd's own, CONTAINERD=dir another containerd (as root)
	HULL_SHIM=$(SHIM) HULL_CONTAINERD=$(CONTAINERD) HULL_RUNTIME=$(RUNTIME) \
		$(CARGO) test --locked -p hull-integration --test shim -- $(ARGS)

.PHONY: faults
faults: build ## The shim killed at each of its system calls, and refused each write (as root; takes minutes)
	@bash integration/deps.sh strace
	HULL_SHIM=$(SHIM) HULL_RUNTIME=$(RUNTIME) $(CARGO) test --locked -p hull-integration --test faults -- $(ARGS)

.PHONY: strangers
strangers: build ## podman, containerd and dockerd on the release binary, or RUNTIME=runc (as root)
	HULL_RUNTIME=$(RUNTIME) HULL_CNI=$(CNI) $(CARGO) test --locked -p hull-integration --test strangers -- $(ARGS)

.PHONY: manager
manager: build ## hulld and hull, by what people type; ENGINE=docker proves the tests (as root)
	HULL_ENGINE=$(ENGINE) HULL_HULLD=$(HULLD) HULL_CLI=$(HULL) HULL_INIT=$(INIT) \
		HULL_SHIM_PROGRAM=$(SHIM) HULL_RUNTIME=$(RUNTIME) \
		$(CARGO) test --locked -p hull-integration --test manager -- $(ARGS)

.PHONY: conformance
conformance: build ## The OCI's validation programs, RUNTIME_TOOLS=dir has them built (as root)
	@[ -d "$(RUNTIME_TOOLS)/validation" ] || { echo "RUNTIME_TOOLS must name a checkout of runtime-tools, built" >&2; exit 1; }
	$(CARGO) run --locked --quiet -p hull-integration --bin conformance -- \
		--runtime $(RUNTIME) --tools $(RUNTIME_TOOLS) $(ARGS)

# A test program of the harness, and a command in a machine that has our binaries.
SUITE = $$($(CARGO) test --locked --quiet -p hull-integration --test $(1) --no-run --message-format=json \
	| jq -r 'select(.executable and .target.name == "$(1)").executable')
IN_VM = $(CARGO) run --locked --quiet -p hull-integration --bin vm -- \
	--program $(RUNTIME) --env HULL_RUNTIME=$(RUNTIME) --env HULL_PATIENCE=4

# An emulated machine is slow: what its kernel, AppArmor and systemd do not decide is left out.
SKIP = $(foreach module,$(1),--skip $(module)::)
RUNTIME_SYSTEMD_SKIPS := $(call SKIP,default_profiles input mounts mutants namespaces process scale \
	seccomp stress)
MANAGER_VM_SKIPS := $(call SKIP,api concurrency full_disk images logging recovery sessions volumes)

.PHONY: test-vm
test-vm: build ## The suites in Debian's kernel, in QEMU: cgroup v2, AppArmor, systemd, ufw, firewalld
	@bash integration/deps.sh $(VM_PACKAGES)
	suite=$(call SUITE,runtime); $(IN_VM) -- $$suite $(call SKIP,mutants) $(ARGS); \
	$(IN_VM) --boot systemd --env HULL_SYSTEMD=1 -- $$suite $(RUNTIME_SYSTEMD_SKIPS) $(ARGS)
	@# The machine has no containerd: what needs a real one is left out.
	suite=$(call SUITE,shim); $(IN_VM) --program $(SHIM) --env HULL_SHIM=$(SHIM) \
		--env HULL_SHIM_CONTAINERS=20 -- $$suite $(call SKIP,containerd api) $(ARGS)
	suite=$(call SUITE,manager); $(IN_VM) --boot systemd --memory 4096 \
		--program $(HULLD) --env HULL_HULLD=$(HULLD) --program $(HULL) --env HULL_CLI=$(HULL) \
		--program $(INIT) --env HULL_INIT=$(INIT) \
		--program $(SHIM) --env HULL_SHIM_PROGRAM=$(SHIM) -- $$suite $(MANAGER_VM_SKIPS) $(ARGS)

.PHONY: bench
bench: build ## Measure against runc, crun, youki and the floor (as root; ARGS=--quick)
	@bash integration/deps.sh $(BUILD_PACKAGES) busybox-static musl-tools
	$(CARGO) run --locked --release --quiet -p hull-integration --bin bench -- --hull $(RUNTIME) $(ARGS)

.PHONY: bench-shim
bench-shim: build ## Measure the shim against containerd's, conmon and dockerd (as root; ARGS=--quick)
	@# Not --release, where a panic aborts and so leaves containers behind.
	$(CARGO) run --locked --quiet -p hull-integration --bin bench-shim -- \
		--shim $(SHIM) --runtime $(RUNTIME) $(ARGS)

.PHONY: bench-manager
bench-manager: build ## Measure hulld against dockerd and podman (as root; ARGS=--quick)
	HULL_HULLD=$(HULLD) HULL_CLI=$(HULL) HULL_INIT=$(INIT) HULL_SHIM_PROGRAM=$(SHIM) HULL_RUNTIME=$(RUNTIME) \
		$(CARGO) run --locked --quiet -p hull-integration --bin bench-manager -- $(ARGS)

.PHONY: bench-network
bench-network: build ## Measure networks against dockerd, podman and a plain bridge (as root; ARGS=--quick)
	@bash integration/deps.sh netavark
	HULL_HULLD=$(HULLD) HULL_CLI=$(HULL) HULL_INIT=$(INIT) HULL_SHIM_PROGRAM=$(SHIM) HULL_RUNTIME=$(RUNTIME) \
		$(CARGO) run --locked --quiet -p hull-integration --bin bench-network -- $(ARGS)

.PHONY: layout
layout: build ## Write anew which functions of hulld lie together (as root)
	RUSTFLAGS="$(STATIC)" $(CARGO) rustc --profile manager --locked --target $(TARGET) -p hulld \
		-- -C link-arg=-Wl,-Map=$(abspath $(BUILT)/hulld.map)
	HULL_HULLD=$(HULLD) HULL_CLI=$(HULL) HULL_INIT=$(INIT) HULL_SHIM_PROGRAM=$(SHIM) HULL_RUNTIME=$(RUNTIME) \
		$(CARGO) run --locked --quiet -p hull-integration --bin layout -- \
		$(abspath $(BUILT)/hulld.map) manager/daemon/layout.ld

.PHONY: build
build: ## Build the release binaries
	@command -v $(CARGO) >/dev/null || { echo "cargo is missing: install Rust 1.95 or later" >&2; exit 1; }
	HULL_COMMIT="$(COMMIT)" RUSTFLAGS="$(STATIC)" \
		$(CARGO) build --release --locked --target $(TARGET) -p hull-runtime -p hull-shim -p hull-init
	HULL_COMMIT="$(COMMIT)" RUSTFLAGS="$(STATIC)" \
		$(CARGO) build --profile manager --locked --target $(TARGET) \
		-p hulld -p hull -p hull-manager-networks

.PHONY: install
install: build ## Install binaries, completions and manual pages below PREFIX (/usr/local)
	install -D -m 755 $(RUNTIME) $(BIN)/hull-runtime
	install -D -m 755 $(SHIM) $(BIN)/containerd-shim-hull-v2
	install -D -m 755 $(INIT) $(BIN)/hull-init
	install -D -m 755 $(HULLD) $(BIN)/hulld
	install -D -m 755 $(HULL) $(BIN)/hull
	install -D -m 755 $(CNI) $(PLUGINS)/hull-cni
	install -d $(UNITS)
	sed 's|@BIN@|$(PREFIX)/bin|' manager/daemon/hulld.service > $(UNITS)/hulld.service
	install -d $(BASH_COMPLETION) $(ZSH_COMPLETION) $(FISH_COMPLETION) $(MAN)/man1 $(MAN)/man8
	@for program in $(DOCUMENTED); do \
		$(BIN)/$$program completion bash > $(BASH_COMPLETION)/$$program; \
		$(BIN)/$$program completion zsh > $(ZSH_COMPLETION)/_$$program; \
		$(BIN)/$$program completion fish > $(FISH_COMPLETION)/$$program.fish; \
	done
	$(BIN)/hull man --dir $(MAN)/man1
	$(BIN)/hull-runtime man --dir $(MAN)/man8

.PHONY: uninstall
uninstall: ## Remove what install installed
	rm -f $(BIN)/hull-init $(BIN)/hulld $(BIN)/hull $(UNITS)/hulld.service
	rm -f $(BIN)/hull-runtime $(BIN)/containerd-shim-hull-v2 $(PLUGINS)/hull-cni
	rm -f $(foreach program,$(DOCUMENTED),$(BASH_COMPLETION)/$(program) \
		$(ZSH_COMPLETION)/_$(program) $(FISH_COMPLETION)/$(program).fish)
	rm -f $(MAN)/man1/hull.1 $(MAN)/man1/hull-*.1 $(MAN)/man8/hull-runtime.8 $(MAN)/man8/hull-runtime-*.8

.PHONY: check-install
check-install: build ## Install to a temporary directory, uninstall, and see that no file is left
	@place=$$(mktemp -d); trap 'rm -r "$$place"' EXIT; \
	$(MAKE) --silent install DESTDIR=$$place >/dev/null; \
	"$$place$(PREFIX)/bin/hull-runtime" --version >/dev/null; \
	"$$place$(PREFIX)/bin/containerd-shim-hull-v2" -v >/dev/null; \
	echo '{}' | CNI_COMMAND=VERSION "$$place$(PREFIX)/lib/cni/hull-cni" | grep -q '"1.1.0"'; \
	bash -n "$$place$(PREFIX)"/share/bash-completion/completions/*; \
	for page in hull.1 hull-run.1 hull-container-ls.1 hull-runtime.8; do \
		grep -q '^\.TH' "$$place$(PREFIX)/share/man/man$${page##*.}/$$page" || { echo "$$page is missing" >&2; exit 1; }; \
	done; \
	count=$$(find "$$place" -type f -size +0 | wc -l); \
	[ "$$count" -ge 100 ] || { echo "install made only $$count files" >&2; exit 1; }; \
	$(MAKE) --silent uninstall DESTDIR=$$place; \
	left=$$(find "$$place" -type f); \
	[ -z "$$left" ] || { echo "uninstall left $$left" >&2; exit 1; }; \
	echo "install and uninstall: $$count files, none left"

.PHONY: deps
deps: ## Install the Debian packages that test uses (services are not started)
	@bash integration/deps.sh $(PACKAGES)

.PHONY: demo-deps
demo-deps:
	@bash integration/deps.sh $(DEMO_PACKAGES)

.PHONY: clean
clean: ## Remove what was built
	$(CARGO) clean
