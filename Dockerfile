# Two small images of one package. Neither holds an engine: those run elsewhere, and are given by their URLs.
#
#   docker build --target gateway -t torpor-gateway .
#   docker build --target runtime -t torpor-runtime .

FROM python:3.12-slim AS build
COPY . /source
RUN python -m venv /opt/torpor && /opt/torpor/bin/pip install --no-cache-dir /source

FROM python:3.12-slim AS base
RUN useradd --create-home --uid 10001 torpor && install -d -o torpor -g torpor /data /models
COPY --from=build /opt/torpor /opt/torpor
ENV PATH=/opt/torpor/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
USER torpor

# The YAML is at /data/torpor.yaml, and the state is kept beside it: mount a volume there.
FROM base AS gateway
WORKDIR /data
EXPOSE 8080
HEALTHCHECK --interval=10s --timeout=5s --start-period=20s \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8080/health', timeout=4)"]
ENTRYPOINT ["python", "-m", "router"]
CMD ["--config", "/data/torpor.yaml", "--host", "0.0.0.0", "--port", "8080"]

# /models is shared with the engine, under the same path.
FROM base AS runtime
WORKDIR /models
EXPOSE 9000
HEALTHCHECK --interval=10s --timeout=5s --start-period=10s \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:9000/health', timeout=4)"]
ENTRYPOINT ["python", "-m", "runtime"]
