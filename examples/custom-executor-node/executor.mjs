#!/usr/bin/env node
// An executor of hybrid-runner without any helper: docs/protocol.md and docs/plugins.md are enough. It hands runs to the
// batch system of ../batch, and needs Node 18 and nothing else.

import { spawn } from "node:child_process";
import { existsSync, readFileSync, readdirSync } from "node:fs";
import { open } from "node:fs/promises";
import { dirname, join } from "node:path";
import { createInterface } from "node:readline";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";

const VERSION = "v1-preview";
const CONFIG = "@WORKFLOW_CONFIG@"; // the batch system puts the path of the config file here
const BATCH = join(dirname(fileURLToPath(import.meta.url)), "..", "batch", "batch.py");
const CAPABILITIES = { logs: "until_removed", streams: false, resources: false, images: false, contained: false };

let root; // the folder of our jobs: nothing of another owner is in it

class Refused extends Error {
  constructor(kind, message) {
    super(message);
    this.kind = kind;
  }
}

// --- the batch system ----------------------------------------------------------------------------------------------

function batch(args, input) {
  return new Promise((resolve, reject) => {
    const child = spawn("python3", [BATCH, ...args], { env: { ...process.env, BATCH_DIR: root }, stdio: ["pipe", "pipe", "inherit"] });
    let text = "";
    child.stdout.on("data", (data) => (text += data));
    child.on("error", (error) => reject(new Refused("unavailable", `python3 cannot be run: ${error.message}`)));
    child.on("close", () => {
      const answer = text ? JSON.parse(text) : null;
      if (answer?.error) reject(new Refused(answer.error.kind, answer.error.message));
      else resolve(answer);
    });
    child.stdin.end(input ?? "");
  });
}

/** What the job's folder says, without a process for each question; null if only the batch system can tell. */
function lookAt(id) {
  const read = (path) => existsSync(path) && readFileSync(path, "utf8");
  const end = read(join(root, id, "end"));
  if (end) return JSON.parse(end);
  const [pid, since] = (read(join(root, id, "started")) || "").split(" ");
  const stat = pid && read(`/proc/${pid}/stat`);
  const [state, ...numbers] = stat ? stat.slice(stat.lastIndexOf(")") + 2).split(" ") : [];
  return stat && state !== "Z" && numbers[18] === since ? { state: "running" } : null;
}

async function statusOf(run) {
  const attempt = Number(run.run.split(".")[1] ?? 1);
  let job;
  try {
    job = lookAt(run.run) ?? (await batch(["status", run.run]));
  } catch (error) {
    if (error.kind !== "not_found") throw error;
    job = { state: "lost", message: error.message };
  }
  const { state, message, class: kind, ...how } = job;
  const outcomes = {
    succeeded: "succeeded",
    stopped: { stopped: {} },
    lost: { lost: { why: message } },
    failed: { failed: { class: kind ?? "exit", message: message ?? "the command failed", ...how } },
  };
  return { attempt, state: state in outcomes ? { finished: outcomes[state] } : state };
}

const hasEnded = async (run) => (await statusOf(run)).state.finished !== undefined;

// --- the values in their places ------------------------------------------------------------------------------------

const bytes = (value) => ("text" in value ? Buffer.from(value.text) : Buffer.from(value.base64, "base64"));

function fill(text, secrets) {
  const value = (reference) => {
    if (!(reference in secrets)) throw new Refused("invalid", `no value was handed over for \`secret:${reference}\``);
    return bytes(secrets[reference]);
  };
  if (text.startsWith("secret:")) return value(text.slice("secret:".length));
  const parts = text.split(/\$\{secret:([^}]*)\}/);
  return Buffer.concat(parts.map((part, at) => (at % 2 ? value(part) : Buffer.from(part))));
}

function walk(value, secrets) {
  if (typeof value === "string") return fill(value, secrets).toString();
  if (Array.isArray(value)) return value.map((item) => walk(item, secrets));
  if (value === null || typeof value !== "object") return value;
  return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, walk(item, secrets)]));
}

function jobOf(spec, secrets) {
  const [run, attempt] = spec.run.split(".");
  const known = { WORKFLOW_RUN_ID: run, WORKFLOW_ATTEMPT: attempt ?? "1", WORKFLOW_NAME: spec.name };
  if (spec.runner) known.WORKFLOW_RUNNER = spec.runner;
  if (spec.scheduled_at) known.WORKFLOW_SCHEDULED_AT = spec.scheduled_at;
  if (spec.config !== undefined) known.WORKFLOW_CONFIG = CONFIG;
  const expand = (text) => text.replace(/\$\$\(|\$\((\w+)\)/g, (all, name) => (all === "$$(" ? "$(" : (known[name] ?? all)));
  const config = walk(spec.config, secrets);
  const job = { argv: [...(spec.command ?? []), ...(spec.args ?? [])].map(expand), workdir: spec.workdir, env: {}, files: {} };
  if (config !== undefined) job.config = typeof config === "string" ? config : JSON.stringify(config);
  for (const [name, text] of Object.entries(spec.env ?? {})) job.env[name] = fill(text, secrets).toString();
  if (spec.config_env && job.config !== undefined) job.env[spec.config_env] = job.config;
  Object.assign(job.env, known);
  for (const [name, text] of Object.entries(spec.files ?? {})) job.files[name] = { base64: fill(text, secrets).toString("base64") };
  for (const name of ["timeout", "stall_timeout", "grace"]) job[name] = seconds(spec[name]);
  return job;
}

function seconds(text) {
  const units = { d: 86400, h: 3600, m: 60, s: 1, ms: 0.001 };
  return [...text.matchAll(/(\d+)(ms|[dhms])/g)].reduce((sum, [, count, unit]) => sum + count * units[unit], 0);
}

// --- the contract --------------------------------------------------------------------------------------------------

const methods = {
  ping: async () => ({}),
  hello: async ({ versions, contract, data_dir, owner }) => {
    if (!versions.includes(VERSION)) throw new Refused("unsupported", `this plugin speaks ${VERSION}`);
    if (contract !== "executor") throw new Refused("unsupported", "this plugin is an executor");
    root = join(data_dir, owner);
    return { version: VERSION, software: "batch-executor-node 1.0", capabilities: CAPABILITIES };
  },
  capabilities: async () => CAPABILITIES,
  check: async () => ({}),
  start: async ({ spec, secrets }) => {
    if (spec.resources?.limits) throw new Refused("unsupported", "the batch system cannot keep `resources.limits`");
    await batch(["submit", spec.run], JSON.stringify(jobOf(spec, secrets ?? {})));
    return { run: spec.run };
  },
  stop: async ({ run, grace }) => (await batch(["stop", run.run, String(seconds(grace))]), {}),
  remove: async ({ run }) => {
    const known = existsSync(join(root, run.run));
    if (known && !(await hasEnded(run))) throw new Refused("conflict", "the run has not ended; stop it first");
    if (known) await batch(["remove", run.run]);
    return {};
  },
  list: async () => ({ runs: existsSync(root) ? readdirSync(root).map((run) => ({ run })) : [] }),
};

const streams = {
  async *watch({ run }) {
    for (let last = ""; ; await sleep(100)) {
      const status = await statusOf(run);
      if (JSON.stringify(status) !== last) yield status;
      last = JSON.stringify(status);
      if (status.state.finished !== undefined) return;
    }
  },
  async *logs({ run, from }) {
    const [of, place] = (from ?? `${run.run}@0`).split("@");
    if (of !== run.run || !/^\d+$/.test(place)) throw new Refused("invalid", "the cursor is not of this run");
    const file = await open(join(root, run.run, "log"));
    try {
      let offset = Number(place);
      for (let ended = false; ; await sleep(100)) {
        ended = await hasEnded(run);
        for (;;) {
          const { bytesRead, buffer } = await file.read(Buffer.alloc(32 * 1024), 0, 32 * 1024, offset);
          if (bytesRead === 0) break;
          const data = buffer.subarray(0, bytesRead);
          const text = data.toString();
          offset += bytesRead;
          const piece = Buffer.from(text).equals(data) ? { text } : { base64: data.toString("base64") };
          yield { stream: "both", ...piece, next: `${run.run}@${offset}` };
        }
        if (ended) return;
      }
    } finally {
      await file.close();
    }
  },
};

// --- the session ---------------------------------------------------------------------------------------------------

const say = (message) => process.stdout.write(JSON.stringify({ jsonrpc: "2.0", ...message }) + "\n");
const wrong = (error) => ({ code: -32000, message: error.message, data: { kind: error.kind ?? "internal" } });
const reading = new Map(); // stream → { credit, more, dropped }

async function pump(stream, items) {
  const state = reading.get(stream);
  let error;
  try {
    for await (const item of items) {
      while (state.credit <= 0 && !state.dropped) await new Promise((resolve) => (state.more = resolve));
      if (state.dropped) return;
      state.credit -= Buffer.byteLength(JSON.stringify(item));
      if (!say({ method: "stream.data", params: { stream, item } })) await new Promise((resolve) => process.stdout.once("drain", resolve));
    }
  } catch (thrown) {
    error = wrong(thrown);
  }
  reading.delete(stream);
  if (!state.dropped) say({ method: "stream.end", params: { stream, error } });
}

async function hear(line) {
  let message;
  try {
    message = JSON.parse(line);
  } catch (error) {
    return say({ id: null, error: { code: -32700, message: `malformed message: ${error.message}` } });
  }
  const { id, method, params = {} } = message;
  const state = reading.get(params.stream);
  if (method === "stream.ack" && state) {
    state.credit += params.credit;
    state.more?.();
  } else if (method === "stream.drop" && state) {
    state.dropped = true;
    state.more?.();
  }
  if (method === undefined || id === undefined) return;
  try {
    if (root === undefined && method !== "hello" && method !== "ping") throw new Refused("invalid", "`hello` comes first");
    if (method in streams) {
      reading.set(params.stream, { credit: params.credit });
      say({ id, result: {} });
      pump(params.stream, streams[method](params));
    } else if (method in methods) {
      say({ id, result: await methods[method](params) });
    } else {
      throw new Refused("unsupported", `no method \`${method}\``);
    }
  } catch (error) {
    say({ id, error: wrong(error) });
  }
}

createInterface({ input: process.stdin })
  .on("line", hear)
  .on("close", () => process.exit(0));
