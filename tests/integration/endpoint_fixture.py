"""A real endpoint process for tests: started on a port of its own, stopped by its id."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

WRITER_PASSWORD = "writer-secret"
READER_PASSWORD = "reader-secret"


@dataclass(kw_only=True)
class Endpoint:
    """An endpoint over `path`. After `kill` and `start` it is on the same port."""

    path: Path
    extra: tuple[str, ...] = ()
    port: int = 0
    process: "subprocess.Popen[str] | None" = field(default=None, repr=False)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def password_file(self) -> Path:
        return self.path.parent / "writer.password"

    def command(self, port: int) -> list[str]:
        reader_file = self.path.parent / "reader.password"
        self.password_file.write_text(WRITER_PASSWORD + "\n")
        reader_file.write_text(READER_PASSWORD + "\n")
        return [
            sys.executable,
            "-m",
            "kpatrol.endpoint",
            "--path",
            str(self.path),
            "--listen",
            f"127.0.0.1:{port}",
            "--writer-password-file",
            str(self.password_file),
            "--reader-password-file",
            str(reader_file),
            *self.extra,
        ]

    def start(self) -> None:
        log = (self.path.parent / "endpoint.log").open("a")
        self.process = subprocess.Popen(self.command(self.port), stdout=subprocess.PIPE, stderr=log, text=True)
        log.close()
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        found = re.search(r"ready: http://127\.0\.0\.1:(\d+)", line)
        if found is None:
            self.stop()
            raise AssertionError(
                f"the endpoint did not start: {line!r} {(self.path.parent / 'endpoint.log').read_text()}"
            )
        self.port = int(found.group(1))

    def kill(self) -> None:
        """kill -9."""
        assert self.process is not None
        os.kill(self.process.pid, signal.SIGKILL)
        self._reap()

    def stop(self) -> int:
        """SIGTERM; returns the exit code."""
        assert self.process is not None
        if self.process.poll() is None:
            self.process.terminate()
        return self._reap()

    def _reap(self) -> int:
        assert self.process is not None
        assert self.process.stdout is not None
        code = self.process.wait(60)
        self.process.stdout.close()
        self.process = None
        return code


@contextmanager
def running_endpoint(folder: Path, *extra: str) -> Iterator[Endpoint]:
    """A started endpoint with its data below `folder`, stopped at the end."""
    endpoint = Endpoint(path=folder / "data", extra=extra)
    endpoint.start()
    try:
        yield endpoint
    finally:
        if endpoint.process is not None:
            endpoint.stop()
