"""The part of a Kubernetes API that a store needs: Secrets of one namespace, and who asks.

The token `good` is the account `system:serviceaccount:ingestion:runner`, which may read Secrets there.
"""

import base64
import json
import re
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

NAMESPACE = "ingestion"
USER = "system:serviceaccount:ingestion:runner"
secrets = {}


class Api(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def answer(self, code, body):
        text = json.dumps(body).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def refuse(self, code, reason, message):
        status = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure"}
        self.answer(code, {**status, "code": code, "reason": reason, "message": message})

    def known(self):
        if self.headers.get("Authorization") == "Bearer good":
            return True
        self.refuse(401, "Unauthorized", "Unauthorized")
        return False

    def do_GET(self):
        if not self.known():
            return
        found = re.fullmatch(r"/api/v1/namespaces/([^/]+)/secrets/([^/?]+)\??", self.path)
        if not found or found[1] != NAMESPACE:
            return self.refuse(403, "Forbidden", f'User "{USER}" cannot get this')
        name = found[2]
        if name not in secrets:
            return self.refuse(404, "NotFound", f'secrets "{name}" not found')
        data = {"value": base64.b64encode(secrets[name].encode()).decode()}
        metadata = {"name": name, "namespace": NAMESPACE, "resourceVersion": "1"}
        self.answer(200, {"kind": "Secret", "apiVersion": "v1", "metadata": metadata, "type": "Opaque", "data": data})

    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])) or b"{}")
        if not self.known():
            return
        if self.path.startswith("/apis/authentication.k8s.io/v1/selfsubjectreviews"):
            return self.answer(201, {**asked, "status": {"userInfo": {"username": USER}}})
        if self.path.startswith("/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"):
            return self.answer(201, {**asked, "status": {"allowed": True}})
        self.refuse(404, "NotFound", "no such path")

    def log_message(self, *_):
        pass


def server():
    return ThreadingHTTPServer(("127.0.0.1", 0), Api)
