"""The command `predict`: call a model from the shell."""

from __future__ import annotations

import base64
import json
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
import typer

from servingd.cli.call_examples import call_examples
from servingd.cli.calling.input_files import is_file, read_file
from servingd.cli.calling.typed_inputs import by_name, inputs_of
from servingd.cli.options import AsJson, Name, Server, grouped
from servingd.cli.output import console, print_line
from servingd.client import Client
from servingd.client.answers import Signature
from servingd.errors import InvalidArgument, NotFound


@dataclass(frozen=True, slots=True)
class ModelCall:
    """What is called, and with which inputs."""

    model: Name
    inputs: Annotated[
        str,
        typer.Argument(
            metavar="[INPUTS]",
            help='JSON: inputs by name, such as {"x": [1, 2]}, or the value of the only one. @FILE '
            "has them read: .json, .jsonl, .csv, .npy, .npz, an image, or lines of text; - reads "
            "JSON from stdin.",
        ),
    ] = ""
    named: Annotated[
        list[str] | None,
        typer.Option("--input", metavar="NAME=VALUE", help="One input: JSON, @FILE, or a text."),
    ] = None
    version: Annotated[int | None, typer.Option(help="The version; none: the latest.")] = None
    label: Annotated[str, typer.Option(help="The version's label, such as stable.")] = ""
    signature: Annotated[str, typer.Option(help="The signature; none: serving_default.")] = ""

    @property
    def given(self) -> bool:
        """Whether there are inputs."""
        return bool(self.inputs or self.named)

    def known(self, client: Client) -> Mapping[str, str]:
        """Return the types of the signature's inputs, by name."""
        return client.inputs(
            self.model,
            version=self.version,
            label=self.label or None,
            signature=self.signature,
        )

    def predict(self, client: Client, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """Call once."""
        return client.predict(
            self.model,
            inputs,
            version=self.version,
            label=self.label or None,
            signature=self.signature,
        )


@grouped
def predict(
    server: Server,
    call: ModelCall,
    times: Annotated[int, typer.Option("-n", min=1, help="Call so many times.")] = 1,
    as_json: AsJson = True,
) -> None:
    """Call a model and print its outputs as JSON; without inputs, show which there are."""
    with server.client() as client:
        if not call.given:
            _show_inputs(client, call)
            return
        inputs = read_inputs(client, call)
        seconds = []
        for _ in range(times):
            began = time.perf_counter()
            outputs = call.predict(client, inputs)
            seconds.append(time.perf_counter() - began)
    shown = {name: plain(array) for name, array in outputs.items()}
    sys.stdout.write(json.dumps(shown, separators=(",", ":"), ensure_ascii=False) + "\n")
    if times > 1:
        ms = np.percentile(np.array(seconds) * 1e3, (50, 99))
        console(stderr=True).print(f"{times} calls: p50 {ms[0]:.2f} ms, p99 {ms[1]:.2f} ms")


def signature_of(client: Client, call: ModelCall) -> tuple[str, Signature]:
    """Return the signature that is called, and its name. Raises NotFound."""
    metadata = client.metadata(call.model, version=call.version, label=call.label or None)
    name = call.signature or "serving_default"
    if name not in metadata.signatures:
        known = ", ".join(metadata.signatures) or "none"
        raise NotFound(f"there is no signature {name}; there are: {known}")
    return name, metadata.signatures[name]


def _show_inputs(client: Client, call: ModelCall) -> None:
    """Print the inputs of the signature, and a call to copy and paste."""
    name, signature = signature_of(client, call)
    for alias, spec in sorted(signature.inputs.items()):
        print_line(f"input {alias}: {spec}")
    print_line(f"such as: {next(iter(call_examples(call.model, name, signature).values()))}")


def read_inputs(client: Client, call: ModelCall) -> Mapping[str, Any]:
    """Return the inputs that were typed or are in files, by name. Raises ServingError."""

    def kinds() -> Mapping[str, str]:
        return call.known(client)

    found: dict[str, Any] = {}
    if is_file(call.inputs):
        found.update(by_name(call.model, read_file(call.inputs), kinds))
    elif call.inputs:
        found.update(inputs_of(call.model, call.inputs, kinds))
    for each in call.named or ():
        name, equals, value = each.partition("=")
        if not equals:
            raise InvalidArgument(f"--input: expected NAME=VALUE, got {each!r}")
        found[name] = read_file(value) if is_file(value) else _value(value)
    return found


def _value(text: str) -> Any:
    """Return JSON, or the text itself where it is none."""
    try:
        return json.loads(text)
    except ValueError:
        return text


def plain(array: np.ndarray[Any, Any]) -> Any:
    """Return an output as JSON has it; bytes that are no text as `{"b64": ...}`, as REST has."""
    return _plain(array.tolist())


def _plain(value: Any) -> Any:
    if isinstance(value, list):
        return [_plain(each) for each in value]
    if isinstance(value, bytes):
        try:
            return value.decode()
        except UnicodeDecodeError:
            return {"b64": base64.b64encode(value).decode()}
    if isinstance(value, (bool, int, float, str)):
        return value
    return str(value)
