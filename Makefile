# SPDX-License-Identifier: MIT
# Everything a checkout needs, from Python, make and a C++17 compiler. The tools (cmake and ninja
# too) come from PyPI into .venv. .venv/.stamp says: tools and compiled package are there and are
# newer than what they are made from.

PYTHON ?= $(shell for p in python3 python3.14 python3.13 python3.12 python3.11 python3.10; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null && echo $$p && exit; done)
WERROR ?= OFF
# Whether crfseg._cuda is built, and for what: 75-virtual is compiled for a device when it is first
# loaded there; `native` is for this machine's, empty for all, as in a release.
CUDA ?= AUTO
CUDA_ARCHITECTURES ?= 75-virtual
DIST_CUDA ?= AUTO
PYTEST_ARGS ?=
BENCH_ARGS ?=
INSTRUCTIONS_ARGS ?=
ROOFLINE_ARGS ?=

BIN := .venv/bin
STAMP := .venv/.stamp
SETTINGS := .venv/.settings
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet install --constraint constraints.txt
ADAPTED := tests/adapters/constraints.txt
BUILD_TOOLS := cmake ninja packaging pathspec pybind11 scikit-build-core
NATIVE := $(sort $(shell find csrc -type f))
KERNELS := $(filter csrc/cuda/%.cu,$(NATIVE))
ARCHITECTURES := 75 80 86 89 90 100 120
CPP := $(filter %.cpp %.h %.cu %.cuh,$(NATIVE)) $(wildcard benchmarks/native/*.cpp) \
	$(foreach room,cpp emulation emulation/planted,$(wildcard tests/$(room)/*.cpp tests/$(room)/*.h))
CMAKE := $(BIN)/cmake -G Ninja -D CMAKE_MAKE_PROGRAM=$(CURDIR)/$(BIN)/ninja -D CRFSEG_WERROR=ON \
	-D CRFSEG_BUILD_PYTHON=OFF -S . -B
FOR_PYTHON = -D Python_EXECUTABLE=$(CURDIR)/$(BIN)/python \
	-D pybind11_DIR=$$($(BIN)/python -m pybind11 --cmakedir)

.PHONY: demo test test-core build peer torch adapters lint format bench programs instructions roofline tables pictures emulate emulated sanitize cuda dist clean

demo: $(STAMP)
	$(BIN)/python -m crfseg.demo

test: torch emulated test-core

# With torch where it has been installed; without, the tests that need it are skipped.
test-core: $(STAMP) peer
	$(BIN)/pytest $(PYTEST_ARGS)

build: $(STAMP)

# What a build goes by beside files: written anew where it has changed.
$(SETTINGS): FORCE
	@mkdir -p $(@D); now="$(CUDA) $(CUDA_ARCHITECTURES) $$(command -v nvcc)"; \
		test "$$now" = "$$(cat $@ 2>/dev/null)" || echo "$$now" >$@

FORCE:

$(STAMP): pyproject.toml constraints.txt CMakeLists.txt cmake/cuda.cmake $(NATIVE) $(SETTINGS)
	@test -n "$(PYTHON)" || { echo "crfseg needs Python 3.10 or newer: make PYTHON=/path/to/python"; exit 1; }
	@echo "setting up .venv: tools, and the native code compiled (some minutes)"
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(PIP) $(BUILD_TOOLS)
	$(PIP) --no-build-isolation --config-settings=cmake.define.CRFSEG_WERROR=$(WERROR) \
		--config-settings=cmake.define.CRFSEG_CUDA=$(CUDA) \
		--config-settings=cmake.define.CRFSEG_CUDA_ARCHITECTURES='$(CUDA_ARCHITECTURES)' --editable '.[dev]'
	@touch $@

# pydensecrf2, which parity tests and benchmarks compare with, has no wheels and does not compile
# everywhere: one attempt per .venv, and what pip said stays in .venv/peer.log.
peer: $(STAMP)
	@test -e .venv/peer.log || { echo "compiling pydensecrf2 (about a minute)"; \
		$(PIP) pydensecrf2 >.venv/peer.log 2>&1 || true; }
	@$(BIN)/python -c 'import pydensecrf.densecrf' 2>/dev/null || \
		echo "pydensecrf2 could not be installed (.venv/peer.log): parity is held by recorded outputs"

# For crfseg.torch and its tests.
torch: $(STAMP)
	@$(BIN)/python -c 'import torch' 2>/dev/null || $(PIP) torch

# What crfseg/adapters is tested with, beside recorded structures. mmsegmentation asks for an mmcv that
# has no wheels; mmcv-lite, without compiled ops, is enough for its data samples.
adapters: torch
	$(PIP) --constraint $(ADAPTED) transformers torchvision segmentation-models-pytorch monai mmengine \
		ftfy prettytable scipy
	$(PIP) --constraint $(ADAPTED) --no-deps mmcv-lite mmsegmentation

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/clang-format --dry-run -Werror $(CPP)

format: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/clang-format -i $(CPP)

bench: $(STAMP) peer
	$(BIN)/python benchmarks/bench_refine.py $(BENCH_ARGS)

programs: $(STAMP)
	$(CMAKE) build/benchmarks -D CRFSEG_BUILD_BENCHMARKS=ON -D CRFSEG_BUILD_TESTS=OFF
	$(BIN)/cmake --build build/benchmarks

# Counts instructions with valgrind; INSTRUCTIONS_ARGS=--record takes them as the new budget.
instructions: programs
	$(BIN)/python benchmarks/bench_instructions.py $(INSTRUCTIONS_ARGS) build/benchmarks/stages

# What the machine can do, and what an iteration takes of it.
roofline: programs
	$(BIN)/python benchmarks/bench_roofline.py $(ROOFLINE_ARGS) build/benchmarks

# The documents' tables and figure, from what lies in benchmarks/results.
tables: $(STAMP)
	$(BIN)/python benchmarks/render.py

# What each parameter does, for docs/parameters.md.
pictures: $(STAMP)
	$(BIN)/python benchmarks/panels.py

# The kernels for devices on the host, in shuffled orders of threads. The core that they are compared
# with is the one that programs are measured with.
emulate: emulated
	$(BIN)/cmake --build build/benchmarks --target emulation
	$(BIN)/ctest --test-dir build/benchmarks/tests/emulation --output-on-failure --no-tests=error

# The module for devices over the emulation, for the tests of the Python side.
emulated: $(STAMP)
	$(CMAKE) build/benchmarks -D CRFSEG_BUILD_TESTS=ON -D CRFSEG_EMULATED_MODULE=ON $(FOR_PYTHON)
	$(BIN)/cmake --build build/benchmarks --target emulated_cuda

# The C++ tests under AddressSanitizer + UndefinedBehaviorSanitizer, then under ThreadSanitizer.
sanitize: $(STAMP)
	$(CMAKE) build/asan -D CRFSEG_BUILD_TESTS=ON -D CRFSEG_SANITIZE=address,undefined
	$(BIN)/cmake --build build/asan
	$(BIN)/ctest --test-dir build/asan --parallel 2 --output-on-failure --no-tests=error
	$(CMAKE) build/tsan -D CRFSEG_BUILD_TESTS=ON -D CRFSEG_SANITIZE=thread
	$(BIN)/cmake --build build/tsan
	$(BIN)/ctest --test-dir build/tsan --parallel 2 --output-on-failure --no-tests=error

# Compiles the kernels with nvcc for all architectures, and holds them to their budget of registers;
# nothing is run. CUB's, in primitives.cu, are none of ours and not held to it. Then the module has to
# load, and to say what is missing where there is no driver.
cuda: $(patsubst csrc/cuda/%.cu,build/cuda/%.log,$(filter-out %/primitives.cu,$(KERNELS)))
	$(PYTHON) tools/check_kernels.py tools/kernel_budget.csv $^
	$(MAKE) build
	$(BIN)/python -I tools/try_cuda.py

build/cuda/%.log: csrc/cuda/%.cu $(filter-out csrc/cpu/% csrc/bindings/%,$(filter %.h %.cuh,$(NATIVE)))
	@mkdir -p build/cuda
	nvcc -std=c++17 --fmad=false -Icsrc -Werror all-warnings -Xcompiler -Wall,-Wextra -Xptxas -v \
		$(foreach sm,$(ARCHITECTURES),-gencode arch=compute_$(sm),code=sm_$(sm)) --threads 2 \
		-c -o /dev/null $< >$@ 2>&1 || { cat $@; rm $@; exit 1; }

# What a release would upload, checked and tried in an environment of its own: with kernels for all
# devices, which takes nvcc a while, unless DIST_CUDA=OFF.
dist: $(STAMP)
	rm -rf dist build/dist
	$(BIN)/python -m build --no-isolation --config-setting=cmake.define.CRFSEG_CUDA=$(DIST_CUDA)
	$(BIN)/python tools/check_dist.py dist
	$(BIN)/python -m venv build/dist
	build/dist/bin/python -m pip --disable-pip-version-check --quiet install --constraint constraints.txt \
		"$$(ls dist/*.whl)[cli]"
	cd build/dist && bin/crfseg --help >/dev/null && bin/python -I -m crfseg.demo

clean:
	rm -rf .venv build dist
