"""The command `doctor`: is this machine fit to run the server, and what would cure it?"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack

import typer

from servingd.cli.checking.health_checks import CHECKS, Finding, Level, Subject
from servingd.cli.exit_status import FAILED
from servingd.cli.options import AsJson
from servingd.cli.output import print_json, print_line
from servingd.errors import ServingError

_SIGNS = {Level.GOOD: ("ok", "green"), Level.DOUBTFUL: ("!!", "yellow"), Level.BAD: ("XX", "red")}


def doctor(context: typer.Context, as_json: AsJson = False) -> None:
    """Examine this machine, for a server that is given as to `serve`: a path, and flags.

    Looks at ports, limits, memory, TensorFlow, devices, the cache, permissions and the clock; each
    trouble comes with a cure. The exit status is 1 if the server could not run well.
    """
    with ExitStack() as held:
        subject = _subject(context.args, held)
        findings = [finding for check in CHECKS for finding in check(subject)]
    if as_json:
        print_json(
            [{"check": f.check, "level": f.level, "says": f.says, "cure": f.cure} for f in findings]
        )
    else:
        _show(findings)
    if any(finding.level is Level.BAD for finding in findings):
        raise typer.Exit(FAILED)


def _subject(arguments: Sequence[str], held: ExitStack) -> Subject:
    """Return what is examined: the configuration, as far as it can be read; `held` holds it."""
    from servingd.cli.configuration import configuration_of
    from servingd.cli.serve_help import DEFAULTS
    from servingd.config.effective import configure

    anything = configure({"model_base_path": "/"}, DEFAULTS)
    if not arguments:
        return Subject(anything, "", has_models=False)
    try:
        config = held.enter_context(configuration_of("servingd doctor", arguments))
        return Subject(config, "")
    except ServingError as error:
        return Subject(anything, error.message, has_models=False)


def _show(findings: Sequence[Finding]) -> None:
    for finding in findings:
        sign, style = _SIGNS[finding.level]
        print_line(f"{sign}  {finding.check}: {finding.says}", style=style)
        if finding.cure:
            print_line(f"    cure: {finding.cure}")
