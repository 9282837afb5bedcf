# servingd in TensorFlow Serving's place: the same ports, variables and program name.
#   docker build -t servingd .                          CPU
#   docker build -t servingd:gpu --target gpu .         GPU
#   docker run -p 8500:8500 -p 8501:8501 -v /models/m:/models/m -e MODEL_NAME=m servingd
# With a read-only root file system, give it --tmpfs /tmp and, to keep optimised graphs, a volume at
# /var/cache/servingd.
FROM python:3.11-slim-bookworm AS base
RUN groupadd --system --gid 10001 servingd && \
    useradd --system --uid 10001 --no-create-home --gid 10001 --shell /usr/sbin/nologin servingd
LABEL org.opencontainers.image.title="servingd" \
      org.opencontainers.image.description="A TensorFlow-Serving-compatible model server in Python" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.source="https://github.com/servingd/servingd" \
      org.opencontainers.image.documentation="https://github.com/servingd/servingd/tree/main/docs"

FROM base AS cpu-files
WORKDIR /src
COPY . .
RUN .ci/image/install.sh /src "" cpu

FROM base AS gpu-files
WORKDIR /src
COPY . .
RUN .ci/image/install.sh /src "" gpu

FROM base AS runtime
ENV MODEL_NAME=model \
    MODEL_BASE_PATH=/models \
    SERVINGD_CACHE_DIR=/var/cache/servingd \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
EXPOSE 8500 8501
STOPSIGNAL SIGTERM
# For `docker ps` and compose; Kubernetes has probes of its own.
HEALTHCHECK --interval=10s --timeout=5s --start-period=120s \
    CMD ["/opt/servingd/bin/python", "-c", "import http.client as h, sys; c = h.HTTPConnection('localhost', 8501, timeout=4); c.request('GET', '/readyz'); sys.exit(c.getresponse().status != 200)"]
ENTRYPOINT ["/usr/bin/tf_serving_entrypoint.sh"]

FROM runtime AS gpu
ENV NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility
COPY --from=gpu-files /opt/servingd /opt/servingd
COPY --from=gpu-files /usr/bin/servingd /usr/bin/tensorflow_model_server /usr/bin/tf_serving_entrypoint.sh /usr/bin/
COPY --from=gpu-files /models /models
COPY --from=gpu-files --chown=servingd:servingd /var/cache/servingd /var/cache/servingd
# By number: Kubernetes' runAsNonRoot cannot tell who a name is.
USER 10001:10001

FROM runtime AS cpu
COPY --from=cpu-files /opt/servingd /opt/servingd
COPY --from=cpu-files /usr/bin/servingd /usr/bin/tensorflow_model_server /usr/bin/tf_serving_entrypoint.sh /usr/bin/
COPY --from=cpu-files /models /models
COPY --from=cpu-files --chown=servingd:servingd /var/cache/servingd /var/cache/servingd
# By number: Kubernetes' runAsNonRoot cannot tell who a name is.
USER 10001:10001
