# servingd in TensorFlow Serving's place: the same ports, variables and program name.
#   docker build -t servingd .                          CPU
#   docker build -t servingd --build-arg EXTRA=gpu .    GPU
FROM python:3.11-slim-bookworm

ARG EXTRA=cpu
COPY .ci/constraints.txt /tmp/constraints.txt
COPY pyproject.toml README.md /src/
COPY servingd /src/servingd
RUN pip install --no-cache-dir -c /tmp/constraints.txt "/src[${EXTRA}]" \
    && rm -rf /src /tmp/constraints.txt \
    && ln -s /usr/local/bin/tensorflow_model_server /usr/bin/tensorflow_model_server \
    && useradd --system --no-create-home servingd \
    && mkdir -p /models /var/cache/servingd \
    && chown servingd /var/cache/servingd \
    && chmod 0700 /var/cache/servingd

ENV MODEL_NAME=model \
    MODEL_BASE_PATH=/models \
    SERVINGD_CACHE_DIR=/var/cache/servingd \
    PYTHONUNBUFFERED=1

USER servingd
EXPOSE 8500 8501
STOPSIGNAL SIGTERM
# `exec`, so that signals reach the server; arguments of `docker run` come last and so win.
ENTRYPOINT ["/bin/sh", "-c", "exec tensorflow_model_server --port=8500 --rest_api_port=8501 --model_name=\"${MODEL_NAME}\" --model_base_path=\"${MODEL_BASE_PATH}/${MODEL_NAME}\" \"$@\"", "--"]
