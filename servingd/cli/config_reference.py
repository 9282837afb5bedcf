"""The command `config-reference`: print all settings, made from the tables in the code."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence

from servingd.config.flags.parser import FLAGS, TYPES, default_text
from servingd.config.yaml.document import MODEL_FIELDS, NOT_IN_FILE

_EXAMPLE = """```yaml
rest_api_port: 8501
models:
  - name: half_plus_two
    base_path: /models/half_plus_two
    version_policy: {specific: [1, 2]}
    version_labels: {stable: 1, canary: 2}
```"""


def config_reference() -> None:
    """Print all flags and the fields of servingd.yaml, as Markdown."""
    sys.stdout.write(reference())


def reference() -> str:
    """Return flags and the fields of `servingd.yaml`, as Markdown."""
    return "\n\n".join(
        (
            "# Configuration of servingd",
            "A flag is `--flag=value` or `--flag value`; a boolean may stand alone. The command "
            "line counts more than `servingd.yaml`, and that more than the defaults. `servingd "
            "serve` has `--rest_api_port=8501` as its default.",
            "## TensorFlow Serving's flags",
            _flags(ours=False),
            "## servingd's own flags",
            _flags(ours=True),
            "## servingd.yaml (`--servingd_config_file`)",
            "Its keys are the flags above without their dashes "
            f"(but {' and '.join(f'`{name}`' for name in NOT_IN_FILE)}), and `models`: a list of "
            "mappings with these keys.",
            _table(
                ("Key", "Value", "Meaning"),
                ((f"`{name}`", field.kind, field.help) for name, field in MODEL_FIELDS.items()),
            ),
            _EXAMPLE,
            "",
        )
    )


def _flags(*, ours: bool) -> str:
    rows = (
        (
            f"`--{name}`",
            TYPES[name].__name__,
            default_text(field, {}),
            _meaning(field.metadata["help"], field.metadata["no_effect"]),
        )
        for name, field in FLAGS.items()
        if field.metadata["ours"] is ours
    )
    return _table(("Flag", "Type", "Default", "Meaning"), rows)


def _meaning(text: str, no_effect: str) -> str:
    return f"{text} **No effect here**: {no_effect}." if no_effect else text


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(
        "| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines
    )
