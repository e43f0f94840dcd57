#!/usr/bin/env python3
"""A very small batch system: what the examples of plugins wrap, in place of yours.

    batch.py submit [NAME] [COMMENT] < JOB   prints {"id": …}; the same name is the same job, without one it gets its own
    batch.py status ID                       prints {"state": …, "exit_code": …}
    batch.py logs ID OFFSET                  prints the output from that byte on
    batch.py stop ID GRACE                   asks it to end, and ends it by force after GRACE seconds
    batch.py find COMMENT                    prints {"id": …} or {"id": null}
    batch.py remove ID | list

A job is a folder in $BATCH_DIR, and a keeper: a process of its own that stands by the work and writes down its end.
JOB is JSON: argv, env, files, config, workdir, timeout, stall_timeout, grace (seconds; 0: none).
"""

import base64
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time
import uuid

ROOT = pathlib.Path(os.environ.get("BATCH_DIR", "~/.batch")).expanduser().resolve()
CONFIG = "@WORKFLOW_CONFIG@"  # stands for the path of the job's config file
TICK = 0.02


class Refused(Exception):
    def __init__(self, kind, message):
        super().__init__(message)
        self.kind = kind


def submit(job, name=None, comment=None, root=ROOT):
    """Makes a job and its keeper; returns its id. Submitting a name again completes what is half done."""
    folder = root.resolve() / (name or uuid.uuid4().hex[:12])  # the keeper works in another folder
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    if (folder / "stop").exists():
        raise Refused("conflict", f"the job {folder.name} was stopped")
    (folder / "log").touch(mode=0o600)
    # The job goes through a pipe: values in it never touch the disk, but for the files that were asked for.
    arguments = [sys.executable, __file__, "keep", str(folder)]
    keeper = subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    keeper.stdin.write(json.dumps({**job, "comment": comment}).encode())
    keeper.stdin.close()
    while keeper.poll() is None and not (folder / "started").exists():
        time.sleep(0.002)
    if not (folder / "started").exists():
        raise Refused("unavailable", f"the keeper of {folder.name} ended at once: is the disk full?")
    return folder.name


def status(id, root=ROOT):
    folder = root / id
    for _ in range(2):  # an end may be written while we look for the keeper
        if (folder / "end").exists():
            return json.loads((folder / "end").read_text())
        if not (folder / "started").exists():
            break
        if lives((folder / "started").read_text()):
            return {"state": "running"}
    else:
        kill_all(folder.name, signal.SIGKILL)
        return {"state": "lost", "message": "the job's keeper was killed"}
    if (folder / "stop").exists():
        return {"state": "stopped"}
    if not folder.exists():
        raise Refused("not_found", f"no job {id}")
    return {"state": "starting"}


def stop(id, grace, root=ROOT):
    folder = root / id
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    (folder / "log").touch(mode=0o600)
    fresh = folder / f"stop.{uuid.uuid4().hex}"
    fresh.write_text(str(time.time() + grace))
    fresh.rename(folder / "stop")


def remove(id, root=ROOT):
    shutil.rmtree(root / id, ignore_errors=True)


def jobs(root=ROOT):
    return sorted(folder.name for folder in root.iterdir()) if root.exists() else []


def find(comment, root=ROOT):
    has = lambda id: (root / id / "comment").exists() and (root / id / "comment").read_text() == comment
    return next((id for id in jobs(root) if has(id)), None)


def born(pid):
    """When a process began, so that another one of the same number is not taken for it."""
    return pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]


def lives(mark):
    pid, _, since = mark.partition(" ")
    try:
        return born(pid) == since and "(zombie)" not in pathlib.Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False


# --- the keeper ----------------------------------------------------------------------------------------------------


def keep(folder):
    job = json.load(sys.stdin)
    if job["comment"]:
        (folder / "comment").write_text(job["comment"])  # from here on the job is submitted, and found
    fresh = folder / f"started.{os.getpid()}"
    fresh.write_text(f"{os.getpid()} {born(os.getpid())}")
    try:
        os.link(fresh, folder / "started")  # whoever comes second has nothing to do
    except FileExistsError:
        return
    finally:
        fresh.unlink()
    try:
        end = {"state": "stopped"} if (folder / "stop").exists() else work(folder, job)
    except OSError as error:
        end = {"state": "failed", "class": "spec", "message": f"the command cannot be run: {error}"}
    shutil.rmtree(folder / "private", ignore_errors=True)
    (folder / "end.new").write_text(json.dumps(end))
    (folder / "end.new").rename(folder / "end")


def work(folder, job):
    private = folder / "private"
    private.mkdir(mode=0o700, exist_ok=True)
    place = lambda text: text.replace(CONFIG, str(private / "config.json"))
    env = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "TZ", "TMPDIR") if name in os.environ}
    env |= {name: place(text) for name, text in job.get("env", {}).items()} | {"BATCH_JOB": folder.name}
    files = {name: value for name, value in job.get("files", {}).items()}
    for name, value in files.items():
        data = value["text"].encode() if "text" in value else base64.b64decode(value["base64"])
        (private / name).write_bytes(data)
        env[name] = str(private / name)
    if job.get("config") is not None:
        (private / "config.json").write_text(job["config"])
    argv = [place(text) for text in job["argv"]]
    with open(folder / "log", "ab") as log:
        child = subprocess.Popen(argv, env=env, cwd=job.get("workdir") or folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
    why = watch_over(folder, job, child)
    while kill_all(folder.name, signal.SIGKILL):
        time.sleep(TICK)
    code = child.wait()
    if why is not None:
        return why
    if code == 0:
        return {"state": "succeeded"}
    return {"state": "failed", **({"exit_code": code} if code > 0 else {"signal": -code})}


def watch_over(folder, job, child):
    """Until the work has ended: by itself (None), or because it was stopped or ran out of time."""
    began = grown = time.time()
    size, asked, told, why = 0, None, False, None
    while child.poll() is None:
        now = time.time()
        if (folder / "log").stat().st_size != size:
            size, grown = (folder / "log").stat().st_size, now
        if (folder / "stop").exists():
            why = {"state": "stopped"} if asked is None else why
            asked = min(asked or float("inf"), float((folder / "stop").read_text()))
        for limit, since, name in ((job.get("timeout"), began, "timeout"), (job.get("stall_timeout"), grown, "stalled")):
            if limit and now - since >= limit and why is None:
                why = {"state": "failed", "class": name, "message": f"ended by the batch system: {name}"}
                asked = now + job.get("grace", 30)
        if asked is not None:
            if not told or now >= asked:
                kill_all(folder.name, signal.SIGKILL if now >= asked else signal.SIGTERM)
            told = True
        time.sleep(TICK)
    return why


def kill_all(id, sign):
    """Signals every process of a job, whatever it did since; how many there were."""
    mark, count = f"BATCH_JOB={id}".encode(), 0
    for environ in pathlib.Path("/proc").glob("[0-9]*/environ"):
        try:
            if mark in environ.read_bytes().split(b"\0"):
                os.kill(int(environ.parent.name), sign)
                count += 1
        except OSError:
            pass
    return count


def main(command, *arguments):
    if command == "keep":
        return keep(pathlib.Path(arguments[0]))
    if command == "logs":
        with open(ROOT / arguments[0] / "log", "rb") as log:
            log.seek(int(arguments[1]))
            return sys.stdout.buffer.write(log.read(1 << 20))
    if command == "stop":
        return stop(arguments[0], float(arguments[1]))
    if command == "remove":
        return remove(*arguments)
    answers = {
        "submit": lambda: {"id": submit(json.load(sys.stdin), *(text or None for text in arguments))},
        "status": lambda: status(*arguments),
        "find": lambda: {"id": find(*arguments)},
        "list": lambda: jobs(),
    }
    print(json.dumps(answers[command]()))


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except Refused as error:
        print(json.dumps({"error": {"kind": error.kind, "message": str(error)}}))
        sys.exit(4)
