# Two images from one file:  --target cpu  (the default) and  --target cuda  (needs only the host's NVIDIA driver).
# Any image with Python 3.11 to 3.13, its venv module and CA certificates will do as the base.
ARG BASE_IMAGE=python:3.12-slim

FROM ${BASE_IMAGE} AS builder
RUN python -m venv /opt/tapehead
ENV PATH=/opt/tapehead/bin:$PATH PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1
WORKDIR /src
COPY requirements requirements

FROM builder AS cpu-builder
RUN --mount=type=cache,target=/root/.cache/pip pip install --require-hashes -r requirements/server.txt
COPY pyproject.toml README.md LICENSE ./
COPY service service
RUN pip install --no-deps --no-build-isolation .

FROM builder AS cuda-builder
RUN --mount=type=cache,target=/root/.cache/pip pip install --require-hashes -r requirements/cuda.txt
COPY pyproject.toml README.md LICENSE ./
COPY service service
RUN pip install --no-deps --no-build-isolation .

# What both run in. Only /tmp and /cache are ever written, so the root can be read-only.
FROM ${BASE_IMAGE} AS runtime
RUN mkdir -p /cache /models && chown 10001:10001 /cache
ENV PATH=/opt/tapehead/bin:$PATH \
    HOME=/tmp \
    TAPEHEAD_CACHE_DIR=/cache \
    MPLCONFIGDIR=/tmp/matplotlib \
    PYTHONUNBUFFERED=1 \
    TAPEHEAD_HOST=0.0.0.0 \
    TAPEHEAD_PORT=8000
USER 10001:10001
WORKDIR /tmp
EXPOSE 8000
VOLUME /cache
STOPSIGNAL SIGTERM
# A first start on a card that no kernel was compiled for takes minutes.
HEALTHCHECK --interval=15s --timeout=5s --retries=3 --start-period=300s \
  CMD ["python", "-c", "import http.client, os, sys; c = http.client.HTTPConnection('127.0.0.1', int(os.environ['TAPEHEAD_PORT']), timeout=4); c.request('GET', '/v2/health/ready'); sys.exit(c.getresponse().status != 200)"]
ENTRYPOINT ["tapehead"]
CMD ["serve"]

FROM runtime AS cuda
COPY --from=cuda-builder /opt/tapehead /opt/tapehead

FROM runtime AS cpu
COPY --from=cpu-builder /opt/tapehead /opt/tapehead
