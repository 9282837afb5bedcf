"""The light client in its four kinds, all called alike."""

from __future__ import annotations

import asyncio
import inspect

from servingd.client import AsyncClient, Client

KINDS = ("grpc", "grpc-async", "rest", "rest-async")


class Awaited:
    """An `AsyncClient` that is called as a `Client` is, on an event loop of its own."""

    def __init__(self, *arguments, **options):
        self.loop = asyncio.new_event_loop()
        self.client = AsyncClient(*arguments, **options)

    def __getattr__(self, name):
        found = getattr(self.client, name)
        if name == "stream":
            return lambda *given, **keywords: self._parts(found(*given, **keywords))
        if not inspect.iscoroutinefunction(found):
            return found
        return lambda *given, **keywords: self.loop.run_until_complete(found(*given, **keywords))

    def _parts(self, stream):
        try:
            while True:
                try:
                    yield self.loop.run_until_complete(anext(stream))
                except StopAsyncIteration:
                    return
        finally:
            self.loop.run_until_complete(stream.aclose())

    def __enter__(self):
        return self

    def __exit__(self, *failure):
        self.loop.run_until_complete(self.client.close())
        self.loop.close()


def open_client(kind: str, port: int, http_port: int, host="127.0.0.1", secure=False, **options):
    """A client of one kind, of a server with these ports."""
    scheme = ("grpc" if kind.startswith("grpc") else "http") + "s" * secure
    place = f"{host}:{port if kind.startswith('grpc') else http_port}"
    make = Awaited if kind.endswith("async") else Client
    return make(f"{scheme}://{place}", **options)
