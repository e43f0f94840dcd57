#!/usr/bin/env python3
"""Reads a small SQLite database with the real `metadata ingest`, without a real OpenMetadata server.

    ingest.py -c CONFIG

1. makes the database named in the config, if it is not there (the example's own tables);
2. answers, on a free loopback port, the few requests that `metadata ingest` makes of a server;
3. runs `metadata ingest -c CONFIG`, with that port in $OPENMETADATA_PORT, and ends as it ends.

Only the standard library is needed here. `metadata` is taken from $METADATA, or from the PATH.
"""

import http.server
import json
import os
import sqlite3
import subprocess
import sys
import threading
import urllib.parse
import uuid

VERSION = os.environ.get("OPENMETADATA_VERSION", "1.13.3")


def make_database(path):
    """Two tables and a view, as an order system might have them."""
    if os.path.exists(path):
        return
    with sqlite3.connect(path) as database:
        database.executescript(
            """
            create table customers (id integer primary key, name text not null, email text);
            create table orders (
                id integer primary key,
                customer integer not null references customers (id),
                cents integer not null,
                placed timestamp not null
            );
            create view revenue as
                select name, sum(cents) / 100.0 as euros from customers join orders on customer = customers.id group by name;
            insert into customers values (1, 'Ada', 'ada@example.com'), (2, 'Grace', null);
            insert into orders values (1, 1, 1999, '2026-11-01'), (2, 2, 4250, '2026-11-02');
            """
        )


class Answers(http.server.BaseHTTPRequestHandler):
    """The answers of a server that `metadata ingest` needs."""

    asked = set()
    STEPS = ["CheckAccess", "GetSchemas", "GetTables", "GetViews"]

    def do_GET(self):
        if self.path.startswith("/api/v1/system/version"):
            self.answer(200, {"version": VERSION, "revision": "0", "timestamp": 0})
        elif "/testConnectionDefinitions/name/SQLite" in self.path:
            steps = [{"name": step, "description": step, "mandatory": True} for step in self.STEPS]
            self.answer(200, {"id": "00000000-0000-4000-8000-000000000001", "name": "SQLite", "steps": steps})
        else:
            self.answer_entity()

    def answer_entity(self):
        """`metadata ingest` asks for each container twice: before it writes it to the sink (no), and after (yes)."""
        path, _, _ = self.path.partition("?")
        if "/name/" not in path:
            return self.answer(200, {"data": [], "paging": {"total": 0}})
        kind, _, name = path.removeprefix("/api/v1/").partition("/name/")
        name = urllib.parse.unquote(name)
        parts = name.split(".")
        entity = {"id": str(uuid.uuid5(uuid.NAMESPACE_URL, kind + name)), "name": parts[-1], "fullyQualifiedName": name}

        def reference(kind, length):
            above = ".".join(parts[:length])
            return {"id": str(uuid.uuid5(uuid.NAMESPACE_URL, kind + above)), "type": kind, "name": parts[length - 1], "fullyQualifiedName": above}

        if kind == "services/databaseServices":
            entity |= {"serviceType": "SQLite"}
        elif kind == "databases" and len(parts) == 2:
            entity |= {"service": reference("databaseService", 1)}
        elif kind == "databaseSchemas" and len(parts) == 3:
            entity |= {"service": reference("databaseService", 1), "database": reference("database", 2)}
        elif kind == "tables" and len(parts) == 4:
            entity |= {"columns": [{"name": "id", "dataType": "INT", "fullyQualifiedName": name + ".id"}]}
        if path not in self.asked:
            self.asked.add(path)
            return self.answer(404, {"code": 404, "message": f"{kind} instance for {name} not found"})
        self.answer(200, entity)

    def answer(self, status, body):
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_):
        pass


def main():
    if len(sys.argv) != 3 or sys.argv[1] != "-c":
        sys.exit(__doc__)
    with open(sys.argv[2], encoding="utf-8") as file:
        config = json.load(file)
    make_database(config["source"]["serviceConnection"]["config"]["databaseMode"])
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    environment = dict(os.environ, OPENMETADATA_PORT=str(server.server_address[1]))
    program = os.environ.get("METADATA", "metadata")
    sys.exit(subprocess.call([program, "ingest", "-c", sys.argv[2]], env=environment))


if __name__ == "__main__":
    main()
