#!/bin/sh
# TensorFlow Serving's entry point: one model, from the environment; arguments of `docker run` come
# last and so win. `exec`, so that signals reach the server.
exec tensorflow_model_server \
    --port=8500 \
    --rest_api_port=8501 \
    --model_name="${MODEL_NAME}" \
    --model_base_path="${MODEL_BASE_PATH}/${MODEL_NAME}" \
    "$@"
