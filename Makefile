# Everything is done from here; bare `make` lists it. For machines without make, README.md has the plain commands.
# Written for GNU make 3.81, which macOS has, and for a POSIX shell.

# Settings, given on the command line: make run DATA=houses.csv TARGET=price
# They are set here, not with ?=, so that a HOST or ROOT that happens to be in the environment means nothing.
DATA =
TARGET =
ROOT =
HOST = 127.0.0.1
PORT = 8000
IMAGE = mlops-api
BASE = python:3.11-alpine
# More flags for docker build, as a network of one's own may need: mounts, proxies.
IMAGE_FLAGS =
UPGRADE =
BENCH = ingest scorer
# The first Python that is new enough. The venv is made with it; everything else runs in the venv.
PYTHON = $(shell for p in python3.11 python3.12 python3.13 python3; do \
	$$p -c '$(NEW_ENOUGH)' 2>/dev/null && echo $$p && break; done)

BIN = .venv/bin
NEW_ENOUGH = import sys; sys.exit(sys.version_info < (3, 11))
# A copy of the requirements.txt that is installed: only another content installs again, not another date.
STAMP = .venv/requirements.txt

# $(call quote,NAME) is the value of variable NAME as one word of the shell, whatever it holds: spaces, quotes, $$.
quote = '$(subst ','\'',$(value $(1)))'
source = $(if $(value DATA), --source $(call quote,DATA))$(if $(value TARGET), --target $(call quote,TARGET))
root = $(if $(value ROOT), --root $(call quote,ROOT))
folder = $(if $(value ROOT),$(call quote,ROOT)/)

# With this set, nothing keeps compiled modules and every `import mlflow` takes seconds instead of one.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help run test check lock serve ui bench image clean

help: ## list what make can do
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "make %-6s %s\n", $$1, $$2}' Makefile

run: $(STAMP) ## CSV to tracked model; only what changed is done again (DATA=file.csv TARGET=column ROOT=folder)
	$(BIN)/python data_ingestion/data_loader.py --if-changed$(root)$(source)
	$(BIN)/python data_ingestion/data_preprocessor.py --if-changed$(root)
	$(BIN)/python models/train_model.py --if-changed$(root)
	$(BIN)/python evaluation/evaluate_model.py --if-changed$(root) || test $$? -eq 3
	$(BIN)/python mlflow/mlflow_setup.py --if-changed$(root)
	@$(BIN)/python evaluation/summary.py$(root)

test: $(STAMP) ## run the tests
	$(BIN)/pytest ci_cd/tests/ -v

check: $(STAMP) ## lint, format, types, and lock files in step with their .in files
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	MYPYPATH=mlflow $(BIN)/mypy mlflow/mlflow_setup.py mlflow/run_logging.py mlflow/stores.py
	$(BIN)/python ci_cd/check_locks.py

lock: $(STAMP) ## compile the lock files from the .in files (UPGRADE=1 takes the newest versions)
	$(BIN)/uv pip compile $(LOCK_FLAGS) --output-file requirements.txt requirements.in
	$(BIN)/uv pip compile $(LOCK_FLAGS) --constraints requirements.txt \
		--output-file requirements-serve.txt requirements-serve.in
	for name in peers models autogluon api mlserver; do $(BIN)/uv pip compile $(LOCK_FLAGS) \
		--output-file ci_cd/benchmarks/requirements-$$name.txt ci_cd/benchmarks/requirements-$$name.in || exit 1; done

LOCK_FLAGS = --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-emit-index-url \
	$(if $(UPGRADE),--upgrade)

serve: $(STAMP) ## serve predictions over HTTP (HOST=127.0.0.1 PORT=8000 ROOT=folder)
	$(if $(value ROOT),PIPELINE_ROOT=$(call quote,ROOT) )$(BIN)/uvicorn app.main:app --host $(HOST) --port $(PORT) \
		--timeout-graceful-shutdown 10

ui: PORT = 5000
ui: $(STAMP) ## look at runs and registered models in MLflow (PORT=5000 ROOT=folder)
	@test -f $(folder)mlflow/mlflow.db || { echo "error: nothing is tracked yet. Run: make run" >&2; exit 1; }
	MLFLOW_DISABLE_TELEMETRY=true MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false $(BIN)/mlflow server \
		--host 127.0.0.1 --port $(PORT) --workers 1 \
		--backend-store-uri sqlite:///$(folder)mlflow/mlflow.db --artifacts-destination $(folder)mlflow/artifacts

bench: $(STAMP) ## run benchmarks side by side with other tools (BENCH="ingest models")
	@set -e; for name in $(BENCH); do echo bench_$$name.py; $(BIN)/python ci_cd/benchmarks/bench_$$name.py; done

image: ## build the container image of the API with docker, podman or buildah (IMAGE=name BASE=image)
	@for tool in docker podman buildah; do \
		$$tool info >/dev/null 2>&1 || continue; \
		format="--format docker"; test $$tool != docker || format=; \
		set -x; exec $$tool build $$format --build-arg BASE=$(call quote,BASE) $(IMAGE_FLAGS) -t $(call quote,IMAGE) .; \
	done; echo "error: found no docker, podman or buildah that answers. Install or start one." >&2; exit 1

clean: ## remove what run can make again; CSVs, data/schema.yaml, tracked runs and .venv stay (ROOT=folder)
	cd $(or $(folder),.) && rm -rf data/raw.parquet data/rejected.parquet data/rejected.csv data/profile.json \
		data/processed.parquet data/encoder.pkl data/encoding.json data/leaks.json \
		models/saved_model.pkl models/saved_model.npz models/saved_model.json models/metrics.json \
		evaluation/report.html evaluation/report.md evaluation/figures
	rm -rf .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name '.venv*' -prune -o -name __pycache__ -type d -prune -exec rm -rf {} +

$(STAMP): requirements.txt
	@if ! $(BIN)/python -c '$(NEW_ENOUGH)' 2>/dev/null; then \
		python="$(PYTHON)"; \
		test -n "$$python" || { echo "error: found no Python 3.11 or later. Install one (python.org, or your system's" \
			"python3.11), or name it: make run PYTHON=/path/to/python" >&2; exit 1; }; \
		"$$python" -c '$(NEW_ENOUGH)' || { \
			echo "error: PYTHON=$$python is not a Python 3.11 or later. Name another one." >&2; exit 1; }; \
		echo "making .venv with $$("$$python" --version)"; rm -rf .venv; \
		if uv --version >/dev/null 2>&1; then uv venv --quiet --python "$$python" .venv; \
		else "$$python" -m venv .venv; fi || { rm -rf .venv; exit 1; }; \
	fi
	@cmp -s requirements.txt $(STAMP) || { \
		echo "installing requirements.txt into .venv (some minutes the first time)"; \
		if uv --version >/dev/null 2>&1; then \
			uv pip install --quiet --python $(BIN)/python --require-hashes -r requirements.txt; \
		else \
			{ $(BIN)/python -m pip --version || $(BIN)/python -m ensurepip; } >/dev/null 2>&1; \
			$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.txt; \
		fi; }
	@cp requirements.txt $(STAMP)
