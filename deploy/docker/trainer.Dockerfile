# Training: torch (the default build, with CUDA), transformers and the base weights, all from the lock.
# Build from the repository's root: docker build -f deploy/docker/trainer.Dockerfile -t millrace-trainer .
FROM python:3.11-slim AS packages
WORKDIR /build
COPY requirements-setup.lock ./
RUN python -m pip install --no-cache-dir --no-deps --require-hashes -r requirements-setup.lock
COPY pyproject.toml README.md requirements.lock ./
# The room's own extras alone; versions and hashes come from the lock.
RUN python -m venv --without-pip /opt/venv \
    && uv pip install --python /opt/venv/bin/python --no-cache --compile-bytecode --require-hashes \
        -r pyproject.toml --extra trainer --extra postgres -c requirements.lock

FROM python:3.11-slim
RUN useradd --uid 10001 --create-home --home-dir /var/lib/millrace millrace
COPY --from=packages /opt/venv /opt/venv
WORKDIR /app
COPY services/__init__.py services/__init__.py
COPY services/contracts services/contracts
COPY services/kit services/kit
COPY services/trainer services/trainer
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONPATH=/app \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    MILLRACE_HOME=/var/lib/millrace \
    MILLRACE_HOST=0.0.0.0 \
    MILLRACE_TRAINER_ON_SHUTDOWN=cancel \
    MILLRACE_TRAINER_HTTP_PORT=8080 \
    MILLRACE_TRAINER_GRPC_PORT=50051
USER millrace
VOLUME /var/lib/millrace
EXPOSE 8080 50051
HEALTHCHECK --interval=5s --timeout=3s --start-period=30s --retries=12 \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8080/readyz', timeout=2)"]
STOPSIGNAL SIGTERM
CMD ["python", "-m", "services.trainer"]
