"""TLS contexts of the probes, made once per channel, off the hot path."""

import ssl

from topics.task_rounds import HttpRequest


def client_context(request: HttpRequest, *, alpn: tuple[str, ...] = ()) -> ssl.SSLContext:
    """The context that a task asks for. Without `verify` any certificate will do (kdoctor's default). `alpn` are the
    protocols offered.

    Raises ValueError when a certificate or key file cannot be read.
    """
    context = unverified()
    try:
        if request.verify:
            context = ssl.create_default_context(cafile=request.ca_file or None)
        if request.cert_file:
            context.load_cert_chain(request.cert_file, request.key_file or None)
    except (OSError, ssl.SSLError) as error:
        raise ValueError(f"TLS files of the task: {error}") from error
    if alpn:
        context.set_alpn_protocols(alpn)
    return context


def unverified() -> ssl.SSLContext:
    """A client context that takes any certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context
