"""Who may talk to the server: this machine's browser, from our own page, with the token.

The page may prompt, delete and read everything that its user may, so a request must show

- a `Host` that is this machine's own name for itself, at any port (`ssh -L` changes it): a name of
  another name that resolves to 127.0.0.1 (DNS rebinding) is refused;
- for anything that changes something, and for the WebSocket, an `Origin` that is this host;
- the token, in the address of the first page and from then on in a cookie that scripts cannot read.

Bodies are bounded before they are read.
"""

import hashlib
import hmac
import re
import secrets
from collections.abc import Iterable
from http.cookies import SimpleCookie
from typing import Any
from urllib.parse import parse_qs, urlsplit

MAX_BODY_BYTES = 4 << 20
"""A painted mask of 4K with a rough edge takes 0.1 MB."""

LOCAL_HOSTS = ("localhost", "127.0.0.1", "[::1]")

HEADERS = (
    (
        b"content-security-policy",
        b"default-src 'self'; img-src 'self' blob: data:; object-src 'none'; base-uri 'none'; "
        b"frame-ancestors 'none'; form-action 'none'",
    ),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
)

Scope = dict[str, Any]


class Guard:
    """The outermost layer of the server.

    Args:
        app: What answers requests that may pass.
        token: The secret of the address.
        hosts: Names of this machine besides its own for itself.
    """

    def __init__(self, app: Any, token: str, hosts: Iterable[str] = ()):
        self._app, self._token = app, token
        self._hosts = {*LOCAL_HOSTS, *hosts}
        # A browser sends a cookie to all ports of a host; two servers must not overwrite theirs.
        self._cookie = "longsam_" + hashlib.sha256(token.encode()).hexdigest()[:12]

    async def __call__(self, scope: Scope, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        headers = {
            name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]
        }
        refused = self._refusal(scope, headers)
        if scope["type"] == "websocket":
            if refused is not None:
                await receive()
                await send({"type": "websocket.close", "code": 1008, "reason": refused[1][:120]})
                return
            await self._app(scope, receive, send)
            return
        if refused is not None:
            await _answer(send, *refused)
            return
        if self._is_first(scope):
            cookie = f"{self._cookie}={self._token}; Path=/; HttpOnly; SameSite=Strict"
            await _answer(send, 303, "", (b"location", b"./"), (b"set-cookie", cookie.encode()))
            return
        await self._app(scope, _bounded(receive), _with_headers(send))

    def _refusal(self, scope: Scope, headers: dict[str, str]) -> tuple[int, str] | None:
        """Status and reason; None lets it pass."""
        host = headers.get("host", "")
        if re.sub(r":\d+$", "", host).lower() not in self._hosts:
            return 421, f"this server is not {host[:100]!r}; open the address that it printed."
        origin = headers.get("origin")
        changes = scope["type"] == "websocket" or scope["method"] not in ("GET", "HEAD")
        if (origin is not None or changes) and urlsplit(
            origin or ""
        ).netloc.lower() != host.lower():
            return 403, "only this server's own page may do that."
        if self._is_first(scope):
            return None
        cookies: SimpleCookie = SimpleCookie()
        try:
            cookies.load(headers.get("cookie", ""))
        except Exception:  # of another server, and malformed
            cookies.clear()
        given = cookies[self._cookie].value if self._cookie in cookies else ""
        if not hmac.compare_digest(given.encode(), self._token.encode()):
            return 401, (
                "the address lacks its token, or the server has been started again. Open the "
                "address that `longsam app` printed."
            )
        length = headers.get("content-length", "0")
        if not length.isdecimal() or int(length) > MAX_BODY_BYTES:
            return 413, f"the request is larger than {MAX_BODY_BYTES} bytes."
        return None

    def _is_first(self, scope: Scope) -> bool:
        """Whether this is the address that was printed."""
        if scope["type"] != "http" or scope["path"] != "/" or scope["method"] != "GET":
            return False
        given = parse_qs(scope["query_string"].decode("latin-1")).get("token", [""])[0]
        return hmac.compare_digest(given.encode(), self._token.encode())


def new_token() -> str:
    """A token that cannot be guessed."""
    return secrets.token_urlsafe(24)


def _bounded(receive: Any) -> Any:
    """Stop reading a body that does not say how long it is."""
    size = 0

    async def bounded() -> Any:
        nonlocal size
        message = await receive()
        size += len(message.get("body", b""))
        if size > MAX_BODY_BYTES:
            return {"type": "http.disconnect"}
        return message

    return bounded


def _with_headers(send: Any) -> Any:
    async def with_headers(message: Any) -> None:
        if message["type"] == "http.response.start":
            message = {**message, "headers": [*message.get("headers", []), *HEADERS]}
        await send(message)

    return with_headers


async def _answer(send: Any, status: int, text: str, *headers: tuple[bytes, bytes]) -> None:
    body = text.encode()
    kind = (b"content-type", b"text/plain; charset=utf-8")
    length = (b"content-length", str(len(body)).encode())
    start = {"type": "http.response.start", "status": status}
    await send({**start, "headers": [kind, length, *headers, *HEADERS]})
    await send({"type": "http.response.body", "body": body})
