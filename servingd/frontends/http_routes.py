"""Which HTTP path belongs to which API.

`/v1/` is TensorFlow Serving's, `/v2` the Open Inference Protocol's, all others are pages.
"""

from __future__ import annotations

from servingd.frontends.admin.pages import TEXT, AdminPages
from servingd.frontends.http.messages import HttpHandler, HttpReply, HttpRequest
from servingd.frontends.tfs.rest.jobs import JOBS


class HttpRoutes:
    """The handler of all HTTP requests; it runs on the loop's thread."""

    def __init__(
        self,
        api: HttpHandler,
        pages: AdminPages,
        monitoring_path: str = "",
        jobs: HttpHandler | None = None,
        oip: HttpHandler | None = None,
    ) -> None:
        """`monitoring_path` is TensorFlow Serving's path of the metrics; empty: none.

        `jobs` answers what is asked of a job, `oip` is the API under `/v2`; None: there is none at
        this port.
        """
        self._jobs = jobs
        self._oip = oip
        self._api = api
        self._pages = pages
        self._monitoring_path = monitoring_path
        self._api_first = monitoring_path[:4] != "/v1/"

    def handle(self, request: HttpRequest, reply: HttpReply) -> None:
        """Answer a request."""
        target = request.target
        if target[:4] == "/v1/" and self._api_first:
            self._api(request, reply)
        elif self._monitoring_path and request.path == self._monitoring_path:
            self._monitoring(request, reply)
        elif target[:4].lower() == "/v1/":
            self._api(request, reply)
        elif self._oip is not None and (target[:4] == "/v2/" or request.path == "/v2"):
            self._oip(request, reply)
        elif self._jobs is not None and target.startswith(JOBS):
            self._jobs(request, reply)
        else:
            self._pages.handle(request, reply)

    def _monitoring(self, request: HttpRequest, reply: HttpReply) -> None:
        """Answer at TensorFlow Serving's path, by its rules: any method, but no query."""
        if request.target == self._monitoring_path:
            self._pages.send_metrics(request, reply)
        else:
            text = f"Unexpected path: {request.target}. Should be {self._monitoring_path}"
            reply.send(400, text.encode(), TEXT)
