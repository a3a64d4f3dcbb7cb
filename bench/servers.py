"""What is measured against: nginx (HTTP, HTTPS) and unbound (DNS) on loopback, the same for the agent and its peers."""

import contextlib
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from kpatrol.lab.commands import find_program, require_programs
from kpatrol.lab.tls import Authority

NAME = "bench.lab"
# A target each: the agent caps what it sends to one address and port.
ADDRESSES = tuple(f"127.0.{1 + i // 200}.{1 + i % 200}" for i in range(400))

_NGINX = """
daemon off; worker_processes 1; worker_rlimit_nofile 20000; pid {folder}/nginx.pid; error_log {folder}/nginx.log warn;
events {{ worker_connections 16384; }}
http {{
  access_log off; server_tokens off; keepalive_requests 1000000000; keepalive_timeout 600; tcp_nodelay on;
  client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
  ssl_certificate {folder}/bench.pem; ssl_certificate_key {folder}/bench.key;
  server {{
    {listen}
    location / {{ default_type text/plain; return 200 "ok\\n"; }}
  }}
}}
"""
_UNBOUND = """
server:
  directory: "{folder}"
  username: ""
  chroot: ""
  pidfile: ""
  use-syslog: no
  do-daemonize: no
  num-threads: 1
  so-reuseport: no
{interfaces}
  access-control: 127.0.0.0/8 allow
  module-config: iterator
  local-zone: lab. static
  local-data: "{name}. 60 IN A 127.0.0.1"
remote-control:
  control-enable: no
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Servers:
    """Ports, the same on each of ADDRESSES."""

    http: int
    https: int
    dns: int


def free_port() -> int:
    """A port that nobody has now on loopback, for TCP and UDP."""
    with socket.socket() as tcp, socket.socket(type=socket.SOCK_DGRAM) as udp:
        tcp.bind(("127.0.0.1", 0))
        port: int = tcp.getsockname()[1]
        udp.bind(("127.0.0.1", port))
        return port


@contextmanager
def servers(folder: Path) -> Iterator[Servers]:
    """Both servers, started. Raises MissingProgram, RuntimeError."""
    require_programs("nginx", "unbound")
    ports = Servers(http=free_port(), https=free_port(), dns=free_port())
    certificate = Authority(name="bench").server_certificate(name="localhost", addresses=["127.0.0.1"])
    (folder / "bench.pem").write_text(certificate.certificate_pem)
    (folder / "bench.key").write_text(certificate.key_pem)
    nginx, unbound = folder / "nginx.conf", folder / "unbound.conf"
    listen = [f"listen {a}:{ports.http}; listen {a}:{ports.https} ssl;" for a in ADDRESSES]
    nginx.write_text(_NGINX.format(folder=folder, listen="\n    ".join(listen)))
    interfaces = [f"  interface: {a}@{ports.dns}" for a in ADDRESSES]
    unbound.write_text(_UNBOUND.format(folder=folder, interfaces="\n".join(interfaces), name=NAME))
    with contextlib.ExitStack() as stack:
        stack.enter_context(running("nginx", "-p", str(folder), "-c", str(nginx), port=ports.http))
        stack.enter_context(running("unbound", "-c", str(unbound), port=ports.dns))
        yield ports


@contextmanager
def running(program: str, *arguments: str, port: int) -> Iterator[None]:
    """A server, from the moment its TCP port answers. Raises RuntimeError when it does not within ten seconds."""
    path = find_program(program) or program
    process = subprocess.Popen([path, *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        end_s = time.monotonic() + 10
        while not _answers(port):
            if process.poll() is not None or time.monotonic() > end_s:
                raise RuntimeError(f"{Path(program).name} does not answer")
            time.sleep(0.05)
        yield
    finally:
        process.terminate()
        process.wait()


def _answers(port: int) -> bool:
    try:
        socket.create_connection((ADDRESSES[0], port), 0.5).close()
    except OSError:
        return False
    return True
