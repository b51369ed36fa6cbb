# One image for every part: `shouyin serve` unless told otherwise, also worker, migrate and sandbox.

FROM node:24-slim AS web
WORKDIR /web
COPY app/web/package.json app/web/package-lock.json ./
RUN npm ci --no-audit --no-fund
COPY app/web/ ./
RUN npm run build

FROM python:3.13-slim AS environment
WORKDIR /srv/shouyin
RUN python -m venv /opt/shouyin
ENV PATH=/opt/shouyin/bin:$PATH
COPY requirements.lock requirements-local.lock ./
RUN pip install --no-cache-dir --no-deps --require-hashes --requirement requirements.lock
# The build backend, from a lock as well; it leaves again when the `shouyin` command is installed.
RUN awk '/^[^ ]/ { wanted = /^setuptools==/ } wanted' requirements-local.lock > build.lock \
 && pip install --no-cache-dir --no-deps --require-hashes --requirement build.lock
COPY pyproject.toml README.md LICENSE ./
COPY app ./app
RUN pip install --no-cache-dir --no-deps --no-build-isolation --editable . \
 && pip uninstall --yes setuptools

FROM python:3.13-slim
RUN useradd --system --uid 10001 --home-dir /srv/shouyin --no-create-home --shell /usr/sbin/nologin shouyin \
 && install --directory --owner=10001 --mode=0700 /var/lib/shouyin
ENV PATH=/opt/shouyin/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    HOST=0.0.0.0 \
    SHOUYIN_HOME=/var/lib/shouyin
WORKDIR /srv/shouyin
COPY --from=environment /opt/shouyin /opt/shouyin
COPY app ./app
COPY sql ./sql
COPY --from=web /web/built ./app/web/built
RUN python -m compileall -q app
USER 10001
EXPOSE 8000
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s --start-period=20s --retries=3 \
  CMD ["python", "-c", "import os, urllib.request as web; web.urlopen(f'http://127.0.0.1:{os.environ.get(\"PORT\", \"8000\")}/healthz', timeout=2)"]
ENTRYPOINT ["shouyin"]
CMD ["serve"]
