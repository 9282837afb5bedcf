"""Run a container of a manifest as a kubelet would: its arguments, environment, user and ports.

In a file system of its own, which is read-only but for the volumes, and with a network of its own.
In the place of the image there are this checkout and its Python.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

from tests import absent

ROOT = Path(__file__).parents[2]
PYTHON = Path(sys.executable)

RUN = """
set -e
mount --make-rprivate /
mount -t tmpfs -o mode=755 tmpfs "$NEW_ROOT"
for folder in $EMPTY; do
    mkdir -p "$NEW_ROOT$folder"
    mount -t tmpfs -o mode=777 tmpfs "$NEW_ROOT$folder"
done
# Afterwards: this checkout may lie below /tmp.
for folder in $FOLDERS; do
    mkdir -p "$NEW_ROOT$folder"
    mount --rbind "$folder" "$NEW_ROOT$folder"
    mount -o remount,bind,ro "$NEW_ROOT$folder"
done
for folder in dev proc sys; do
    mkdir "$NEW_ROOT/$folder"
    mount --rbind "/$folder" "$NEW_ROOT/$folder"
done
mkdir -p "$NEW_ROOT$MODELS"
mount --bind -o ro "$SOURCE" "$NEW_ROOT$MODELS"
mount -o remount,ro "$NEW_ROOT"
ip link set lo up
exec chroot "$NEW_ROOT" setpriv --reuid="$WHO" --regid="$WHO" --clear-groups --no-new-privs \
    --bounding-set=-all --inh-caps=-all env -i $ENVIRONMENT "$@"
"""

ASK = """
import http.client, sys
connection = http.client.HTTPConnection("127.0.0.1", int(sys.argv[1]), timeout=10)
connection.request(sys.argv[2], sys.argv[3], sys.argv[4] or None)
answer = connection.getresponse()
print(answer.status, answer.read().decode())
"""


def possible() -> bool:
    """Whether we may have such a file system and network here."""
    if os.geteuid() != 0 or not all(map(shutil.which, ("unshare", "setpriv", "nsenter", "ip"))):
        return False
    attempt = "mount --make-rprivate / && mount -t tmpfs tmpfs /mnt && ip link set lo up"
    command = ["unshare", "--mount", "--net", "sh", "-c", attempt]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


class Container:
    """A container that runs. `models` is the folder that is mounted at `models_at`."""

    def __init__(self, container: dict, folder: Path, *, models: Path, models_at: str) -> None:
        self.container = container
        assert container["command"] == ["/usr/bin/servingd", "serve"]
        context = container["securityContext"]
        assert context["readOnlyRootFilesystem"]
        new_root = folder / "root"
        new_root.mkdir()
        mounts = [mount["mountPath"] for mount in container["volumeMounts"]]
        given = {variable["name"]: variable["value"] for variable in container["env"]}
        given |= {"PATH": "/usr/bin:/bin", "PYTHONPATH": f"{ROOT}:{absent.HIDDEN}"}
        folders = {f for f in ("/usr", "/bin", "/lib", "/lib64", "/etc") if Path(f).is_dir()}
        folders |= {sys.base_prefix, str(ROOT), str(Path(sys.prefix).resolve())}
        run = {
            "NEW_ROOT": str(new_root),
            # One below another is mounted with it.
            "FOLDERS": " ".join(sorted(f for f in folders if not _below(f, folders))),
            "EMPTY": " ".join(path for path in mounts if path != models_at),
            "MODELS": models_at,
            "SOURCE": str(models),
            "WHO": str(context["runAsUser"]),
            "ENVIRONMENT": " ".join(f"{name}={value}" for name, value in given.items()),
        }
        self.log = folder / "log"
        command = ["unshare", "--mount", "--net", "sh", "-c", RUN, "sh"]
        command += [str(PYTHON), "-m", "servingd", "serve", *container["args"]]
        with self.log.open("wb") as out:
            self.process = subprocess.Popen(
                command, env={**os.environ, **run}, stdout=out, stderr=out
            )
        while self._network("self") == self._network(self.process.pid):
            time.sleep(0.01)  # until then we would ask this machine's servers

    def _network(self, process: int | str) -> str:
        return os.readlink(f"/proc/{process}/ns/net")

    def ask(self, path: str, body: str = "", port: int | None = None) -> tuple[int, str]:
        """Status and text of an answer, from within the container's network; 0: there is none."""
        method = "POST" if body else "GET"
        enter = ["nsenter", f"--net=/proc/{self.process.pid}/ns/net", sys.executable, "-c", ASK]
        number = str(port or self.port_of("livenessProbe"))
        done = subprocess.run(
            [*enter, number, method, path, body],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        status, _, text = done.stdout.partition(" ")
        return int(status or 0), text

    def port_of(self, probe: str) -> int:
        """The number of the port that a probe asks, which may be given by its name."""
        port = self.container[probe]["httpGet"]["port"]
        numbers = {p["name"]: p["containerPort"] for p in self.container["ports"]}
        return numbers.get(port, port)

    def probe(self, name: str) -> bool:
        """Whether a probe succeeds."""
        probe = self.container[name]
        status, _ = self.ask(probe["httpGet"]["path"], port=self.port_of(name))
        return 200 <= status < 400

    def wait_for(self, name: str) -> None:
        """Ask until a probe succeeds; of a startupProbe, as long as it may fail."""
        probe = self.container[name]
        allowed = probe["periodSeconds"] * probe["failureThreshold"] if name[0] == "s" else 60
        deadline = time.monotonic() + allowed
        while not self.probe(name):
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < deadline, self.log.read_text()

    def stop(self) -> None:
        """Ask it to stop, as a kubelet does first."""
        self.process.send_signal(signal.SIGTERM)

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()


def _below(folder: str, others: set[str]) -> bool:
    return any(Path(other) in Path(folder).parents for other in others)
