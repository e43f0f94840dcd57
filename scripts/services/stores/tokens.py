"""The part of a Kubernetes API server that Vault asks: whether the token of a service account is genuine.

A token whose signature is `good` (base64url: Z29vZA) is.
"""

import base64
import json
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

GOOD = "Z29vZA"


class Review(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["spec"]
        _, claims, signature = asked["token"].split(".")
        claims = json.loads(base64.urlsafe_b64decode(claims + "=="))
        if signature == GOOD:
            account = claims["kubernetes.io"]["serviceaccount"]
            user = {"username": claims["sub"], "uid": account["uid"], "groups": ["system:serviceaccounts"]}
            status = {"authenticated": True, "user": user, "audiences": asked.get("audiences", [])}
        else:
            status = {"authenticated": False, "error": "invalid bearer token"}
        body = json.dumps({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "status": status}).encode()
        self.send_response(201)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


def server():
    return ThreadingHTTPServer(("127.0.0.1", 0), Review)
