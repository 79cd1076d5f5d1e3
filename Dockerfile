# One image for the worker, beat, migrations, checks, the exporter, the dashboard and the MCP server. The stage `flower`
# adds the monitor.
FROM python:3.13-slim AS build
WORKDIR /src
COPY pyproject.toml constraints.txt README.md LICENSE beat_schedule.py kvworker_health.py ./
COPY kvworker kvworker
COPY tasks tasks
RUN python -m venv /opt/kvworker \
    && /opt/kvworker/bin/pip install --no-cache-dir --constraint constraints.txt '.[dashboard,mcp,metrics]'

FROM build AS build-flower
RUN /opt/kvworker/bin/pip install --no-cache-dir --constraint constraints.txt flower

FROM python:3.13-slim AS base
ENV PATH=/opt/kvworker/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    KVWORKER_CONFIG=/etc/kvworker/kvworker.yaml
# Kubernetes compares numbers to tell that this is not root.
RUN groupadd --system --gid 10001 kvworker \
    && useradd --system --uid 10001 --gid 10001 --create-home --home-dir /var/lib/kvworker kvworker \
    && install -d -o kvworker -g kvworker -m 700 /var/lib/kvworker/beat
USER 10001:10001
# This directory holds beat's schedule, and no module that could hide an installed one.
WORKDIR /var/lib/kvworker
ENTRYPOINT ["kvworker"]

FROM base AS flower
COPY --from=build-flower /opt/kvworker /opt/kvworker
ENTRYPOINT ["celery", "-A", "tasks"]
CMD ["flower", "--address=0.0.0.0", "--port=5555"]

FROM base AS kvworker
COPY --from=build /opt/kvworker /opt/kvworker
CMD ["worker"]
