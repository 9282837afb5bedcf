"""Flags of older releases of TensorFlow Serving or its logging, still found in start scripts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple


class StaleFlag(NamedTuple):
    """Why a flag has no effect any more, and whether it may stand without a value."""

    reason: str
    boolean: bool = False


_LOGS = "logs go to stderr, at one level"

STALE_FLAGS: Mapping[str, StaleFlag] = {
    "use_saved_model": StaleFlag("the type of a model is recognised", boolean=True),
    "use_tflite_model": StaleFlag("it is called --prefer_tflite_model now", boolean=True),
    "num_tflite_interpreters": StaleFlag("it is called --num_tflite_interpreters_per_pool now"),
    "model_version_policy": StaleFlag("--model_config_file says which versions are served"),
    "logtostderr": StaleFlag(_LOGS, boolean=True),
    "alsologtostderr": StaleFlag(_LOGS, boolean=True),
    "colorlogtostderr": StaleFlag(_LOGS, boolean=True),
    "log_prefix": StaleFlag(_LOGS, boolean=True),
    "stop_logging_if_full_disk": StaleFlag(_LOGS, boolean=True),
    "stderrthreshold": StaleFlag(_LOGS),
    "minloglevel": StaleFlag(_LOGS),
    "log_dir": StaleFlag(_LOGS),
    "log_link": StaleFlag(_LOGS),
    "log_backtrace_at": StaleFlag(_LOGS),
    "logbuflevel": StaleFlag(_LOGS),
    "logbufsecs": StaleFlag(_LOGS),
    "max_log_size": StaleFlag(_LOGS),
    "v": StaleFlag("TF_CPP_MAX_VLOG_LEVEL says what TensorFlow logs"),
    "vmodule": StaleFlag("TF_CPP_VMODULE says what TensorFlow logs"),
}
