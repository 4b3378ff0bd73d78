# Each target is one command for an operator or a developer; `make help` lists them.
CARGO ?= cargo
TARGET := $(or $(CARGO_TARGET_DIR),target)
BINARY := $(TARGET)/release/kube-issuer-gateway

.PHONY: help
help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: run
run: ## the gateway in front of a stand-in API server: no cluster needed
	$(CARGO) build --locked
	$(CARGO) run --locked --quiet -p bench --bin stand_in

.PHONY: test
test: ## all tests except those that need a cluster
	$(CARGO) test --locked -p kube-issuer-gateway -p testing

.PHONY: emulated-test
emulated-test: ## the integration tests that hold under qemu, with the static binary of ARCH
	CARGO='$(CARGO)' ARCH=$(ARCH) tests/emulated

.PHONY: lint
lint: ## formatting, clippy and rustdoc, each warning an error
	$(CARGO) fmt --all --check
	$(CARGO) clippy --locked --workspace --all-targets -- -D warnings
	$(CARGO) clippy --locked --test cluster -- -D warnings
	RUSTDOCFLAGS='-D warnings' $(CARGO) doc --locked --workspace --no-deps --document-private-items

# FILES: other files than all of the pure modules, which take hours. The random lives take most of a run's time, and are about admission.
# Its builds have a folder of their own: cargo would take what is left of a mutant for a build of this tree.
MUTATED = $(or $(FILES),$(shell grep -rl '^//! Pure: ' src))
.PHONY: mutants
mutants: ## the pure modules with one mistake at a time: which of them no unit test notices
	tool=$$(.ci/tool cargo-mutants) && PATH="$$tool:$$PATH" CARGO_PROFILE_DEV_DEBUG=0 CARGO_TARGET_DIR=$(abspath $(TARGET))/mutants \
		$(CARGO) mutants --output $(TARGET) $(addprefix --file ,$(MUTATED)) \
		$(if $(findstring /admission,$(MUTATED)),,-- -- --skip random_lives)

# %c: counted in the file itself, so that a gateway that is killed keeps its counts. Adds llvm-tools to the toolchain, by rustup.
.PHONY: coverage
coverage: ## how many lines of each file the tests run, in the gateways that they start as well
	tool=$$(.ci/tool cargo-llvm-cov) && PATH="$$tool:$$PATH" CARGO_LLVM_COV_SETUP=yes \
		RUSTFLAGS='-C llvm-args=-runtime-counter-relocation' LLVM_PROFILE_FILE_NAME='%4m%c.profraw' \
		$(CARGO) llvm-cov --locked --ignore-run-fail --summary-only

.PHONY: modules
modules: ## which module of SRC (src) names which others
	$(CARGO) run --locked --quiet -p testing --bin modules -- $(or $(SRC),src)

.PHONY: build
build: ## the release binary
	$(CARGO) build --locked --release

# musl's own allocator stays: mimalloc is faster and takes several times the memory at rest. What it
# gains and costs: CARGO=... bench/allocator.
# No path of the machine goes into it, so that whoever builds the same commit gets the same bytes. It has the list of its crates in it
# (cargo-auditable), which scanners of images read. What follows, such as `make image`, takes it from target/, wherever it was built.
ARCH ?= $(subst arm64,aarch64,$(shell uname -m))
STATIC = $(ARCH)-unknown-linux-musl/release/kube-issuer-gateway
REMAP = "--remap-path-prefix=$(CURDIR)=/src","--remap-path-prefix=$(or $(CARGO_HOME),$(HOME)/.cargo)=/cargo"
.PHONY: static
static: ## the release binary, fully static, for ARCH (x86_64, aarch64; this machine's); needs its musl target and a musl C compiler
	tool=$$(.ci/tool cargo-auditable) && PATH="$$tool:$$PATH" $(CARGO) auditable build --locked --release --target $(ARCH)-unknown-linux-musl \
		--config 'target."cfg(target_env=\"musl\")".rustflags=[$(REMAP)]'
	@[ $(TARGET)/$(STATIC) -ef target/$(STATIC) ] || install -D $(TARGET)/$(STATIC) target/$(STATIC)

# rustup target add ARCH-unknown-linux-musl; for another architecture than the machine's also a cross compiler for musl, named at
# CC_aarch64_unknown_linux_musl and CARGO_TARGET_AARCH64_UNKNOWN_LINUX_MUSL_LINKER.
VERSION := $(shell sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
IMAGE ?= kube-issuer-gateway:$(VERSION)
HELM ?= helm
PROMTOOL ?= promtool

.PHONY: image
image: static ## the image for ARCH: the static binary and nothing else
	install -D target/$(STATIC) target/image/kube-issuer-gateway
	docker build -f Dockerfile.scratch --platform linux/$(ARCH) \
		--build-arg VERSION=$(VERSION) --build-arg REVISION=$$(git rev-parse HEAD) -t $(IMAGE) .

.PHONY: image-test
image-test: ## the image, run as the cluster would run it
	IMAGE=$(IMAGE) tests/image/test

.PHONY: chart-test
chart-test: ## the chart, deploy.yaml and kustomization.yaml against each other, without a cluster
	HELM=$(HELM) tests/chart/run

.PHONY: dashboard-test
dashboard-test: ## the Grafana dashboard: its layout, its queries, and that docs/metrics.md has what they name
	tests/dashboard/check

.PHONY: alerts-test
alerts-test: ## the alerts: promtool's tests, and whether runbook, metrics and dashboard fit them
	PROMTOOL=$(PROMTOOL) tests/alerts/run

.PHONY: docs-test
docs-test: ## the code blocks of the Markdown pages: well-formed, and those marked for it run; with kind, the quick start too
	$(CARGO) build --locked -p kube-issuer-gateway -p bench
	HELM=$(HELM) tests/docs/run

.PHONY: forecasts
forecasts: ## what doctor foresees against what 17 real relying parties do; no cluster needed
	tests/doctor/forecasts

.PHONY: doctor-cases
doctor-cases: ## doctor of a good issuer behind nginx, and of eleven faults: its sentence and exit code for each
	tests/doctor/cases

.PHONY: doctor-memory
doctor-memory: ## what doctor takes of memory beside a gateway under load in 64 MiB
	GATEWAY=$${GATEWAY:-$(TARGET)/$(STATIC)} tests/doctor/memory

.PHONY: bench
bench: build ## requests a second, latency, CPU time, memory and start, beside nginx and Go's net/http
	GATEWAY=$${GATEWAY:-$(BINARY)} bench/compare

.PHONY: instructions
instructions: build ## instructions a request, by valgrind, each kind with a bound; for a profile: bench/instructions --profile
	GATEWAY=$${GATEWAY:-$(BINARY)} bench/instructions

.PHONY: metrics-cost
metrics-cost: ## what counting a request for /metrics costs, in nanoseconds
	$(CARGO) test --locked --release --bin kube-issuer-gateway -- --ignored --nocapture cost_of_a_request

.PHONY: rate
rate: build ## 1,000 requests a second for the key set, for a minute: what upstream sees of them
	GATEWAY=$${GATEWAY:-$(BINARY)} $(CARGO) run --locked --release --quiet -p bench --bin measure rate

.PHONY: outage
outage: build ## 200 requests a second while upstream fails for two minutes and comes back
	GATEWAY=$${GATEWAY:-$(BINARY)} $(CARGO) run --locked --release --quiet -p bench --bin measure outage

.PHONY: attack
attack: build ## some forty attacks against the gateway in 64 MiB: what well-behaved clients get meanwhile
	GATEWAY=$${GATEWAY:-$(BINARY)} $(CARGO) run --locked --release --quiet -p bench --bin attack

.PHONY: kind-up
kind-up: ## a kind cluster with an https issuer and no anonymous access to the documents
	tests/kind/up

.PHONY: kind-run
kind-run: build ## the gateway on this host, in front of that cluster's API server
	tests/kind/run

.PHONY: kind-verify
kind-verify: build ## real relying parties verify that cluster's tokens through the gateway
	tests/kind/verify

.PHONY: kind-rotation
kind-rotation: build ## a new signing key in that cluster: how soon real relying parties accept it
	tests/kind/rotation

.PHONY: kind-migration
kind-migration: build ## another issuer in that cluster, by two flags: who raises an alarm, and who does not
	tests/kind/migration

.PHONY: kind-watch
kind-watch: ## Prometheus on this host: scrapes the gateway of kind-run, kind-deploy or kind-helm, and checks the alerts
	tests/kind/watch

.PHONY: kind-dashboard
kind-dashboard: build ## an outage, a rotation and more in that cluster: the alerts, and a picture of the dashboard
	tests/kind/dashboard

.PHONY: kind-dry-run
kind-dry-run: ## what the chart renders beside what that cluster's API server would store of it
	tests/kind/gateway_api
	tests/kind/prometheus_operator
	HELM=$(HELM) tests/chart/dry_run

.PHONY: kind-load
kind-load: ## the image that `make image` built, into that cluster
	IMAGE=$(IMAGE) tests/kind/load

.PHONY: kind-deploy
kind-deploy: ## deploy.yaml in that cluster, on 127.0.0.1:30080
	tests/kind/deploy

.PHONY: kind-helm
kind-helm: ## the chart in that cluster, on 127.0.0.1:30080
	tests/kind/helm

.PHONY: kind-doctor
kind-doctor: ## doctor in that cluster: helm test, and kubectl exec with a wrong issuer and without its rights
	HELM=$(HELM) tests/kind/doctor

.PHONY: kind-test
kind-test: ## the gateway in that cluster: restarts, outages, rotations, and no request lost
	$(CARGO) test --locked --test cluster

.PHONY: kind-logs
kind-logs: ## what the gateway's pods in that cluster say
	tests/kind/logs

.PHONY: kind-down
kind-down: ## delete that cluster
	tests/kind/down

.PHONY: deny
deny: ## licences, sources and duplicates of all crates; advisories where their database can be had
	release/deny

.PHONY: advisories
advisories: ## known vulnerabilities of all crates; fails where their database cannot be had
	release/deny advisories

.PHONY: sbom
sbom: ## the CycloneDX bill of materials of the static binary for ARCH, into target/
	ARCH=$(ARCH) release/sbom

.PHONY: reproducible
reproducible: ## two builds of the static binary in two folders, equal to the bit (AGAINST=FILE: one, compared with FILE)
	CARGO='$(CARGO)' ARCH=$(ARCH) release/reproducible

.PHONY: release
release: ## checks, bumps, commits and tags VERSION=x.y.z; pushes nothing (DRY_RUN=1: shows it only)
	release/prepare $(if $(filter command,$(origin VERSION)),$(VERSION))

.PHONY: release-test
release-test: ## make release in clones that are thrown away, and each of its refusals; which binary make image takes
	tests/release/test

.PHONY: release-check
release-check: ## release.yml, first: HEAD is the release that Cargo.toml and its tag say
	release/publish check

.PHONY: release-files
release-files: ## release.yml, for ARCH: binary, SBOM and image into target/release-files
	ARCH=$(ARCH) IMAGE=$(IMAGE) release/publish files

.PHONY: publish
publish: ## release.yml: pushes images and chart in target/release-files to REGISTRY, and signs them (SIGN=no: does not)
	HELM=$(HELM) REGISTRY=$(REGISTRY) release/publish push

.PHONY: release-draft
release-draft: ## release.yml, last: a draft of the release on GitHub
	release/publish draft

.PHONY: workflows-test
workflows-test: ## the GitHub workflows, by actionlint and zizmor; each of their make targets exists
	tests/release/workflows

.PHONY: fuzz-check
fuzz-check: ## the fuzz targets hold for every input of their corpora: seconds, and no nightly toolchain
	CARGO='$(CARGO)' fuzz/check

.PHONY: fuzz
fuzz: ## each fuzz target for FUZZ_SECONDS (600); needs a nightly toolchain
	fuzz/run
