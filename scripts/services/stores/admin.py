"""Lays one secret into every store, under the name that each can hold: `POST /` with `{"path": …, "value": …}`.

As the administrators of the stores do: what a workflow calls `secret:/a/b`.
"""

import base64
import json
import ssl
import urllib.error
import urllib.parse
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import aws
import kubernetes

VAULT_HOST = "kv1.vault.azure.net"
TENANT = "11111111-1111-1111-1111-111111111111"


def call(method, url, body=None, headers=None, context=None):
    data = body if isinstance(body, (bytes, type(None))) else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json", **(headers or {})}, method=method)
    return json.loads(urllib.request.urlopen(request, context=context).read() or b"{}")


def lay(stores, path, value):
    relative = path.lstrip("/")
    aws.client("secretsmanager").create_secret(Name=path, SecretString=value)
    aws.client("ssm").put_parameter(Name=path, Value=value, Type="SecureString", Overwrite=True)

    vault = stores["vault"]
    call("POST", f"{vault['url']}/v1/secret/data/{relative}", {"data": {"value": value}}, {"X-Vault-Token": vault["token"]})

    azure = stores["azure"]
    trust = ssl.create_default_context(cafile=azure["ca"])
    who = {"client_id": "app-admin", "client_secret": "admin-secret", "scope": "https://vault.azure.net/.default"}
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    token = call("POST", f"{azure['url']}/{TENANT}/oauth2/v2.0/token", urllib.parse.urlencode(who).encode(), form, trust)
    headers = {"Authorization": f"Bearer {token['access_token']}"}
    name = relative.replace("/", "-")
    call("PUT", f"{azure['url']}/secrets/{name}?api-version=7.5", {"value": value}, headers, trust)

    base = f"{stores['gcp']['url']}/v1/projects/p1/secrets"
    headers = {"Authorization": "Bearer default.0"}
    name = relative.replace("-", "").replace("/", "_")
    call("POST", f"{base}?secretId={name}", {"replication": {"automatic": {}}}, headers)
    payload = {"payload": {"data": base64.b64encode(value.encode()).decode()}}
    call("POST", f"{base}/{name}:addVersion", payload, headers)

    kubernetes.secrets[relative.replace("/", "-")] = value


def server(stores):
    class Admin(BaseHTTPRequestHandler):
        def do_POST(self):
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            try:
                lay(stores, asked["path"], asked["value"])
            except urllib.error.HTTPError as error:
                return self.send_error(500, f"{error.url}: {error.code}", error.read().decode())
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_):
            pass

    return ThreadingHTTPServer(("127.0.0.1", 0), Admin)
