"""What is imported: models with links to their files, and notes on what has no counterpart."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from servingd.cli.output import escaped
from servingd.config.models import is_model_name
from servingd.errors import AlreadyExists

CONFIG = "servingd.yaml"


@dataclass(frozen=True, slots=True)
class ImportedModel:
    """One model: its entry in `servingd.yaml`, and the files of its versions."""

    name: str
    settings: Mapping[str, Any]
    """The fields of its entry besides name and base_path."""
    links: Mapping[str, Path]
    """By path below the model's folder, such as `1` or `1/model.joblib`: what is linked there."""


@dataclass(slots=True)
class Imported:
    """All models of a folder, and what the operator must know."""

    models: list[ImportedModel] = field(default_factory=list)
    flags: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    """What has no counterpart, or is different here; a line each, without control characters."""

    def note(self, text: str) -> None:
        """Add a note. Names and keys in it may hold anything: it must stay one line, a comment."""
        self.notes.append(escaped(" ".join(text.split())))

    def takes(self, name: str) -> bool:
        """Return whether a model may have this name; if not, note that it is left out.

        Its links are in a folder of this name, which must be its own, and below the target.
        """
        expected = is_model_name(name)
        if "/" in name or name in (".", ".."):
            expected = "a name that can be a folder's"
        elif any(model.name == name for model in self.models):
            expected = "a name that no other model has"
        if expected:
            self.note(f"{name!r} is left out: expected {expected}")
        return not expected

    def write(self, target: Path) -> Path:
        """Make the links and `servingd.yaml` in a folder; return the file.

        Raises AlreadyExists for a folder that has such a file, and OSError.
        """
        file = target / CONFIG
        if file.exists():
            raise AlreadyExists(f"{file} is there already: choose another folder by --to")
        target.mkdir(parents=True, exist_ok=True)
        for model in self.models:
            for below, source in model.links.items():
                link = target / model.name / below
                link.parent.mkdir(parents=True, exist_ok=True)
                if link.is_symlink():
                    link.unlink()
                link.symlink_to(source.resolve())
        file.write_text(self.text(target), encoding="utf-8")
        return file

    def text(self, target: Path) -> str:
        """Return `servingd.yaml` for models below a folder."""
        entries = [
            {"name": m.name, "base_path": os.path.abspath(target / m.name), **m.settings}
            for m in self.models
        ]
        content = {**self.flags, "models": entries}
        head = "".join(f"# {line}\n" for line in self.notes)
        return head + yaml.safe_dump(content, sort_keys=False, allow_unicode=True)


def versions_below(folder: Path) -> Sequence[Path]:
    """Return the folders whose names are numbers, in their order."""
    found = [each for each in folder.iterdir() if each.is_dir() and each.name.isdigit()]
    return sorted(found, key=lambda each: int(each.name))
