"""The one table of RPC methods: bytes in, bytes out, the same for every transport."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from servingd.core.call_protocols import States
from servingd.frontends.call import CallContext
from servingd.frontends.first_calls import waiting
from servingd.frontends.message_parser import MessageParser
from servingd.frontends.reply import Handler, PartsHandler
from servingd.frontends.tfs.rpc.examples import (
    ClassifyCall,
    ExamplesMethod,
    MultiInferenceMethod,
    RegressCall,
)
from servingd.frontends.tfs.rpc.jobs import JobMethods
from servingd.frontends.tfs.rpc.messages import spec_of_request, spec_of_tasks
from servingd.frontends.tfs.rpc.predict import PredictMethod
from servingd.frontends.tfs.rpc.predict_streamed import PredictStreamedMethod
from servingd.frontends.tfs.rpc.profiler import Profiler, ProfilerMethods
from servingd.frontends.tfs.rpc.reload import Reload, ReloadMethod
from servingd.frontends.tfs.rpc.status import StatusMethods
from servingd.runtime.jobs import JobStore

_PREDICTION = "/tensorflow.serving.PredictionService/"
_MODEL = "/tensorflow.serving.ModelService/"
_PROFILER = "/tensorflow.ProfilerService/"
_JOBS = "/servingd.JobService/"
_STREAM = "/servingd.PredictionStream/"


class RpcMethods:
    """All RPC methods.

    Methods that change the server, or slow it down, are the administrator's: `admin_table`.
    """

    def __init__(
        self,
        context: CallContext,
        states: States,
        reload: Reload,
        serving_values: Callable[[Sequence[str]], dict[str, int]],
        profiler: Profiler | None,
        max_request_bytes: int,
        jobs: JobStore,
    ) -> None:
        """`jobs` keeps the answers to calls that nobody waits for."""
        parser = MessageParser(max_request_bytes)
        status = StatusMethods(context, states, parser)
        calls: Mapping[str, Handler] = {
            "Predict": PredictMethod(context, parser),
            "Classify": ExamplesMethod(context, parser, ClassifyCall),
            "Regress": ExamplesMethod(context, parser, RegressCall),
            "MultiInference": MultiInferenceMethod(context, parser),
            "GetModelMetadata": status.metadata,
        }
        self._table: dict[str, Handler] = {f"{_MODEL}GetModelStatus": status.status}
        for name, handler in calls.items():
            spec_of = spec_of_tasks if name == "MultiInference" else spec_of_request
            self._table[f"{_PREDICTION}{name}"] = waiting(handler, name, context, spec_of)
        job_methods = JobMethods(context, parser, jobs, self._table[f"{_PREDICTION}Predict"])
        self._table[f"{_JOBS}Submit"] = job_methods.submit
        self._table[f"{_JOBS}Get"] = job_methods.get
        self._table[f"{_JOBS}Cancel"] = job_methods.cancel
        self._stream_table: dict[str, PartsHandler] = {
            f"{_STREAM}PredictStreamed": waiting(
                PredictStreamedMethod(context, parser), "PredictStreamed", context, spec_of_request
            ),
        }
        self._admin_table: dict[str, Handler] = {
            f"{_MODEL}HandleReloadConfigRequest": ReloadMethod(
                context, parser, reload, serving_values
            ),
        }
        if profiler is not None:
            methods = ProfilerMethods(context, parser, profiler)
            self._admin_table[f"{_PROFILER}Profile"] = methods.profile
            self._admin_table[f"{_PROFILER}Terminate"] = methods.terminate

    def table(self) -> Mapping[str, Handler]:
        """Return the handlers for all callers, by full method name."""
        return self._table

    def stream_table(self) -> Mapping[str, PartsHandler]:
        """Return the handlers for all callers that answer in parts, by full method name."""
        return self._stream_table

    def admin_table(self) -> Mapping[str, Handler]:
        """Return the handlers for administrators, by full method name."""
        return self._admin_table
