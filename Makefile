# Every command of the project; a bare `make` lists them. Nothing but Python, Rust, a C linker and
# make has to be there: the rest goes into .venv, and each step runs again only when what it was
# made from has changed. Everything that Python runs here runs the installed wheel, as a user
# would, and never the source tree.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DONE := $(VENV)/.done

SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

# PyO3 looks for the interpreter by this name; the same for every build, so that none undoes another.
export PYO3_PYTHON := $(CURDIR)/$(BIN)/python
# Property tests: "ci" draws many examples, the same in every run; "dev" draws few, new each time.
export HYPOTHESIS_PROFILE ?= ci

UV_INSTALL = $(BIN)/uv pip install --quiet --python $(BIN)/python
PYTHON_CODE := python tests examples benches
WHEEL_SOURCES := Cargo.toml $(wildcard Cargo.lock) pyproject.toml README.md $(wildcard LICENSE-*) \
	$(shell find rust python -type f ! -path '*/__pycache__/*' ! -name '*.so')

.PHONY: help
help:  ## list these targets
	@echo "usage: make TARGET [PYTHON=python3.12]"
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-12s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

.PHONY: demo
demo: $(DONE)/wheel  ## train an LSTM on handwritten digits, save, plot, reload (results in demo/)
	$(BIN)/python examples/digits.py --output demo

.PHONY: test
test: lint test-rust test-python  ## everything that must hold: lint, cargo test, pytest

.PHONY: test-rust
test-rust: tools  ## the crate's own tests; they need no Python
	cargo test --locked

.PHONY: test-python
test-python: $(DONE)/dev $(DONE)/wheel  ## pytest against the installed wheel, quick tests first
	$(BIN)/python -m pytest $(ARGS)

.PHONY: lint
lint: lint-python lint-rust  ## formatting, lints and types; changes nothing

.PHONY: lint-python
lint-python: $(DONE)/dev $(DONE)/wheel  ## ruff and mypy, and the stubs against the extension
	$(BIN)/ruff format --check $(PYTHON_CODE)
	$(BIN)/ruff check $(PYTHON_CODE)
	$(BIN)/python -m mypy
	$(BIN)/python -m mypy.stubtest rnncore._core

.PHONY: lint-rust
lint-rust: $(DONE)/venv  ## rustfmt and clippy, with and without the Python bindings
	cargo fmt --check
	cargo clippy --locked --all-targets -- -D warnings
	cargo clippy --locked --all-targets --features python,bench -- -D warnings

.PHONY: format
format: $(DONE)/dev  ## put Python and Rust into the project's format
	$(BIN)/ruff check --fix $(PYTHON_CODE)
	$(BIN)/ruff format $(PYTHON_CODE)
	cargo fmt

.PHONY: bench
bench: $(DONE)/bench $(DONE)/wheel  ## speed, asked and reached, beside torch, ONNX Runtime, JAX and Keras (ARGS=--help)
	$(BIN)/python benches/compare.py $(ARGS)

.PHONY: speed-page
speed-page: $(DONE)/wheel  ## docs/speed.md, its plots and README.md's table from RECORD=benches/results/CPU.json
	$(BIN)/python benches/page.py $(RECORD)

.PHONY: bench-rust
bench-rust: tools  ## kernels, layers and the roof over them, in flops a second (criterion)
	cargo bench --locked --features bench $(if $(ARGS),-- $(ARGS))

.PHONY: build
build: $(DONE)/wheel  ## a release wheel in dist/, installed into .venv

.PHONY: clean
clean:  ## remove all that was made here
	rm -rf $(VENV) target dist demo .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find python tests examples benches -name __pycache__ -type d -prune -exec rm -rf {} +

# What the targets stand on. Each leaves an empty file in $(DONE) when it has been done.

.PHONY: tools
tools:
	@command -v $(PYTHON) > /dev/null || { \
		echo "error: no '$(PYTHON)' here: install Python 3.11 or newer, or name it: make PYTHON=..." >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "error: '$(PYTHON)' is $$($(PYTHON) --version 2>&1): Python 3.11 or newer is needed; name one: make PYTHON=..." >&2; exit 1; }
	@command -v cargo > /dev/null || { \
		echo "error: no 'cargo' here: install Rust (https://rustup.rs), then open a new shell" >&2; exit 1; }
	@need=$$(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml); \
	have=$$(cargo --version | cut -d ' ' -f 2); \
	[ "$$(printf '%s\n' "$$need" "$$have" | sort -V | head -n 1)" = "$$need" ] || { \
		echo "error: cargo is $$have: Rust $$need or newer is needed (rustup update)" >&2; exit 1; }

$(DONE)/venv: | tools
	@$(PYTHON) -c 'import ensurepip, venv' 2> /dev/null || { \
		echo "error: '$(PYTHON)' has no venv module: install it too (Debian: apt install python3-venv)" >&2; exit 1; }
	$(PYTHON) -m venv --clear $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	@mkdir -p $(DONE) && touch $@

$(DONE)/dev: pyproject.toml | $(DONE)/venv
	$(UV_INSTALL) --group dev
	@touch $@

$(DONE)/bench: pyproject.toml | $(DONE)/venv
	$(UV_INSTALL) --group bench
	@touch $@

$(DONE)/wheel: $(WHEEL_SOURCES) | $(DONE)/venv
	$(UV_INSTALL) --group build
	rm -f dist/rnncore-*.whl
	$(BIN)/maturin build --release --locked --interpreter $(BIN)/python --out dist
	$(UV_INSTALL) --reinstall-package rnncore "$$(echo dist/rnncore-*.whl)[plot]"
	@touch $@
