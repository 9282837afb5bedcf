"""One Python that a page's blocks share, as a reader's own would be: a program of its own.

Each line of its input is a JSON text, a block; each line of its output what that printed, and its
traceback or nothing.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import sys
import traceback


def main() -> None:
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what libraries write to descriptor 1 is no answer
    names: dict[str, object] = {"__name__": "__main__"}
    for line in sys.stdin:
        printed, failed = io.StringIO(), ""
        with contextlib.redirect_stdout(printed):
            try:
                exec(compile(json.loads(line), "<the page>", "exec"), names)
            except BaseException:
                failed = traceback.format_exc()
        answers.write(json.dumps([printed.getvalue(), failed]) + "\n")


if __name__ == "__main__":
    main()
