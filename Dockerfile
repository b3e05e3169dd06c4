# The API in a container: it answers with numpy alone, and holds neither scikit-learn nor a compiler. The model is not in the image: it is mounted at /model, so that a new model needs no new image.
#     make image
#     docker run --read-only -p 8000:8000 -v "$PWD/models:/model:ro" mlops-api
# BASE may be any image of Alpine or Debian that has Python 3.11 or later with venv, python:3.11-slim for one.
ARG BASE=python:3.11-alpine

# Stage 1: an environment with exactly the locked packages. pip itself stays behind in /tools.
FROM ${BASE} AS builder
RUN python3 -m venv /tools && python3 -m venv --without-pip /venv
COPY requirements-serve.txt /
RUN /tools/bin/pip --python /venv/bin/python install --no-cache-dir --require-hashes -r /requirements-serve.txt

# Stage 2: the environment, the sources of the API, and a user who may change neither.
FROM ${BASE}
COPY --from=builder /venv /venv
WORKDIR /srv
COPY app app
COPY data_ingestion data_ingestion
COPY models models
ENV MODEL_DIR=/model \
    PYTHONUNBUFFERED=1
USER 10001:10001
EXPOSE 8000
HEALTHCHECK --interval=30s --timeout=3s --start-period=10s \
    CMD ["/venv/bin/python", "-c", "from urllib.request import urlopen; urlopen('http://127.0.0.1:8000/health', timeout=2)"]
# Docker kills 10 seconds after it asks to stop: requests under way get 8 of them.
ENTRYPOINT ["/venv/bin/uvicorn", "app.main:app", "--host", "0.0.0.0", "--port", "8000", "--timeout-graceful-shutdown", "8"]
