"""One model's directory: which of its versions are there and complete, and which ought to serve."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any, Protocol

from servingd.config.models import ModelConfig
from servingd.core.lifecycle.versions import Latest, Specific, aspired, versions_in
from servingd.core.servable import Platform
from servingd.core.types import AspiredVersion, AspiredVersions, VersionData
from servingd.errors import InvalidArgument
from servingd.sources.listing import DiskListing, names_in, read_regular
from servingd.sources.lookalikes import why_no_versions

PLATFORM_FILE = "platform"
"""A file of this name beside the versions may name their servable type."""

_MAX_NAME_BYTES = 100
"""Bytes of that file that are read."""

_log = logging.getLogger(__name__)


class PlatformTable(Protocol):
    """The servable types; see `servables.registry.Platforms`."""

    def __getitem__(self, name: str) -> Platform:
        """Return the type called `name`. Raises InvalidArgument for an unknown one."""
        ...

    def recognise(self, listing: DiskListing) -> str | None:
        """Return the name of the type that a version's files look like; None if none does."""
        ...

    def check_options(self, name: str, options: Mapping[str, Any]) -> None:
        """Raise InvalidArgument if a type does not take these options."""
        ...


@dataclass(slots=True)
class _CheckResult:
    """What was found out about a version's files; it holds until they change."""

    fingerprint: str
    platform: str
    missing: str | None


@dataclass(slots=True)
class ModelDirectory:
    """The state of one model between scans. Used by one scan's thread at a time."""

    model: ModelConfig
    platforms: PlatformTable
    _checked: dict[int, _CheckResult] = field(default_factory=dict)
    _published: dict[int, VersionData] = field(default_factory=dict)
    no_version: str = ""
    """Why no version of the model can be loaded, as of the last scan; empty if one can."""
    quarantined: Mapping[int, str] = field(default_factory=dict)
    """Versions of which processes die, each with the fingerprint of its files then. Replaced whole,
    by the source's thread.
    """
    unresponsive: bool = False
    """Whether a scan was reported as unresponsive; the source's thread only."""
    _problem: str = ""

    def scan(self) -> AspiredVersions | None:
        """Return which versions ought to be loaded; None if the directory cannot be read.

        A version is published when it is complete, and from then on for as long as its folder is
        there: removing its files harms nothing that serves. One whose files change is published
        anew when they are complete again.
        """
        try:
            present = self._list()
        except (OSError, ValueError) as error:  # ValueError: it is no path
            self.no_version = (
                f"Could not find base path {self.model.base_path} for servable "
                f"{self.model.name} with error {error}"
            )
            self._log_once(self.no_version)
            return None
        incomplete: dict[int, str] = {}
        for version in self._relevant(present):
            reason = self._check(version, os.path.join(self.model.base_path, present[version]))
            if reason is not None:
                incomplete[version] = reason
            if self._enough(version, present):
                break
        for gone in (self._checked.keys() | self._published.keys()) - present.keys():
            self._checked.pop(gone, None)
            self._published.pop(gone, None)
        wanted = aspired(self._usable() & present.keys(), self.model.version_policy)
        self.no_version = "" if wanted else self._why_no_version(incomplete)
        self._log_once("" if incomplete else self.no_version)
        return AspiredVersions(
            self.model.name,
            tuple(AspiredVersion(v, self._published[v]) for v in wanted),
            {v: r for v, r in sorted(incomplete.items()) if v not in self._published},
        )

    def _list(self) -> dict[int, str]:
        """Return the folders' names by version. A broken link counts: it may be mended."""
        return versions_in(os.listdir(self.model.base_path))

    def _relevant(self, present: dict[int, str]) -> list[int]:
        newest_first = sorted(present, reverse=True)
        if isinstance(self.model.version_policy, Specific):
            return [v for v in newest_first if v in self.model.version_policy.versions]
        return newest_first

    def _enough(self, version: int, present: dict[int, str]) -> bool:
        """Return whether older versions cannot matter: enough newer ones are published."""
        if not isinstance(self.model.version_policy, Latest):
            return False
        newer = [v for v in self._usable() if v >= version and v in present]
        return len(newer) >= max(1, self.model.version_policy.num_versions)

    def _usable(self) -> set[int]:
        """Return the published versions that are not quarantined, or have other files since."""
        return {
            version
            for version, data in self._published.items()
            if self.quarantined.get(version) != data.fingerprint
        }

    def _check(self, version: int, path: str) -> str | None:
        """Publish a changed version if it is complete; return what it lacks, None if nothing."""
        try:
            listing = DiskListing(path)
            name = self._platform_of(listing)
            fingerprint = self._fingerprint(listing)
            checked = self._checked.get(version)
            if checked is None or (checked.fingerprint, checked.platform) != (fingerprint, name):
                missing = self._what_is_missing(name, listing)
                checked = self._checked[version] = _CheckResult(fingerprint, name, missing)
                if missing is None:
                    self._published[version] = VersionData(
                        path, name, fingerprint, dict(self.model.platform_options)
                    )
        except (Exception, SystemExit) as error:  # one version must not hide the others
            self._checked.pop(version, None)
            if not isinstance(error, (OSError, UnicodeError)):
                _log.exception("version %d of model %s cannot be judged", version, self.model.name)
            return f"it cannot be judged: {error}"
        return checked.missing

    def _fingerprint(self, listing: DiskListing) -> str:
        """Return a digest of a version's files and options: when it changes, it loads anew."""
        options = self.model.platform_options
        if not options:
            return listing.fingerprint
        text = json.dumps(options, sort_keys=True, default=dict)
        return f"{listing.fingerprint}+{blake2b(text.encode(), digest_size=8).hexdigest()}"

    def _platform_of(self, listing: DiskListing) -> str:
        if self.model.platform:
            return self.model.platform
        try:
            file = os.path.join(self.model.base_path, PLATFORM_FILE)
            return read_regular(file, _MAX_NAME_BYTES).decode().strip()
        except FileNotFoundError:
            return self.platforms.recognise(listing) or ""

    def _what_is_missing(self, platform: str, listing: DiskListing) -> str | None:
        if not platform:
            return "its contents are of no known servable type"
        try:
            self.platforms.check_options(platform, self.model.platform_options)
            missing = self.platforms[platform].missing(listing)
        except InvalidArgument as error:
            return error.message
        other = self.platforms.recognise(listing) if missing else None
        if other in (None, platform):
            return missing
        return (
            f"{missing}; it looks like a version of type {other}, which `platform` in "
            "servingd.yaml names, and --model_repository tells by itself"
        )

    def _why_no_version(self, incomplete: dict[int, str]) -> str:
        for version in sorted(self._published.keys() - self._usable(), reverse=True):
            return f"version {version} of model {self.model.name} is quarantined: workers die of it"
        for version, reason in incomplete.items():
            return f"version {version} of model {self.model.name} is incomplete: {reason}"
        path = self.model.base_path.rstrip("/")
        advice = why_no_versions(path, names_in(path), names_in)
        return f"No versions of servable {self.model.name} found under base path {path}. " + (
            advice[:1].upper() + advice[1:]
            or "Did you forget to name your leaf directory as a number (eg. '/1/')?"
        )

    def _log_once(self, problem: str) -> None:
        """Log a problem when it begins; an empty text ends it."""
        if problem and problem != self._problem:
            _log.warning("%s", problem)
        self._problem = problem
