"""Turn exceptions of jobs and commands into the events that the manager waits for."""

from __future__ import annotations

from servingd.core.lifecycle.events import (
    Command,
    Drained,
    Event,
    LoadFailed,
    Publish,
    PublishFailed,
    Quiesce,
    Relocate,
    Relocated,
    StartEstimate,
    StartLoad,
    StartUnload,
    Unloaded,
)
from servingd.core.types import ServableId
from servingd.errors import Code, as_serving_error, error_from_code


def load_failure(servable_id: ServableId, error: BaseException) -> LoadFailed:
    """Return the event for a failed attempt to estimate or to load."""
    # A new error: the old one's traceback keeps all objects of the load alive.
    cause = as_serving_error(error)
    reported = error_from_code(cause.code, cause.message)
    # Something that is not installed, such as TensorFlow, will be missing at the next attempt too.
    return LoadFailed(servable_id, reported, retriable=cause.code is not Code.UNIMPLEMENTED)


def event_of_failure(command: Command, error: BaseException) -> Event | None:
    """Return the event that stands for a command that could not be carried out.

    None where no event would have followed it.
    """
    match command:
        case StartEstimate(servable_id) | StartLoad(servable_id):
            return load_failure(servable_id, error)
        case Publish(servable_id):
            return PublishFailed(servable_id, load_failure(servable_id, error).error)
        case Relocate(servable_id):
            return Relocated(servable_id, ())
        case Quiesce(servable_id):
            return Drained(servable_id)
        case StartUnload(servable_id):
            return Unloaded(servable_id)
    return None
