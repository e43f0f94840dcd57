"""Google's Secret Manager by drongo, and what drongo lacks: bearer tokens with rights, the metadata server and the
token exchange that give them, checksums, and the real rule for `latest` (the newest version, whatever its state).

Accounts: `default` may do all, `denied@x.iam` nothing. A token is its account and a number: `default.1`.

An account with a key of its own signs its tokens itself; `POST /_keys` with `{"email": …, "key": PEM}` makes one known, and it
may do all.
"""

import base64
import itertools
import json
import time
from http.server import ThreadingHTTPServer
from urllib.parse import parse_qs, urlparse

import drongo.services  # noqa: F401
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from drongo import server as drongo_server
from drongo.core import exceptions, registry
from drongo.services.secretmanager import models, responses

NUMBERS = itertools.count(1)
KEYS = {}
SCOPE = "https://www.googleapis.com/auth/cloud-platform"


def crc32c(data):
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = (crc >> 1) ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def resolve(_, secret, version):
    versions = secret.versions
    if version in ("latest", "") and versions:
        return versions[-1]
    if version.isdigit() and 1 <= int(version) <= len(versions):
        return versions[int(version) - 1]
    raise exceptions.not_found(f"Secret Version [{secret.name}/versions/{version}] not found.")


def access(self, request):
    found = self.backend_for(request).get_version(request.path_params["secret"], request.path_params["version"])
    if found.state != "ENABLED":
        message = f"Secret Version [{found.name}] is in {found.state} state."
        raise exceptions.DrongoHttpError(400, message, status="FAILED_PRECONDITION")
    payload = {"data": base64.b64encode(found.data).decode(), "dataCrc32c": str(crc32c(found.data))}
    return responses.json_response({"name": found.name, "payload": payload})


models.SecretManagerBackend._resolve_version = resolve
service = next(one for one in registry.iter_services() if one.name == "secretmanager")
routes = service.response._routes
routes[:] = [(method, path, access if path.pattern.endswith(":access") else handler) for method, path, handler in routes]


def account_of(token):
    """Whose token it is: its first part, or whoever signed it."""
    parts = token.split(".")
    if len(parts) != 3:
        return parts[0]
    decoded = [base64.urlsafe_b64decode(part + "==") for part in parts]
    claims = json.loads(decoded[1])
    try:
        KEYS[claims["iss"]].verify(decoded[2], ".".join(parts[:2]).encode(), PKCS1v15(), SHA256())
    except (KeyError, InvalidSignature):
        return "stranger"
    fits = claims["iat"] <= time.time() + 10 < claims["exp"] and claims.get("scope") == SCOPE
    return "default" if fits else "stranger"


class Handler(drongo_server.DrongoHTTPRequestHandler):
    # Head and body are two writes: the second would wait 40 ms for the first to be acknowledged.
    disable_nagle_algorithm = True

    def refuse(self, code, status, message):
        body = json.dumps({"error": {"code": code, "message": message, "status": status}})
        self._write((code, {"Content-Type": "application/json"}, body))

    def answer(self, obj):
        self._write((200, {"Content-Type": "application/json", "Metadata-Flavor": "Google"}, json.dumps(obj)))

    def token(self, account):
        return {"access_token": f"{account}.{next(NUMBERS)}", "expires_in": 3600, "token_type": "Bearer"}

    def metadata(self, path):
        if path.endswith("/token"):
            return self.answer(self.token("denied" if "/denied@" in path else "default"))
        known = {"project-id": "p1", "email": "runner@p1.iam.gserviceaccount.com", "universe_domain": "googleapis.com"}
        text = next((value for name, value in known.items() if name in path.replace("-domain", "_domain")), "default")
        self._write((200, {"Content-Type": "text/plain", "Metadata-Flavor": "Google"}, text))

    def go(self):
        url = urlparse(self.path)
        if url.path.startswith("/computeMetadata/"):
            return self.metadata(url.path)
        if url.path == "/_keys":
            made = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            KEYS[made["email"]] = load_pem_public_key(made["key"].encode())
            return self.answer({})
        if url.path == "/v1/token":
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            account = parse_qs(url.query).get("as", ["default"])[0]
            kind = "urn:ietf:params:oauth:token-type:access_token"
            return self.answer({**self.token(account), "issued_token_type": kind})
        if url.path.startswith("/v1/projects/"):
            account = account_of((self.headers.get("Authorization") or "").removeprefix("Bearer "))
            if account != "default":
                self.rfile.read(int(self.headers.get("Content-Length") or 0))
            if account == "denied":
                name = url.path[4:].partition(":")[0]
                return self.refuse(403, "PERMISSION_DENIED", f"Permission 'secretmanager.versions.access' denied for resource '{name}' (or it may not exist).")
            if account != "default":
                return self.refuse(401, "UNAUTHENTICATED", "Request had invalid authentication credentials. Expected OAuth 2 access token.")
        self._dispatch()

    do_GET = do_POST = do_PATCH = do_DELETE = go


def server():
    return ThreadingHTTPServer(("127.0.0.1", 0), Handler)
