# The API in a container: it answers with numpy alone, and holds neither scikit-learn nor a compiler. The model is not in the image: it is mounted at /model, so that a new model needs no new image.
#     make image
#     docker run --read-only -p 8000:8000 -v "$PWD/models:/model:ro" -e WEB_CONCURRENCY=2 mlops-api
# BASE may be any image of Alpine or Debian that has Python 3.11 or later with venv, python:3.11-slim for one.
ARG BASE=python:3.11-alpine

# Stage 1: an environment with exactly the locked packages. pip itself stays behind in /tools.
FROM ${BASE} AS builder
RUN python3 -m venv /tools && python3 -m venv --without-pip /venv
COPY requirements-serve.txt /
# The packages' own tests, 17 MB of them, stay behind too.
RUN /tools/bin/pip --python /venv/bin/python install --no-cache-dir --require-hashes -r /requirements-serve.txt \
    && find /venv -type d -name tests -prune -exec rm -rf {} +
# The API with the modules that it imports, compiled here, for its user may write nowhere.
WORKDIR /srv
COPY app app
COPY data_ingestion/__init__.py data_ingestion/errors.py data_ingestion/handoff.py data_ingestion/lineage.py \
     data_ingestion/schema.py data_ingestion/workspace.py data_ingestion/
COPY models/__init__.py models/artifact.py models/formulas.py models/packing.py models/raw_values.py \
     models/scorer.py models/tree_tables.py models/uncertainty.py models/
RUN /venv/bin/python -m compileall -q .

# Stage 2: the environment, the API, and a user who may change neither.
FROM ${BASE}
COPY --from=builder /venv /venv
COPY --from=builder /srv /srv
WORKDIR /srv
ENV MODEL_DIR=/model \
    PYTHONUNBUFFERED=1
USER 10001:10001
VOLUME /model
EXPOSE 8000
HEALTHCHECK --interval=30s --timeout=3s --start-period=10s \
    CMD ["/venv/bin/python", "-c", "from urllib.request import urlopen; urlopen('http://127.0.0.1:8000/health', timeout=2)"]
# WEB_CONCURRENCY says how many workers there are. Docker kills 10 seconds after it asks to stop: requests under way get
# 8 of them.
ENTRYPOINT ["/venv/bin/uvicorn", "app.main:app", "--host", "0.0.0.0", "--port", "8000", "--timeout-graceful-shutdown", "8"]
