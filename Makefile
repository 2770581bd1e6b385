# The one list of commands; CI calls `make check` and `make test` and nothing else.
# Tests and checks share one target directory outside of the tree, so that a clean clone reuses built dependencies.
CACHE := $(if $(XDG_CACHE_HOME),$(XDG_CACHE_HOME),$(HOME)/.cache)
export CARGO_TARGET_DIR ?= $(CACHE)/myelin-target
export CARGO_TERM_COLOR ?= auto
CARGO ?= cargo

# Fixed time budgets of the seeded tests, in seconds for each kind; `make soak` raises them.
SIM_SECONDS ?= 20
SOAK_SECONDS ?= 900

.PHONY: help check test soak sim crash fuzz bench micro run setup bins docs clean

help: ## this list
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 20

check: ## formatting, lints, and licences where cargo-deny is installed
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets --locked -- -D warnings
	@if command -v cargo-deny >/dev/null 2>&1; then $(CARGO) deny --log-level error check licenses bans sources; \
	else echo "cargo-deny is not installed: licences, bans and sources were not checked"; fi

setup: ## install what the tests need (Debian packages, by name)
	@sh tests/setup.sh

bins: ## the two programs, as the tests use them
	$(CARGO) build --workspace --bins --locked

test: setup bins ## everything: unit, simulation, crash, conformance, end to end. A missing component is a failure
	MYELIN_TEST_STRICT=1 MYELIN_SIM_SECONDS=$(SIM_SECONDS) $(CARGO) test --workspace --locked

soak: setup bins ## the long versions: 10,000 seeds, more power cuts, longer load
	MYELIN_TEST_STRICT=1 MYELIN_SOAK=1 MYELIN_SIM_SECONDS=$(SOAK_SECONDS) $(CARGO) test --workspace --locked -- --nocapture

sim: ## simulation only; `make sim SEED=42` repeats one seed
	MYELIN_SIM_SECONDS=$(SIM_SECONDS) $(if $(SEED),MYELIN_SEED=$(SEED)) $(CARGO) test -p wal --test sim --locked -- --nocapture
	MYELIN_SIM_SECONDS=$(SIM_SECONDS) $(if $(SEED),MYELIN_SEED=$(SEED)) $(CARGO) test -p shard --lib --locked simulation -- --nocapture

crash: setup bins ## kill -9 and power cuts (needs root: loop mounts)
	MYELIN_TEST_STRICT=1 $(CARGO) test -p tests --locked --test crash -- --nocapture --test-threads 1

fuzz: ## fuzz targets for FUZZ_SECONDS each; `make fuzz TARGET=wal` for one
	sh tests/fuzz.sh $(TARGET)

bench: ## the same load on Myelin and on the Debian packages of VictoriaMetrics and Prometheus; `make bench ARGS="--workload churn --queries"`
	$(CARGO) build --release --locked -p myelin -p myelin-bench
	$(CARGO_TARGET_DIR)/release/myelin-bench compare $(ARGS)

micro: ## each stage alone, in nanoseconds; `cargo bench -p shard` for one crate
	$(CARGO) bench --locked -p wire -p chunk -p wal -p gateway -p shard -p reactor --benches

run: ## the server, release build, on 127.0.0.1:9009
	$(CARGO) run --release --locked

docs: ## rustdoc of our crates
	$(CARGO) doc --workspace --no-deps --locked

clean: ## the shared target directory
	$(CARGO) clean
