"""What was found out about a model, and whether it is as it must be."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from tests.ordinary.entry import Entry


@dataclass(frozen=True, slots=True)
class Beside:
    """What became of calls that were made at once."""

    calls: int
    wrong: int
    example: str = ""
    """One that was wrong, in words."""


@dataclass(slots=True)
class Findings:
    """What was found out about a model."""

    entry: Entry
    error: str = ""
    """Why it could not be exported, or is not served; empty if it is."""
    graph: str = ""
    """The optimiser's verdict."""
    declined: str = ""
    """Its reason."""
    worth_merging: int = 0
    """So many rows; 0 if its calls are not merged."""
    not_merged: str = ""
    """The server's reason."""
    batches: Counter[str] = field(default_factory=Counter)
    """Of the calls at once after the verdict, those that waited: `calls`, in so many `batches`."""
    wrong_alone: list[str] = field(default_factory=list)
    beside: list[Beside] = field(default_factory=list)
    """Before the verdict, and after it."""
    differences: int | None = None
    """Batches that TensorFlow itself answers otherwise whole than in parts."""
    seconds: float = 0.0

    def failures(self) -> list[str]:
        """What is not as it must be, in words; empty if all is well."""
        if self.error:
            return [f"it is not served: {self.error}"]
        found = [f"wrong alone: {text}" for text in self.wrong_alone[:1]]
        found += [f"wrong beside others: {b.example}" for b in self.beside if b.wrong][:1]
        if self.graph == "declined" and not self.entry.not_optimised:
            found.append(f"it is not optimised any more: {self.declined}")
        if self.worth_merging and not self.entry.may_merge:
            found.append(f"it is merged, but {self.entry.never_merged}")
        if not self.worth_merging and not self.not_merged:
            found.append("it is not merged, and no reason is told")
        if not self.worth_merging and self.entry.may_merge and not self.entry.not_seen:
            found.append(f"it is not merged any more: {self.not_merged}")
        if self.worth_merging and self.entry.not_seen:
            found.append("it is merged now: take `not_seen` away")
        if self.differences and self.entry.may_merge:
            found.append(
                "merged calls have other answers in TensorFlow, too: it must not be merged"
            )
        if self.differences == 0 and not self.entry.may_merge:
            found.append("merged calls are answered as single ones in TensorFlow: ask worse ones")
        return found
