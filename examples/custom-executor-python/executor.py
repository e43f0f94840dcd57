#!/usr/bin/env python3
"""An executor of hybrid-runner: hands runs to the batch system of ../batch. Put yours in its place."""

import base64, pathlib, sys

import hybrid_runner
from hybrid_runner import Refused, failed, finished, seconds

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "batch"))
import batch


class BatchExecutor(hybrid_runner.Executor):
    capabilities = {"notes": ["an example"]}

    def __init__(self, hello):
        super().__init__(hello)
        self.root = pathlib.Path(hello["data_dir"], hello["owner"])  # nothing of another owner is shown

    async def start(self, spec, secrets, progress):
        if spec.get("resources", {}).get("limits"):
            raise Refused("unsupported", "the batch system cannot keep `resources.limits`")
        work = hybrid_runner.Work(spec, secrets, batch.CONFIG)
        limits = {name: seconds(spec[name]) for name in ("timeout", "stall_timeout", "grace")}
        files = {name: {"base64": base64.b64encode(data).decode()} for name, data in work.files.items()}
        job = {"argv": work.argv, "files": files, "workdir": spec.get("workdir"), **limits}
        job["env"] = {name: value.decode() for name, value in work.env.items()}
        job["config"] = work.config and work.config.decode()
        try:
            batch.submit(job, spec["run"], root=self.root)  # the run's name is the job's: submitting twice is once
        except batch.Refused as error:
            raise Refused(error.kind, str(error))

    def status(self, run):
        try:
            job = batch.status(run["run"], self.root)
        except batch.Refused as error:
            job = {"state": "lost", "message": str(error)}
        state, message = job.pop("state"), job.pop("message", "the command failed")
        outcome = {"stopped": {"stopped": {}}, "lost": {"lost": {"why": message}}, "succeeded": "succeeded"}.get(state)
        outcome = failed(job.pop("class", "exit"), message, **job) if state == "failed" else outcome
        return hybrid_runner.status(run, finished(outcome) if outcome else state)

    def logs(self, run, cursor):
        return hybrid_runner.follow(self.root / run["run"] / "log", run, cursor, lambda: "finished" in self.status(run)["state"])

    async def stop(self, run, grace):
        batch.stop(run["run"], seconds(grace), self.root)

    async def remove(self, run):
        if run["run"] in batch.jobs(self.root) and "finished" not in self.status(run)["state"]:
            raise Refused("conflict", "the run has not ended; stop it first")
        batch.remove(run["run"], self.root)

    async def list(self):
        return batch.jobs(self.root)


hybrid_runner.serve(BatchExecutor, "batch-executor 1.0")
