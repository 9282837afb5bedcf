"""One model's directory, looked at once per scan: which of its versions are there and complete."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from dataclasses import dataclass, field

from servingd.config.models import ModelConfig
from servingd.core.lifecycle.versions import Latest, Specific, aspired, versions_in
from servingd.core.serving import Platform
from servingd.core.types import AspiredVersion, AspiredVersions, VersionData
from servingd.errors import InvalidArgument
from servingd.sources.listing import DiskListing, names_in, read_regular
from servingd.sources.lookalikes import why_no_versions

PLATFORM_FILE = "platform"
"""A file of this name beside the versions may name their servable type."""

_LONGEST_NAME = 100

PlatformNamed = Callable[[str], Platform]
"""Raises InvalidArgument for a name that there is not."""

Recognise = Callable[[DiskListing], str | None]

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Seen:
    """What was found out about a version's files, until they change."""

    fingerprint: str
    platform: str
    missing: str | None


@dataclass(slots=True)
class ModelDirectory:
    """The state of one model between scans. Used by one look's thread at a time."""

    model: ModelConfig
    platform_named: PlatformNamed
    recognise: Recognise
    _seen: dict[int, _Seen] = field(default_factory=dict)
    _published: dict[int, VersionData] = field(default_factory=dict)
    absent: str = ""
    """Why no version of it can be loaded, as of the last look; empty if one can."""
    silent: bool = False
    """Whether a look at it was overdue; the source's thread only."""
    _trouble: str = ""

    def scan(self) -> AspiredVersions | None:
        """Look, and say which versions ought to be loaded; None if the directory cannot be read.

        A version is published when it is complete, and from then on for as long as it is there: a
        directory that is being removed harms nothing that serves. One whose files change is
        published anew when they are complete again.
        """
        try:
            present = self._list()
        except (OSError, ValueError) as error:  # ValueError: it is no path
            self.absent = (
                f"Could not find base path {self.model.base_path} for servable "
                f"{self.model.name} with error {error}"
            )
            self._complain(self.absent)
            return None
        incomplete: dict[int, str] = {}
        for version in self._worth_a_look(present):
            reason = self._look(version, os.path.join(self.model.base_path, present[version]))
            if reason is not None:
                incomplete[version] = reason
            if self._enough(version, present):
                break
        for gone in (self._seen.keys() | self._published.keys()) - present.keys():
            self._seen.pop(gone, None)
            self._published.pop(gone, None)
        wanted = aspired(self._published.keys() & present.keys(), self.model.version_policy)
        self.absent = "" if wanted else self._why_absent(incomplete)
        self._complain("" if incomplete else self.absent)
        return AspiredVersions(
            self.model.name,
            tuple(AspiredVersion(v, self._published[v]) for v in wanted),
            {v: r for v, r in sorted(incomplete.items()) if v not in self._published},
        )

    def _list(self) -> dict[int, str]:
        """Version to name. An entry that cannot be told yet, for instance a broken link, counts."""
        return versions_in(os.listdir(self.model.base_path))

    def _worth_a_look(self, present: dict[int, str]) -> list[int]:
        newest_first = sorted(present, reverse=True)
        if isinstance(self.model.version_policy, Specific):
            return [v for v in newest_first if v in self.model.version_policy.versions]
        return newest_first

    def _enough(self, version: int, present: dict[int, str]) -> bool:
        """Whether versions older than this one cannot matter: those wanted are all newer."""
        if not isinstance(self.model.version_policy, Latest):
            return False
        newer = [v for v in self._published if v >= version and v in present]
        return len(newer) >= max(1, self.model.version_policy.num_versions)

    def _look(self, version: int, path: str) -> str | None:
        """Publish a version whose files have changed if they are complete; else say what lacks."""
        try:
            listing = DiskListing(path)
            name = self._platform_of(listing)
            seen = self._seen.get(version)
            if seen is None or (seen.fingerprint, seen.platform) != (listing.fingerprint, name):
                missing = self._what_is_missing(name, listing)
                seen = self._seen[version] = _Seen(listing.fingerprint, name, missing)
                if missing is None:
                    self._published[version] = VersionData(path, name, listing.fingerprint)
        except Exception as error:  # one version must not hide the others
            self._seen.pop(version, None)
            if not isinstance(error, (OSError, UnicodeError)):
                _log.exception("version %d of model %s cannot be judged", version, self.model.name)
            return f"it cannot be judged: {error}"
        return seen.missing

    def _platform_of(self, listing: DiskListing) -> str:
        if self.model.platform:
            return self.model.platform
        try:
            file = os.path.join(self.model.base_path, PLATFORM_FILE)
            return read_regular(file, _LONGEST_NAME).decode().strip()
        except FileNotFoundError:
            return self.recognise(listing) or ""

    def _what_is_missing(self, platform: str, listing: DiskListing) -> str | None:
        if not platform:
            return "its contents are of no known servable type"
        try:
            return self.platform_named(platform).missing(listing)
        except InvalidArgument as error:
            return error.message

    def _why_absent(self, incomplete: dict[int, str]) -> str:
        for version, reason in incomplete.items():
            return f"version {version} of model {self.model.name} is incomplete: {reason}"
        path = self.model.base_path.rstrip("/")
        advice = why_no_versions(path, names_in(path), names_in)
        return f"No versions of servable {self.model.name} found under base path {path}. " + (
            advice or "Did you forget to name your leaf directory as a number (eg. '/1/')?"
        )

    def _complain(self, trouble: str) -> None:
        """Log a trouble once, when it begins."""
        if trouble and trouble != self._trouble:
            _log.warning("%s", trouble)
        self._trouble = trouble
