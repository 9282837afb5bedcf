"""Tell the ends of jobs to whoever asked for it, at addresses that the operator has allowed."""

from __future__ import annotations

import contextlib
import http.client
import json
import logging
import time
from urllib.parse import urlsplit

from servingd.config.webhooks import is_allowed
from servingd.errors import PermissionDenied
from servingd.runtime.jobs import Job, JobStore, JobView, view_of
from servingd.runtime.threads import WorkerPool

_TIMEOUT_S = 10.0
_PAUSES_S = (0.5, 2.0)
"""Before the second try, and the third."""
_MOST_WAITING = 1024

_log = logging.getLogger(__name__)


class Webhooks:
    """Owns the threads `webhook-N`, which post; from any thread. `start` and `stop` once each."""

    def __init__(self, allowed: tuple[str, ...], store: JobStore, age_s: float) -> None:
        """`allowed` are the beginnings of addresses, each with a slash at its end."""
        self._allowed = allowed
        self._store = store
        self._age_s = age_s
        self._pool = WorkerPool("webhook", 2)
        self._waiting = 0  # one change of it is lost at worst: it bounds, and counts nothing

    def start(self) -> None:
        """Start the threads."""
        self._pool.start()

    def stop(self) -> None:
        """End the threads; what is not told by then is not told."""
        self._pool.stop(0.5)

    def check(self, url: str) -> None:
        """Raise PermissionDenied for an address that is not allowed."""
        if not is_allowed(url, self._allowed):
            raise PermissionDenied(
                f"webhook: expected an address that --job_webhooks allows: {url}"
            )

    def watch(self, job: Job, url: str) -> None:
        """Post to an address when a job has ended; not when it was cancelled."""

        def ended() -> None:
            found = view_of(job)
            if found.state == "done" and self._waiting < _MOST_WAITING:
                self._waiting += 1
                self._pool.submit(lambda: self._tell(url, found))

        self._store.when_done(job, self._age_s, ended)

    def _tell(self, url: str, job: JobView) -> None:
        """Post, and try again if that fails; on a thread of the pool."""
        self._waiting -= 1
        result = job.result
        assert result is not None  # it is done
        body = json.dumps(
            {"id": job.id, "state": job.state, "code": result.code.name, "message": result.message}
        )
        error: Exception | None = None
        for pause_s in (0.0, *_PAUSES_S):
            time.sleep(pause_s)
            try:
                _post(url, body)
            except (OSError, http.client.HTTPException) as failure:
                error = failure
            else:
                return
        _log.warning("the end of job %s could not be told to %s: %s", job.id, url, error)


def _post(url: str, body: str) -> None:
    """Post JSON; follow no redirection. Raises OSError or HTTPException unless it is taken."""
    parts = urlsplit(url)
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    connection = kind(parts.netloc, timeout=_TIMEOUT_S)
    with contextlib.closing(connection):
        path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        connection.request("POST", path, body, {"content-type": "application/json"})
        status = connection.getresponse().status
        if not 200 <= status < 300:
            raise http.client.HTTPException(f"it answered {status}")
