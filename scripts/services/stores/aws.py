"""AWS by moto: Secrets Manager, SSM, STS and IAM, with permissions and signatures checked.

moto answers refusals of IAM as 403 and XML even to services that speak JSON; here they come as AWS sends them.

`POST /_admin` with `{"service": …, "call": …, "args": {…}}` makes one call of boto3 as the administrator, so that tests
need no second client; arguments whose name ends with `Base64` are bytes.
"""

import base64
import html
import json
import re
import urllib.request

import boto3
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

app = DomainDispatcherApplication(create_backend_app)
admin = {}


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


def wsgi(environ, start):
    if environ["PATH_INFO"] == "/_admin":
        return administer(environ, start)
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


def principals(url):
    """Makes users, keys and a role; from then on every request is checked."""
    admin.update(endpoint_url=url, aws_access_key_id="first", aws_secret_access_key="first")
    iam = client("iam")
    made = {"region": REGION}
    for name, actions in RIGHTS.items():
        iam.create_user(UserName=name)
        document = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": actions, "Resource": "*"}]}
        iam.put_user_policy(UserName=name, PolicyName="rights", PolicyDocument=json.dumps(document))
        key = iam.create_access_key(UserName=name)["AccessKey"]
        made[name] = {"id": key["AccessKeyId"], "secret_key": key["SecretAccessKey"]}
    trust = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Principal": {"AWS": "*"}, "Action": "sts:AssumeRole"}]}
    role = iam.create_role(RoleName="runner", AssumeRolePolicyDocument=json.dumps(trust))["Role"]
    document = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": RIGHTS["reader"], "Resource": "*"}]}
    iam.put_role_policy(RoleName="runner", PolicyName="rights", PolicyDocument=json.dumps(document))
    made["role"] = role["Arn"]
    request = urllib.request.Request(url + "/moto-api/reset-auth", b"0", {"Content-Type": "text/plain"})
    urllib.request.urlopen(request).read()
    admin.update(aws_access_key_id=made["admin"]["id"], aws_secret_access_key=made["admin"]["secret_key"])
    return made
