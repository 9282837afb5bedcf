"""Whether a folder lies on this machine, by the list of mounts."""

from pathlib import Path

import pytest

from servingd.machine.mounts import is_local

MOUNTS = r"""
22 28 0:20 / /proc rw,nosuid - proc proc rw
28 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw
40 28 0:40 / /home rw,relatime - nfs4 server:/home rw,vers=4.2
41 40 0:41 / /home/me/scratch rw - xfs /dev/sdb rw
42 28 0:42 / /mnt/two\040words rw - fuse.s3fs s3fs rw
43 28 0:43 / /mnt/twice rw - nfs server:/x rw
44 28 0:44 / /mnt/twice rw - tmpfs tmpfs rw
45 28 0:45 / /dev/shm rw - tmpfs tmpfs rw
46 28 0:46 / /new rw - somefs x rw
"""


@pytest.mark.parametrize(
    ("folder", "local"),
    [
        ("/var/cache", True),
        ("/home", False),
        ("/home/me/.cache/servingd", False),
        ("/home/me/scratch", True),
        ("/home/me/scratched", False),
        ("/homes", True),
        ("/mnt/two words/x", False),
        ("/mnt/twice/x", True),
        ("/dev/shm/x", True),
        ("/new/x", False),
    ],
)
def test_the_innermost_mount_decides(tmp_path: Path, folder: str, local: bool) -> None:
    mounts = tmp_path / "mountinfo"
    mounts.write_text(MOUNTS.strip())
    assert is_local(Path(folder), mounts) is local


def test_without_a_list_every_folder_is(tmp_path: Path) -> None:
    assert is_local(tmp_path, tmp_path / "none")


def test_where_tests_run_there_is_one(tmp_path: Path) -> None:
    assert is_local(tmp_path) in {True, False}
