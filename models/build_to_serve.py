"""Keras's way, whole: build, fit, evaluate, predict, save, serve, and ask the server.

    python models/build_to_serve.py [--epochs N] [--folder DIR]

The network and the digits are those of `train_mnist.py`. There is no step between `model.save` and
the server: a version is the file that Keras writes.
"""

import argparse
import contextlib
import http.client
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import train_mnist

from servingd.client import Client

START_S = 120.0


def main() -> None:
    """Go the whole way, and print a line at each step."""
    parser = argparse.ArgumentParser(description="Build, fit, evaluate, predict, save, serve.")
    parser.add_argument("--epochs", type=int, default=train_mnist.EPOCHS)
    parser.add_argument("--folder", type=Path, help="keep the model here, and not in a temporary")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        go(args.folder or Path(temporary), args.epochs)


def go(folder: Path, epochs: int) -> None:
    """Make a model below `folder`, serve it, and compare its answers with Keras's own."""
    digits = train_mnist.load(train_mnist.SPLITS[0])

    model = train_mnist.train(digits, seed=train_mnist.SPLITS[0], epochs=epochs)  # build and fit
    print(f"test accuracy {train_mnist.evaluate(model, digits):.2%}", flush=True)

    images = digits.test_images
    probabilities = model.predict(images, verbose=0)

    repository = folder / "models"
    version = repository / "mnist" / "1"
    version.mkdir(parents=True)
    model.save(version / "model.keras")
    print(f"saved {version / 'model.keras'}", flush=True)

    with serving(repository) as port, Client(f"localhost:{port}") as client:
        (name,) = client.inputs("mnist")
        (served,) = client.predict("mnist", {name: images}).values()
    difference = float(np.max(np.abs(served - probabilities)))
    labels = np.argmax(digits.test_labels, axis=-1)
    accuracy = np.mean(np.argmax(served, axis=-1) == labels)
    print(f"served accuracy {accuracy:.2%}; the probabilities differ by {difference:.0e} at most")


@contextlib.contextmanager
def serving(repository: Path) -> Iterator[int]:
    """Serve the models in a folder until the block ends; yield the port for gRPC."""
    port, http_port = free_port(), free_port()
    command = [sys.executable, "-m", "servingd", "serve", f"--model_repository={repository}"]
    command += [f"--port={port}", f"--rest_api_port={http_port}"]
    log = repository.parent / "server.log"
    with log.open("wb") as output:
        server = subprocess.Popen(command, stdout=output, stderr=output)
    try:
        if not is_ready(server, http_port):
            sys.exit(f"the model is not served:\n{log.read_text()}")
        yield port
    finally:
        server.terminate()
        server.wait()


def is_ready(server: subprocess.Popen[bytes], http_port: int) -> bool:
    """Ask until the model is served; return False if it never is."""
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline and server.poll() is None:
        with contextlib.suppress(OSError):
            connection = http.client.HTTPConnection("localhost", http_port, timeout=10)
            connection.request("GET", "/readyz")
            if connection.getresponse().status == 200:
                return True
        time.sleep(0.1)
    return False


def free_port() -> int:
    """Return a port that nobody uses now."""
    with socket.socket() as found:
        found.bind(("localhost", 0))
        return int(found.getsockname()[1])


if __name__ == "__main__":
    sys.dont_write_bytecode = True  # each folder in here is a model
    main()
