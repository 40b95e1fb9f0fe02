# make demo | test | build | gpu-check | pose-weights | clean | help.  PYTHON=python3.12 chooses the interpreter for .venv.
PYTHON ?= python3
ifeq ($(origin CXX),default)
CXX := c++
endif
VENV := .venv
BIN := $(VENV)/bin
DEMO_FLAGS ?=

# Tests share the cores by worker, not by thread.
TEST_WORKERS ?= 2
TESTS ?= tests
LINT := "ruff>=0.17,<0.18" "mypy>=2.4,<3" "clang-format>=23,<24" pre-commit types-PyYAML
DOCS := "mkdocs>=1.6,<2" "mkdocs-material>=9.5,<10" "mkdocstrings[python]>=0.30,<2"
PYTEST_FLAGS ?=
FUZZ_SECONDS ?= 60
GPU_CHECK_FLAGS ?=
FUZZ_COUNT ?= 1000000000

CPP := $(shell find csrc tests/simt -name '*.h' -o -name '*.cpp' -o -name '*.cu' -o -name '*.cuh')

NATIVE := setup.py CMakeLists.txt pyproject.toml $(shell find csrc -type f 2>/dev/null)

.DEFAULT_GOAL := help
.PHONY: help build demo test lint format docs fuzz fuzz-sanitized gpu-check pose-weights clean

help:
	@echo "make demo        set up .venv, then train all three stages on the built-in synthetic world (runs/demo/)"
	@echo "make test        set up .venv, then run the test suite   (TESTS=tests/test_rasterize.py for a part)"
	@echo "make lint        style and types: ruff, clang-format, mypy; make format mends the style"
	@echo "make docs        the documentation into site/, links checked; open site/index.html"
	@echo "make fuzz        hostile calls of every op for FUZZ_SECONDS (60); make fuzz-sanitized: under AddressSanitizer and UBSan"
	@echo "make build       only set up .venv: dependencies and the compiled package, in place"
	@echo "make pose-weights  fetch the pose model that estimate-meshes needs, once (the tests that need it do so too)"
	@echo "make gpu-check   PYTHON=...: build, check and measure on a CUDA machine with that Python, no network needed; ten minutes"
	@echo "make clean       remove build products (not .venv, not runs/)"
	@echo "PYTHON=$(PYTHON) makes .venv and must be 3.10 or newer"

build: $(VENV)/.built

HAS_HEADERS := import os, sysconfig; raise SystemExit(not os.path.exists(sysconfig.get_path("include") + "/Python.h"))
say_no = { echo "error: $(1)" >&2; exit 1; }

$(VENV)/.made:
	@command -v $(PYTHON) >/dev/null \
	  || $(call say_no,no $(PYTHON) here. Name a Python >= 3.10: make build PYTHON=/path/to/python3)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' \
	  || $(call say_no,Python >= 3.10 is needed. $(PYTHON) is $$($(PYTHON) -V 2>&1). Name another: make build PYTHON=python3.12)
	@$(PYTHON) -c '$(HAS_HEADERS)' \
	  || $(call say_no,$(PYTHON) has no Python.h. Install its development package (Debian and Ubuntu: apt install python3-dev))
	@echo 'int main(){}' | $(CXX) -std=c++20 -x c++ -fsyntax-only - 2>/dev/null \
	  || $(call say_no,no C++20 compiler ($(CXX)). Install one (Debian and Ubuntu: apt install g++) or name it: make build CXX=g++-12)
	$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); \
	  echo "error: $(PYTHON) cannot make a virtual environment (Debian and Ubuntu: apt install python3-venv)" >&2; exit 1; }
	@touch $@

# torch first: the build imports it. What is installed already costs nothing here. DALI and faiss have no wheels for some
# systems; the package works without them.
$(VENV)/.built: $(NATIVE) | $(VENV)/.made
	$(BIN)/python -m pip install --quiet "setuptools>=64" wheel "cmake>=3.22" ninja numpy
	$(BIN)/python -m pip install --quiet --progress-bar on torch torchvision
	CXX="$(CXX)" $(BIN)/python -m pip install --quiet --no-build-isolation -e ".[all]" || { \
	  echo "note: trying again without the optional DALI and faiss" >&2; \
	  CXX="$(CXX)" $(BIN)/python -m pip install --quiet --no-build-isolation -e ".[train,backbones,metrics,export,test]"; }
	@touch $@

demo: build
	$(BIN)/gcl-fast demo $(DEMO_FLAGS)

test: build
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest $(TESTS) -n $(TEST_WORKERS) --dist loadfile -p no:benchmark $(PYTEST_FLAGS)

$(VENV)/.lint: pyproject.toml | $(VENV)/.built
	$(BIN)/python -m pip install --quiet $(LINT)
	@touch $@

lint: $(VENV)/.lint
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	@echo "clang-format --dry-run --Werror csrc tests/simt"; $(BIN)/clang-format --dry-run --Werror $(CPP)
	$(BIN)/mypy

format: $(VENV)/.lint
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/clang-format -i $(CPP)

$(VENV)/.docs: pyproject.toml | $(VENV)/.built
	$(BIN)/python -m pip install --quiet $(DOCS)
	@touch $@

docs: $(VENV)/.docs
	$(BIN)/python bench/tables.py --check
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --clean

pose-weights: build
	$(BIN)/gcl-fast estimate-meshes --weights download

fuzz: build
	$(BIN)/python -m tests.fuzz.run --seconds $(FUZZ_SECONDS) --count $(FUZZ_COUNT)

# The package compiled once more, for the CPU, with sanitizers; they must be loaded before Python itself is.
SANITIZE := -fsanitize=address,undefined -fno-sanitize=vptr -fno-sanitize-recover=all -fno-omit-frame-pointer -g1 -O1
SANITIZED := build/sanitized
PRELOAD = $$($(CXX) -print-file-name=libasan.so):$$($(CXX) -print-file-name=libstdc++.so)
$(SANITIZED)/.built: $(NATIVE) | build
	CXX="$(CXX)" CXXFLAGS="$(SANITIZE)" GCL_CUDA=0 GCL_BUILD_DIR=build/sanitized-tree \
	  $(BIN)/python setup.py -q build --build-base build/sanitized-base --build-lib $(SANITIZED)
	@touch $@

fuzz-sanitized: $(SANITIZED)/.built
	cp -r gcl_fast/. $(SANITIZED)/gcl_fast.new && rm -f $(SANITIZED)/gcl_fast.new/_C*.so && \
	  mv $(SANITIZED)/gcl_fast/_C*.so $(SANITIZED)/gcl_fast.new/ && rm -rf $(SANITIZED)/gcl_fast && \
	  mv $(SANITIZED)/gcl_fast.new $(SANITIZED)/gcl_fast
	cd $(SANITIZED) && LD_PRELOAD="$(PRELOAD)" PYTHONPATH="$(CURDIR)" GCL_SANITIZER="AddressSanitizer and UBSan" \
	  ASAN_OPTIONS=detect_leaks=0:allocator_may_return_null=1:max_allocation_size_mb=8192 UBSAN_OPTIONS=print_stacktrace=1 \
	  "$(CURDIR)/$(BIN)/python" -m tests.fuzz.run --seconds $(FUZZ_SECONDS)

gpu-check:
	$(PYTHON) -m bench.gpu_check $(GPU_CHECK_FLAGS)

clean:
	rm -rf build dist *.egg-info gcl_fast/_C*.so $(VENV)/.built .pytest_cache .hypothesis .benchmarks
	find gcl_fast tests bench -name __pycache__ -type d -prune -exec rm -rf {} +
