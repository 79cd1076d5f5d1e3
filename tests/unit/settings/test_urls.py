"""The longest path of a Unix socket, as this system's kernel has it."""

from __future__ import annotations

import socket
import tempfile
from pathlib import Path

import pytest

from kvworker.settings.urls import MAX_SOCKET_PATH_BYTES


def test_the_kernel_accepts_the_longest_socket_path_and_no_longer_one() -> None:
    with tempfile.TemporaryDirectory(prefix="kv-") as directory:
        longest = str(Path(directory) / "x").ljust(MAX_SOCKET_PATH_BYTES, "x")
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(longest)
        with socket.socket(socket.AF_UNIX) as listener, pytest.raises(OSError, match="too long"):
            listener.bind(longest + "x")
