"""TLS: what is verified, what is shown, and how each failure is called."""

import asyncio
import datetime
import ipaddress
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from producers.receipts import Receipts
from producers.responder import Responder, serve
from tests.unit.producers.probes.h2_server import H2Server
from topics.outcome import Outcome, Proto
from topics.task_rounds import HttpRequest


@dataclass(frozen=True)
class Papers:
    """A small authority and what it signed."""

    ca: str
    server_cert: str
    server_key: str
    client_cert: str
    client_key: str
    other_ca: str


def _signed(
    name: str, issuer: "tuple[x509.Name, ec.EllipticCurvePrivateKey] | None", hosts: list[x509.GeneralName]
) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer[0] if issuer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=2))
        .add_extension(x509.BasicConstraints(ca=issuer is None, path_length=None), critical=True)
    )
    if hosts:
        builder = builder.add_extension(x509.SubjectAlternativeName(hosts), critical=False)
    return builder.sign(issuer[1] if issuer else key, hashes.SHA256()), key


def _pem(folder: Path, name: str, cert: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> tuple[str, str]:
    cert_file, key_file = folder / f"{name}.crt", folder / f"{name}.key"
    cert_file.write_bytes(cert.public_bytes(serialization.Encoding.PEM))
    form = serialization.PrivateFormat.PKCS8
    key_file.write_bytes(key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption()))
    return str(cert_file), str(key_file)


@pytest.fixture(scope="module")
def papers(tmp_path_factory: pytest.TempPathFactory) -> Papers:
    """Made once: keys take time."""
    folder = tmp_path_factory.mktemp("papers")
    ca, ca_key = _signed("ca", None, [])
    other, other_key = _signed("other", None, [])
    hosts: list[x509.GeneralName] = [
        x509.DNSName("shop.example"),
        x509.IPAddress(ipaddress.ip_address("127.0.0.1")),
    ]
    server = _signed("server", (ca.subject, ca_key), hosts)
    client = _signed("client", (ca.subject, ca_key), [])
    ca_file, _ = _pem(folder, "ca", ca, ca_key)
    other_file, _ = _pem(folder, "other", other, other_key)
    return Papers(ca_file, *_pem(folder, "server", *server), *_pem(folder, "client", *client), other_file)


async def _responder(papers: Papers, port: int, *, ask_client: bool = False) -> Responder:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(papers.server_cert, papers.server_key)
    if ask_client:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(papers.ca)
    return await serve(
        agent="node-2",
        incarnation=1,
        address="127.0.0.1",
        http_port=0,
        https_port=port,
        tcp_port=0,
        udp_port=0,
        tls=context,
        receipts=Receipts(),
    )


def test_any_certificate_will_do_unless_it_is_to_be_verified(lab: Any, papers: Papers) -> None:
    async def scene() -> None:
        port = lab.free_port()
        responder = await _responder(papers, port)
        target = lab.target(port=port, proto=Proto.https, agent="node-2")
        _, rows = await lab.load(target, requests=3, rate=5, duration_s=0.6, timeout_ms=1000)
        await responder.close()
        assert [(row.outcome, row.peer) for row in rows] == [(Outcome.ok, "node-2")] * 3
        assert rows[0].tls_us > 0
        assert rows[0].connect_us + rows[0].tls_us + rows[0].ttfb_us <= rows[0].dur_us
        assert rows[1].tls_us == rows[2].tls_us == 0
        assert rows[1].sent >= 1

    lab.run(scene)


@pytest.mark.parametrize(
    ("name", "request_", "outcome", "error"),
    [
        ("address", HttpRequest(), Outcome.ok, ""),
        ("server name", HttpRequest(server_name="shop.example"), Outcome.ok, ""),
        ("host header with port", HttpRequest(host_header="shop.example:8443"), Outcome.ok, ""),
        ("other name", HttpRequest(server_name="bank.example"), Outcome.tls_error, "certificate_verify_failed"),
        ("other authority", HttpRequest(), Outcome.tls_error, "certificate_verify_failed"),
    ],
)
def test_verification_is_by_authority_and_name(
    lab: Any, papers: Papers, name: str, request_: HttpRequest, outcome: Outcome, error: str
) -> None:
    async def scene() -> None:
        port = lab.free_port()
        responder = await _responder(papers, port)
        http = HttpRequest(
            verify=True,
            ca_file=papers.other_ca if name == "other authority" else papers.ca,
            server_name=request_.server_name,
            host_header=request_.host_header,
        )
        _, (row,) = await lab.load(lab.target(port=port, proto=Proto.https), timeout_ms=1000, http=http)
        await responder.close()
        assert (row.outcome, row.error) == (outcome, error)

    lab.run(scene)


def test_a_client_certificate_is_shown_where_the_task_has_one(lab: Any, papers: Papers) -> None:
    async def scene() -> None:
        port = lab.free_port()
        responder = await _responder(papers, port, ask_client=True)
        target = lab.target(port=port, proto=Proto.https)
        shown = HttpRequest(cert_file=papers.client_cert, key_file=papers.client_key)
        _, (with_it,) = await lab.load(target, timeout_ms=1000, http=shown)
        _, (without,) = await lab.load(target, timeout_ms=1000)
        await responder.close()
        assert with_it.outcome is Outcome.ok
        assert without.outcome in (Outcome.tls_error, Outcome.reset)

    lab.run(scene)


def _secured(papers: Papers, *protocols: str, ask_client: bool = False) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(papers.server_cert, papers.server_key)
    context.set_alpn_protocols(protocols)
    if ask_client:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(papers.ca)
    return context


def test_http2_is_agreed_on_in_the_handshake(lab: Any, papers: Papers) -> None:
    async def scene() -> None:
        names: list[str | None] = []
        context = _secured(papers, "h2", ask_client=True)
        context.sni_callback = lambda _, name, __: names.append(name)
        server = H2Server()
        async with lab.server(server, ssl=context) as port:
            target = lab.target(port=port, proto=Proto.https)
            http = HttpRequest(
                http2=True,
                verify=True,
                ca_file=papers.ca,
                cert_file=papers.client_cert,
                key_file=papers.client_key,
                server_name="shop.example",
                host_header=f"shop.example:{port}",
            )
            _, rows = await lab.load(target, requests=5, rate=20, timeout_ms=2000, http=http)
        assert [(row.outcome, row.status) for row in rows] == [(Outcome.ok, 200)] * 5
        assert (server.connections, names) == (1, ["shop.example"])
        assert server.requests[0].headers[":scheme"] == "https"
        assert server.requests[0].headers[":authority"] == f"shop.example:{port}"
        assert rows[0].tls_us > 0
        assert {row.tls_us for row in rows[1:]} == {0}
        assert rows[0].connect_us + rows[0].tls_us + rows[0].ttfb_us <= rows[0].dur_us

    lab.run(scene)


def test_a_server_that_does_not_speak_http2_is_told_from_one_that_refuses_it(lab: Any, papers: Papers) -> None:
    async def scene() -> None:
        silent = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        silent.load_cert_chain(papers.server_cert, papers.server_key)
        async with lab.server(H2Server(), ssl=silent) as port:
            target = lab.target(port=port, proto=Proto.https)
            _, (row,) = await lab.load(target, timeout_ms=2000, http=HttpRequest(http2=True))
        assert (row.outcome, row.error) == (Outcome.bad_reply, "http2_not_negotiated")
        async with lab.server(H2Server(), ssl=_secured(papers, "h2")) as port:
            target = lab.target(port=port, proto=Proto.https)
            other = HttpRequest(http2=True, verify=True, ca_file=papers.other_ca)
            _, (row,) = await lab.load(target, timeout_ms=2000, http=other)
        assert (row.outcome, row.error) == (Outcome.tls_error, "certificate_verify_failed")

    lab.run(scene)


@pytest.mark.parametrize("http2", [False, True])
def test_the_name_shown_is_the_host_without_its_port(lab: Any, papers: Papers, http2: bool) -> None:
    """SNI and verification by the bare name: an explicit port never fails a good certificate."""

    async def scene() -> None:
        names: list[str | None] = []
        context = _secured(papers, "h2") if http2 else _secured(papers, "http/1.1")
        context.sni_callback = lambda _, name, __: names.append(name)

        async def plain(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
            await reader.read(1)

        async with lab.server(H2Server() if http2 else plain, ssl=context) as port:
            http = HttpRequest(verify=True, ca_file=papers.ca, host_header=f"shop.example:{port}", http2=http2)
            _, (row,) = await lab.load(lab.target(port=port, proto=Proto.https), timeout_ms=2000, http=http)
        assert (row.outcome, names) == (Outcome.ok, ["shop.example"])

    lab.run(scene)


def test_a_missing_certificate_file_sends_nothing(lab: Any) -> None:
    async def scene() -> None:
        http = HttpRequest(verify=True, ca_file="/nowhere/ca.crt")
        account, rows = await lab.load(lab.target(port=1, proto=Proto.https), http=http)
        assert (rows, account.unsent_causes) == ([], (("invalid_request", 1),))

    lab.run(scene)


@pytest.mark.parametrize(
    ("says", "outcome", "error"),
    [
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", Outcome.tls_error, "tls_failed"),
        (b"", Outcome.timeout, "timeout"),
    ],
)
def test_a_server_without_tls_is_a_tls_error_and_a_silent_one_a_timeout(
    lab: Any, says: bytes, outcome: Outcome, error: str
) -> None:
    async def scene() -> None:
        async def plain(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read(100)
            writer.write(says)
            if not says:
                await asyncio.sleep(10)

        async with lab.server(plain) as port:
            timeout_ms = 150 if outcome is Outcome.timeout else 5000
            _, (row,) = await lab.load(lab.target(port=port, proto=Proto.https), timeout_ms=timeout_ms)
        assert (row.outcome, row.error) == (outcome, error)
        assert row.connect_us > 0

    lab.run(scene)
