"""All that a plugin in Python needs to speak with hybrid-runner: one file, the standard library alone.

    class Mine(hybrid_runner.Executor): ...      # check, start, status, logs, stop, remove, list
    hybrid_runner.serve(Mine, "mine 1.0")

Copy it into your project. What each method must do is in docs/plugins.md; `hybrid-runner plugin test` tries it.
"""

import asyncio
import base64
import json
import re
import sys

VERSION = "v1-preview"
CHUNK = 32 * 1024  # of output: at most 64 KiB may stand in one item

class Refused(Exception):
    """An error of the contract: invalid, not_found, denied, conflict, unsupported, unavailable, internal."""

    def __init__(self, kind, message):
        super().__init__(message)
        self.kind = kind

class Executor:
    """What a plugin serves. `run` is a handle: {"run": id, "version": n, "state": yours}."""

    capabilities = {}
    interval = 0.05  # seconds between two questions for the status

    def __init__(self, hello):
        self.hello = hello

    async def check(self):
        """Raises what is missing."""

    async def watch(self, run):
        """The present status, and each change: made of `status`, which is asked again and again."""
        last = None
        while last is None or "finished" not in last["state"]:
            status = self.status(run)
            if status != last:
                yield status
            last = status
            await asyncio.sleep(self.interval)

def status(run, state, message=None):
    """A level: state is "queued", "starting", "running" or {"finished": outcome}."""
    attempt = int(run["run"].partition(".")[2] or 1)
    return {"attempt": attempt, "state": state, **({"message": message} if message else {})}

def finished(outcome):
    """"succeeded", {"stopped": {}}, {"lost": {"why": …}}, or what `failed` makes."""
    return {"finished": outcome}

def failed(kind, message, **more):
    """A failure of a class: exit (with exit_code or signal), oom, timeout, stalled, spec, image, backend, …"""
    return {"failed": {"class": kind, "message": message, **more}}

# --- the values in their places -----------------------------------------------------------------------------------

class Work:
    """A spec with its values in place: argv, env (bytes), files, config. All of it may be secret."""

    def __init__(self, spec, secrets, config_path):
        self.values = {name: _bytes(value) for name, value in (secrets or {}).items()}
        config = spec.get("config")
        if config is not None and not isinstance(config, str):
            config = json.dumps(self._walk(config), ensure_ascii=False, separators=(",", ":")).encode()
        self.config = self._fill(config) if isinstance(config, str) else config
        run, _, attempt = spec["run"].partition(".")
        known = {"WORKFLOW_RUN_ID": run, "WORKFLOW_ATTEMPT": attempt or "1", "WORKFLOW_NAME": spec["name"]}
        for name, key in (("WORKFLOW_RUNNER", "runner"), ("WORKFLOW_SCHEDULED_AT", "scheduled_at")):
            known.update({name: spec[key]} if spec.get(key) else {})
        known.update({"WORKFLOW_CONFIG": config_path} if config is not None else {})
        self.env = {name: self._fill(text) for name, text in spec.get("env", {}).items()}
        if spec.get("config_env") and self.config is not None:
            self.env[spec["config_env"]] = self.config
        self.env.update({name: text.encode() for name, text in known.items()})
        self.files = {name: self._fill(text) for name, text in spec.get("files", {}).items()}
        self.argv = [_expand(text, known) for text in (spec.get("command") or []) + (spec.get("args") or [])]

    def _value(self, reference):
        if reference not in self.values:
            raise Refused("invalid", f"no value was handed over for `secret:{reference}`")
        return self.values[reference]

    def _fill(self, text):
        if text.startswith("secret:"):
            return self._value(text[len("secret:"):])
        parts = re.split(r"\$\{secret:([^}]*)\}", text)
        return b"".join(self._value(part) if at % 2 else part.encode() for at, part in enumerate(parts))

    def _walk(self, value):
        if isinstance(value, str):
            return self._fill(value).decode()
        if isinstance(value, list):
            return [self._walk(item) for item in value]
        return {key: self._walk(item) for key, item in value.items()} if isinstance(value, dict) else value

def _bytes(value):
    return value["text"].encode() if "text" in value else base64.b64decode(value["base64"])

def _expand(text, known):
    return re.sub(r"\$\$\(|\$\((\w+)\)", lambda m: "$(" if m[0] == "$$(" else known.get(m[1], m[0]), text)

def _is_text(data):
    try:
        data.decode()
        return True
    except UnicodeDecodeError:
        return False

def seconds(text):
    """A duration as it stands on the wire: 400ms, 30s, 1h30m."""
    units = {"d": 86400, "h": 3600, "m": 60, "s": 1, "ms": 0.001}
    return sum(int(count) * units[unit] for count, unit in re.findall(r"(\d+)(ms|[dhms])", text))

async def follow(path, run, cursor, has_ended):
    """The bytes of a file as a log: behind the cursor, until the run has ended and all is read."""
    match = re.fullmatch(re.escape(run["run"]) + r"@(\d{1,15})", cursor or run["run"] + "@0")
    if not match:
        raise Refused("invalid", "the cursor is not of this run")
    with open(path, "rb") as file:
        file.seek(int(match[1]))
        while True:
            ended = has_ended()
            while data := file.read(CHUNK):
                piece = {"text": data.decode()} if _is_text(data) else {"base64": base64.b64encode(data).decode()}
                yield {"stream": "both", **piece, "next": f"{run['run']}@{file.tell()}"}
            if ended:
                return
            await asyncio.sleep(0.05)

# --- the session: JSON-RPC 2.0, a message a line -------------------------------------------------------------------

class Session:
    def __init__(self, kind, software):
        self.kind, self.software, self.executor = kind, software, None
        self.calls, self.streams = {}, {}

    async def run(self):
        loop = asyncio.get_running_loop()
        reader = asyncio.StreamReader(limit=1 << 22)
        await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
        out = await loop.connect_write_pipe(asyncio.streams.FlowControlMixin, sys.stdout)
        self.writer = asyncio.StreamWriter(*out, None, loop)
        sys.stdout = sys.stderr  # a print must not break the session
        while line := await reader.readline():
            try:
                message = json.loads(line)
                method, params = message.get("method"), message.get("params") or {}
                await self.hear(message, method, params)
            except (ValueError, AttributeError, RecursionError, KeyError) as error:
                self.say(id=None, error={"code": -32700, "message": f"malformed message: {type(error).__name__}"})

    def say(self, **message):
        self.writer.write(json.dumps({"jsonrpc": "2.0", **message}).encode() + b"\n")

    async def hear(self, message, method, params):
        if method == "stream.ack" and params["stream"] in self.streams:
            stream = self.streams[params["stream"]]
            stream["credit"] += params["credit"]
            stream["more"].set()
        elif method == "stream.drop" and params["stream"] in self.streams:
            self.streams.pop(params["stream"])["task"].cancel()
        elif method == "$/cancel" and params["id"] in self.calls:
            self.calls[params["id"]].cancel()
        elif method is not None and "id" in message:
            task = asyncio.create_task(self.answer(message["id"], method, params))
            self.calls[message["id"]] = task

    async def answer(self, id, method, params):
        try:
            self.say(id=id, result=await self.ask(id, method, params))
        except asyncio.CancelledError:
            self.say(id=id, error={"code": -32800, "message": "cancelled"})
        except Exception as error:
            self.say(id=id, error=_error(error))
        finally:
            self.calls.pop(id, None)

    async def ask(self, id, method, params):
        executor = self.executor
        if method == "ping":
            return {}
        if method == "hello":
            if VERSION not in params["versions"]:
                raise Refused("unsupported", f"this plugin speaks {VERSION}")
            if params["contract"] != "executor":
                raise Refused("unsupported", "this plugin is an executor")
            self.executor = self.kind(params)
            return {"version": VERSION, "software": self.software, "capabilities": _filled(self.kind.capabilities)}
        if executor is None:
            raise Refused("invalid", "`hello` comes first")
        if method in ("watch", "logs"):
            arguments = (params["run"], params.get("from")) if method == "logs" else (params["run"],)
            self.open(params["stream"], params["credit"], getattr(executor, method)(*arguments))
            return {}
        if method == "start":
            progress = lambda text: self.say(method="$/progress", params={"id": id, "message": text})
            spec = params["spec"]
            state = await executor.start(spec, params.get("secrets"), progress)
            return {"run": spec["run"], "version": 1, "state": state}
        if method == "find":  # the state of what carries the mark of the run, or None
            return {} if (state := await executor.find(params["spec"])) is None else {"run": {"run": params["spec"]["run"], "version": 1, "state": state}}
        if method == "list":
            return {"runs": [{"run": run} for run in await executor.list()]}
        arguments = {"check": [], "remove": ["run"], "stop": ["run", "grace"], "capabilities": []}.get(method)
        if arguments is None:
            raise Refused("unsupported", f"no method `{method}`")
        if method == "capabilities":
            return _filled(self.kind.capabilities)
        await getattr(executor, method)(*(params[name] for name in arguments))
        return {}

    def open(self, number, credit, items):
        stream = {"credit": credit, "more": asyncio.Event()}
        stream["task"] = asyncio.create_task(self.pump(number, stream, items))
        self.streams[number] = stream

    async def pump(self, number, stream, items):
        end = {"stream": number}
        try:
            async for item in items:
                while stream["credit"] <= 0:
                    stream["more"].clear()
                    await stream["more"].wait()
                stream["credit"] -= len(json.dumps(item))
                self.say(method="stream.data", params={"stream": number, "item": item})
                await self.writer.drain()
        except asyncio.CancelledError:
            return
        except Exception as error:
            end["error"] = _error(error)
        self.streams.pop(number, None)
        self.say(method="stream.end", params=end)

def _error(error):
    kind = getattr(error, "kind", "internal")
    text = str(error) if isinstance(error, Refused) else f"the plugin has a bug: {type(error).__name__}: {error}"
    return {"code": -32000, "message": text, "data": {"kind": kind}}

def _filled(capabilities):
    least = {"logs": "until_removed", "streams": False, "resources": False, "images": False, "contained": False}
    return {**least, **capabilities}

def serve(kind, software):
    """Answers over stdin and stdout until stdin is closed."""
    asyncio.run(Session(kind, software).run())
