"""An OAuth 2.1 authorization server, as far as a server that gets its tokens sees it: keys at a URL, signed tokens."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

AUDIENCE = "https://kv.example/mcp"


class Issuer:
    """Signs tokens with keys of several kinds, and publishes the public ones over HTTP."""

    def __init__(self) -> None:
        self.rsa = rsa.generate_private_key(65537, 2048)
        self.ec = ec.generate_private_key(ec.SECP256R1())
        self.ed = ed25519.Ed25519PrivateKey.generate()
        self.document: Any = {"keys": [self.public("rsa"), self.public("ec"), self.public("ed")]}
        self.asked = 0
        self.status = 200
        issuer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                issuer.asked += 1
                body = issuer.document if isinstance(issuer.document, bytes) else json.dumps(issuer.document).encode()
                self.send_response(issuer.status)
                self.send_header("Location", "/elsewhere")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    @property
    def settings(self) -> dict[str, Any]:
        """The block ``policies.oauth``."""
        return {"issuer": self.url, "audience": AUDIENCE, "jwks_url": f"{self.url}/keys"}

    def public(self, name: str, **members: Any) -> dict[str, Any]:
        """Return a public key as the document has it."""
        algorithm: Any = {"rsa": RSAAlgorithm, "ec": ECAlgorithm, "ed": OKPAlgorithm}[name]
        return {**json.loads(algorithm.to_jwk(getattr(self, name).public_key())), "kid": name, **members}

    def token(self, *, key: Any = None, algorithm: str = "RS256", kid: str | None = "rsa", **claims: Any) -> str:
        """Return a valid token, unless an argument makes it another one. None leaves a claim out."""
        all_claims = {
            "iss": self.url,
            "aud": AUDIENCE,
            "sub": "someone",
            "client_id": "a-client",
            "exp": int(time.time()) + 600,
            **claims,
        }
        headers = {} if kid is None else {"kid": kid}
        given = {name: value for name, value in all_claims.items() if value is not None}
        # Not jwt.encode: it refuses to make some of the tokens that it should refuse to take.
        return jwt.PyJWS().encode(json.dumps(given).encode(), self.rsa if key is None else key, algorithm, headers)


@contextmanager
def running_issuer() -> Iterator[Issuer]:
    issuer = Issuer()
    thread = threading.Thread(target=issuer.server.serve_forever)
    thread.start()
    try:
        yield issuer
    finally:
        issuer.server.shutdown()
        thread.join()
        issuer.server.server_close()
