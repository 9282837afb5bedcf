"""What tests ask of a manager's state, and the server does not."""

from servingd.core.lifecycle.reconcile import ManagerState
from servingd.core.lifecycle.states import HarnessState


def is_settled(state: ManagerState) -> bool:
    """Whether nothing is under way, and nothing is left to do but wait for events."""
    done = (HarnessState.READY, HarnessState.ERROR)
    return all(h.aspired and h.state in done for h in state.harnesses())
