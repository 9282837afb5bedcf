"""How SavedModels are loaded and run."""

from __future__ import annotations

from dataclasses import dataclass

from servingd.errors import InvalidConfig

OPTIMIZE_MODELS = ("off", "background", "wait")


@dataclass(frozen=True, slots=True, kw_only=True)
class SavedModelOptions:
    """Options of the platform `tensorflow`."""

    tags: tuple[str, ...] = ("serve",)
    """Tags of the meta graph that is served; exactly these."""

    optimize_models: str = "background"
    """`off`, `background` (serve plain, swap when proven) or `wait` (not AVAILABLE before)."""

    cache_dir: str = ""
    """Where optimised graphs are kept; empty: nowhere."""

    threads: int = 0
    """Threads that a heavy model's session may get, if that pays; 0: one per core."""

    def __post_init__(self) -> None:
        if self.optimize_models not in OPTIMIZE_MODELS:
            raise InvalidConfig(
                f"optimize_models: expected one of {', '.join(OPTIMIZE_MODELS)}, "
                f"got {self.optimize_models!r}"
            )
        if self.threads < 0:
            raise InvalidConfig(f"threads: expected 0 or more, got {self.threads}")
