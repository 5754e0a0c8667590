# The `millrace` command for a running fleet, and what creates the topics.
# Build from the repository's root: docker build -f deploy/docker/cli.Dockerfile -t millrace-cli .
FROM python:3.11-slim AS packages
WORKDIR /build
COPY requirements-setup.lock ./
RUN python -m pip install --no-cache-dir --no-deps --require-hashes -r requirements-setup.lock
COPY pyproject.toml README.md requirements.lock ./
# The room's own extras alone; versions and hashes come from the lock.
RUN python -m venv --without-pip /opt/venv \
    && uv pip install --python /opt/venv/bin/python --no-cache --compile-bytecode --require-hashes \
        -r pyproject.toml --extra cli -c requirements.lock

FROM python:3.11-slim
RUN useradd --uid 10001 --create-home --home-dir /var/lib/millrace millrace
COPY --from=packages /opt/venv /opt/venv
WORKDIR /app
COPY services/__init__.py services/__init__.py
COPY services/contracts services/contracts
COPY services/kit services/kit
COPY services/cli services/cli
COPY deploy/kafka deploy/kafka
COPY scripts/create_topics.py scripts/create_topics.py
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONPATH=/app \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    MILLRACE_HOME=/var/lib/millrace
USER millrace
VOLUME /var/lib/millrace
ENTRYPOINT ["python", "-m", "services.cli"]
