# make compare: the main job on a fresh machine.  make test: the tests.  make check: lint, types, tests.
PYTHON ?= python3.11
VENV   ?= .venv
# An index with the small CPU wheels of torch, where you have one: make TORCH_INDEX=URL compare
TORCH_INDEX ?=
# cpu or gpu: by whether an NVIDIA driver answers
DEVICE ?= $(shell nvidia-smi -L >/dev/null 2>&1 && echo gpu || echo cpu)
ARGS   ?=
PIP    := $(VENV)/bin/python -m pip install --quiet --disable-pip-version-check

.PHONY: compare test check lint types clean
compare: $(VENV)/ready
	$(VENV)/bin/python -m eval.compare --encoders imagenet,courier --image-features cluster_id,sim_score,vector --data shop --preset small --seeds 1 $(ARGS)

test: $(VENV)/ready-dev
	$(VENV)/bin/python -m pytest -n 2 --dist loadfile $(ARGS)

check: lint types test

lint: $(VENV)/ready-dev
	$(VENV)/bin/ruff check .

types: $(VENV)/ready-dev
	$(VENV)/bin/pyright

$(VENV)/ready: requirements/base.txt requirements/$(DEVICE).txt
	$(PYTHON) -m venv $(VENV)
	$(PIP) $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX)) -r requirements/base.txt
	$(PIP) --no-deps -r requirements/$(DEVICE).txt
	touch $@

$(VENV)/ready-dev: $(VENV)/ready requirements/dev.txt
	$(PIP) -r requirements/dev.txt
	touch $@

clean:
	rm -rf $(VENV) runs
