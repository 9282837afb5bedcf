"""The options that commands share: which server, how to reach it, and how to print."""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, cast, get_type_hints

import typer

from servingd.client import Client, Tls
from servingd.client.address import find_address
from servingd.errors import InvalidArgument

Name = Annotated[str, typer.Argument(metavar="MODEL", help="The model's name.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]


@dataclass(frozen=True, slots=True)
class Server:
    """The server that a command talks to. Raises ServingError where it cannot be reached."""

    server: Annotated[
        str,
        typer.Option(
            "--server",
            envvar="SERVINGD_SERVER",
            metavar="ADDRESS",
            help="The server: http://host:8501, grpc://host:8500, or host:port. With TLS: https:// "
            "or grpcs://.",
        ),
    ] = "localhost:8501"
    token_file: Annotated[
        Path | None, typer.Option("--token_file", help="File with the administrators' token.")
    ] = None
    ca_file: Annotated[
        Path | None,
        typer.Option("--ca_file", help="File with the certificates to trust, for TLS."),
    ] = None
    timeout_s: Annotated[float, typer.Option("--timeout_s", help="Seconds to wait, at most.")] = (
        30.0
    )

    @contextmanager
    def client(self) -> Iterator[Client]:
        """Connect, and disconnect at the end."""
        with Client(find_address(self.server), **self.settings()) as client:
            yield client

    def settings(self) -> dict[str, Any]:
        """Return what a Client needs besides the address."""
        tls = Tls(ca_file=self.ca_file) if self.ca_file else False
        return {"tls": tls, "token": self._token(), "timeout_s": self.timeout_s}

    def page(self, path: str) -> Any:
        """Return one of servingd's own pages."""
        with self.client() as client:
            return client.page(path)

    def act(self, path: str, content: Mapping[str, Any]) -> Any:
        """Ask for an action, and return the answer."""
        with self.client() as client:
            return client.page(path, dict(content))

    def _token(self) -> str | None:
        if self.token_file is None:
            return None
        try:
            return self.token_file.read_text().strip()
        except OSError as error:
            raise InvalidArgument(f"--token_file: {self.token_file}: {error.strerror}") from error


def grouped(command: Callable[..., None]) -> Callable[..., None]:
    """Make a command of a function whose options are fields of dataclasses.

    A parameter that is annotated with a dataclass stands for all of its fields.
    """
    groups: dict[str, Callable[..., Any]] = {}
    parameters: list[inspect.Parameter] = []
    for parameter in inspect.signature(command, eval_str=True).parameters.values():
        kind = parameter.annotation
        if dataclasses.is_dataclass(kind):
            groups[parameter.name] = cast("Callable[..., Any]", kind)
            parameters += _fields(cast(type, kind))
        else:
            parameters.append(parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY))

    @functools.wraps(command)
    def wrapper(**given: Any) -> None:
        for name, kind in groups.items():
            fields = inspect.signature(kind).parameters
            made = kind(**{field: given.pop(field) for field in fields})
            given[name] = made
        command(**given)

    wrapper.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    wrapper.__annotations__ = {p.name: p.annotation for p in parameters}
    return wrapper


def _fields(kind: type) -> Iterator[inspect.Parameter]:
    """Yield a dataclass's fields as parameters."""
    hints = get_type_hints(kind, include_extras=True)
    for field in dataclasses.fields(kind):
        default = field.default
        if default is dataclasses.MISSING:
            default = inspect.Parameter.empty
        yield inspect.Parameter(
            field.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=default,
            annotation=hints[field.name],
        )
