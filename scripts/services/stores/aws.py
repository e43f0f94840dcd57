"""AWS by moto: Secrets Manager, SSM, STS and IAM, with permissions and signatures checked.

moto answers refusals of IAM as 403 and XML even to services that speak JSON; here they come as AWS sends them.

`POST /_admin` with `{"service": …, "call": …, "args": {…}}` makes one call of boto3 as the administrator, so that tests
need no second client; arguments whose name ends with `Base64` are bytes.

moto lets everybody assume every role. Here `runner` trusts nobody without its external id, and `workload` only tokens of the subject
`system:serviceaccount:…` that are signed by the key of their issuer, which `POST /_issuers` with `{"issuer": …, "key": PEM}` makes known,
are for STS and of now.
"""

import base64
import html
import json
import re
import time
import urllib.request
from io import BytesIO
from urllib.parse import parse_qs

import boto3
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from moto.core.authorization import ActionAuthenticatorMixin
from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import make_server

REGION = "us-east-1"
CODES = {
    "AccessDenied": "AccessDeniedException",
    "SignatureDoesNotMatch": "InvalidSignatureException",
    "InvalidClientTokenId": "UnrecognizedClientException",
}
# Who there is, and what each may do.
RIGHTS = {
    "admin": ["*"],
    "reader": ["secretsmanager:GetSecretValue", "ssm:GetParameter", "sts:AssumeRole", "sts:GetCallerIdentity"],
    "nobody": ["sts:GetCallerIdentity"],
}

EXTERNAL_ID = "the-external-id"

app = DomainDispatcherApplication(create_backend_app)
admin = {}
issuers = {}

# The token is what proves it: such a request has no signature, which moto would look for.
signed = ActionAuthenticatorMixin._authenticate_and_authorize_action


def signed_or_with_token(self, *args):
    if self._get_action() != "AssumeRoleWithWebIdentity":
        signed(self, *args)


ActionAuthenticatorMixin._authenticate_and_authorize_action = signed_or_with_token


def client(service):
    return boto3.client(service, region_name=REGION, **admin)


def administer(environ, start):
    asked = json.loads(environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"])))
    args = asked["args"]
    for name in [name for name in args if name.endswith("Base64")]:
        args[name.removesuffix("Base64")] = base64.b64decode(args.pop(name))
    answer = getattr(client(asked["service"]), asked["call"])(**args)
    start("200 OK", [("Content-Type", "application/json")])
    return [json.dumps(answer, default=str).encode()]


def introduce(environ, start):
    made = json.loads(environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"])))
    issuers[made["issuer"]] = load_pem_public_key(made["key"].encode())
    start("200 OK", [("Content-Type", "application/json")])
    return [b"{}"]


def refusal_of_token(token, role):
    """What STS says against a web identity: a code and words, or nothing."""
    try:
        head, payload, signature = token.split(".")
        claims = json.loads(base64.urlsafe_b64decode(payload + "=="))
        signature = base64.urlsafe_b64decode(signature + "==")
        issuers[claims["iss"]].verify(signature, f"{head}.{payload}".encode(), PKCS1v15(), SHA256())
    except (ValueError, KeyError, InvalidSignature):
        return "InvalidIdentityToken", "Couldn't retrieve verification key from your identity provider"
    if claims["aud"] != "sts.amazonaws.com":
        return "InvalidIdentityToken", "Incorrect token audience"
    if claims["exp"] < time.time():
        return "ExpiredTokenException", "Token expired: current date/time must be before the expiration date/time"
    if not (role.endswith(":role/workload") and claims["sub"].startswith("system:serviceaccount:")):
        return "AccessDenied", "Not authorized to perform sts:AssumeRoleWithWebIdentity"
    return None


def refusal_of_role(form):
    """What STS says against who wants a role: a code and words, or nothing."""
    action, role = form.get("Action"), form.get("RoleArn", "")
    if action == "AssumeRoleWithWebIdentity":
        return refusal_of_token(form["WebIdentityToken"], role)
    if action == "AssumeRole" and role.endswith(":role/runner") and form.get("ExternalId") != EXTERNAL_ID:
        return "AccessDenied", f"User is not authorized to perform: sts:AssumeRole on resource: {role}"
    return None


def without_role(environ, start):
    """The answer to who does not get a role; nothing for everything else."""
    if not environ.get("CONTENT_TYPE", "").startswith("application/x-www-form-urlencoded"):
        return None
    body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
    environ["wsgi.input"] = BytesIO(body)
    refused = refusal_of_role({name: values[0] for name, values in parse_qs(body.decode()).items()})
    if refused is None:
        return None
    code, words = refused
    start("403 Forbidden" if code == "AccessDenied" else "400 Bad Request", [("Content-Type", "text/xml")])
    error = f"<Error><Type>Sender</Type><Code>{code}</Code><Message>{html.escape(words)}</Message></Error>"
    return [f'<ErrorResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/">{error}<RequestId>1</RequestId></ErrorResponse>'.encode()]


def wsgi(environ, start):
    if environ["PATH_INFO"] == "/_admin":
        return administer(environ, start)
    if environ["PATH_INFO"] == "/_issuers":
        return introduce(environ, start)
    refused = without_role(environ, start)
    if refused is not None:
        return refused
    if "x-amz-json" not in environ.get("CONTENT_TYPE", ""):
        return app(environ, start)
    got = {}

    def hold(status, headers, exc_info=None):
        got.update(status=status, headers=headers)

    body = b"".join(app(environ, hold))
    code = re.search(rb"<Code>(.*?)</Code>", body)
    if got["status"][:3] == "403" and code:
        name = CODES.get(code[1].decode(), code[1].decode())
        message = re.search(rb"<Message>(.*?)</Message>", body, re.S)
        body = json.dumps({"__type": name, "message": html.unescape(message[1].decode()) if message else name}).encode()
        got["status"] = "400 Bad Request"
        got["headers"] = [("Content-Type", "application/x-amz-json-1.1"), ("x-amzn-ErrorType", name)]
    headers = [(key, value) for key, value in got["headers"] if key.lower() != "content-length"]
    start(got["status"], headers + [("Content-Length", str(len(body)))])
    return [body]


def server():
    return make_server("127.0.0.1", 0, wsgi, threaded=True)


def role(iam, name, principal, action, condition):
    """A role that may what the reader may, for those who are trusted."""
    trust = {"Effect": "Allow", "Principal": principal, "Action": action, "Condition": condition}
    trust = json.dumps({"Version": "2012-10-17", "Statement": [trust]})
    made = iam.create_role(RoleName=name, AssumeRolePolicyDocument=trust)["Role"]
    document = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": RIGHTS["reader"], "Resource": "*"}]}
    iam.put_role_policy(RoleName=name, PolicyName="rights", PolicyDocument=json.dumps(document))
    return made["Arn"]


def principals(url):
    """Makes users, keys and roles; from then on every request is checked."""
    admin.update(endpoint_url=url, aws_access_key_id="first", aws_secret_access_key="first")
    iam = client("iam")
    made = {"region": REGION}
    for name, actions in RIGHTS.items():
        iam.create_user(UserName=name)
        document = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": actions, "Resource": "*"}]}
        iam.put_user_policy(UserName=name, PolicyName="rights", PolicyDocument=json.dumps(document))
        key = iam.create_access_key(UserName=name)["AccessKey"]
        made[name] = {"id": key["AccessKeyId"], "secret_key": key["SecretAccessKey"]}
    external = {"StringEquals": {"sts:ExternalId": [EXTERNAL_ID]}}
    made["role"] = role(iam, "runner", {"AWS": "*"}, "sts:AssumeRole", external)
    federated = {"Federated": "arn:aws:iam::123456789012:oidc-provider/oidc.example"}
    subject = {"StringLike": {"oidc.example:sub": ["system:serviceaccount:*"]}}
    made["workload"] = role(iam, "workload", federated, "sts:AssumeRoleWithWebIdentity", subject)
    request = urllib.request.Request(url + "/moto-api/reset-auth", b"0", {"Content-Type": "text/plain"})
    urllib.request.urlopen(request).read()
    admin.update(aws_access_key_id=made["admin"]["id"], aws_secret_access_key=made["admin"]["secret_key"])
    return made
