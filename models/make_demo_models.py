"""Make the demo models that are missing, here in models/, which is what `make run` serves.

    python models/make_demo_models.py [--force]

`mnist` reads a handwritten digit, `half_plus_two` computes x / 2 + 2, `digit_names` is a lookup
table from a digit to its English name.
"""

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

HERE = Path(__file__).resolve().parent
VERSION = "1"
DIGIT_NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")

# Told the share of the work that is done, 0..1.
Report = Callable[[float], None]
# Writes one version into a folder that does not exist yet; returns what to tell the user.
Maker = Callable[[Path, Report], str]


def make_mnist(folder: Path, report: Report, epochs: int | None = None) -> str:
    """Train the digit reader; `epochs` shortens the training for a test."""
    _import_tensorflow()
    import keras
    import train_mnist

    epochs = epochs or train_mnist.EPOCHS
    split = train_mnist.SPLITS[0]
    digits = train_mnist.load(split)
    progress = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: report((epoch + 1) / (epochs + 1))
    )
    model = train_mnist.train(digits, seed=split, epochs=epochs, callbacks=[progress])
    train_mnist.save(model, folder)
    return f"test accuracy {train_mnist.evaluate(model, digits):.2%}"


def make_half_plus_two(folder: Path, report: Report) -> str:
    """Write TensorFlow Serving's own demo model."""
    tf = _import_tensorflow()
    module = tf.Module()
    module.a = tf.Variable(0.5, name="a")
    module.b = tf.Variable(2.0, name="b")

    @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, name="x")], autograph=False)
    def serve(x: Any) -> dict[str, Any]:
        return {"y": module.a * x + module.b}

    module.serve = serve
    tf.saved_model.save(module, str(folder), signatures={"serving_default": serve})
    return "x / 2 + 2"


def make_digit_names(folder: Path, report: Report) -> str:
    """Write the lookup table."""
    folder.mkdir()
    rows = [f"{digit},{name}\n" for digit, name in enumerate(DIGIT_NAMES)]
    (folder / "table.csv").write_text("".join(rows), encoding="utf-8")
    return f"{len(rows)} rows"


# The quick ones first: something can be served while mnist is still being trained.
MAKERS: Mapping[str, Maker] = {
    "digit_names": make_digit_names,
    "half_plus_two": make_half_plus_two,
    "mnist": make_mnist,
}


def make_missing(
    repository: Path,
    makers: Mapping[str, Maker] = MAKERS,
    *,
    force: bool = False,
) -> tuple[str, ...]:
    """Make the models whose version 1 is missing (all, if forced); return the names of the made."""
    todo = tuple(name for name in makers if force or not (repository / name / VERSION).exists())
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    console = Console()
    # Bars are for people; a log gets the lines only.
    bars = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
    with bars as progress:
        tasks = {name: progress.add_task(name, total=1.0, start=False) for name in todo}
        for name in todo:
            progress.start_task(tasks[name])
            line = _make(repository, name, makers[name], _reporter(progress, tasks[name]))
            progress.update(tasks[name], completed=1.0)
            progress.print(line, highlight=False)
    return todo


def _reporter(progress: Progress, task: TaskID) -> Report:
    return lambda share: progress.update(task, completed=share)


def _make(repository: Path, name: str, maker: Maker, report: Report) -> str:
    """Make one version aside, put it in place, and return the line to print about it."""
    began = time.monotonic()
    # In the repository, because a rename does not cross file systems; with a dot, because a server
    # that already watches the repository passes over such folders.
    with tempfile.TemporaryDirectory(prefix=".making-", dir=repository) as aside:
        made = Path(aside) / "new"
        outcome = maker(made, report)
        target = repository / name / VERSION
        target.parent.mkdir(exist_ok=True)
        if target.exists():
            target.rename(Path(aside) / "old")
        made.rename(target)
    return f"{name}/{VERSION}: {outcome} ({time.monotonic() - began:.1f} s)"


def _import_tensorflow() -> ModuleType:
    """Import TensorFlow without what its C++ half prints before anyone can tell it not to."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    stderr = os.dup(2)
    try:
        with open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        import tensorflow
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)
    return tensorflow


def main() -> None:
    """Make what is missing in models/."""
    parser = argparse.ArgumentParser(description="Make the demo models that are missing.")
    parser.add_argument("--force", action="store_true", help="make also what is there already")
    args = parser.parse_args()
    # Each folder in here is a model: no __pycache__ among them.
    sys.dont_write_bytecode = True
    if not make_missing(HERE, force=args.force):
        print("the demo models are all there")


if __name__ == "__main__":
    main()
