import assert from "node:assert/strict";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { createServer } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";

import { readConfig } from "../../../opencode_actors/openclaw_plugin/config.js";
import { findDoor } from "../../../opencode_actors/openclaw_plugin/door.js";
import { NotRunning } from "../../../opencode_actors/openclaw_plugin/errors.js";
import { Link, delayBefore } from "../../../opencode_actors/openclaw_plugin/link.js";
import { Starter } from "../../../opencode_actors/openclaw_plugin/starter.js";

const quiet = { info() {}, warn() {} };
const folders = [];
after(() => Promise.all(folders.map((folder) => rm(folder, { recursive: true, force: true }))));

async function folder() {
  const made = await mkdtemp(join(tmpdir(), "oa-link-"));
  folders.push(made);
  return made;
}

/** A socket that opens at once and answers what `answer` says, or nothing. */
function socketClass(answer) {
  return class {
    static made = [];
    readyState = 0;
    sent = [];
    constructor() {
      this.constructor.made.push(this);
      queueMicrotask(() => {
        this.readyState = 1;
        this.onopen();
      });
    }
    send(text) {
      const message = JSON.parse(text);
      this.sent.push(message);
      const result = answer(message, this);
      if (result !== undefined) {
        queueMicrotask(() => this.onmessage({ data: JSON.stringify({ jsonrpc: "2.0", id: message.id, result }) }));
      }
    }
    close(code = 1006) {
      if (this.readyState === 3) return;
      this.readyState = 3;
      queueMicrotask(() => this.onclose({ code, reason: "" }));
    }
  };
}

const config = (changes) => readConfig({ url: "ws://127.0.0.1:1/", token: "t", autoStart: false, ...changes }, {});

test("delays grow, have an end, and never fall below their half", () => {
  for (let attempt = 0; attempt < 40; attempt++) {
    assert.ok(delayBefore(attempt, 0) >= 125);
    assert.ok(delayBefore(attempt, 1) <= 10_000);
  }
  assert.ok(delayBefore(3, 0) > delayBefore(1, 0));
});

test("more calls than the service has places for wait their turn", async () => {
  const waiting = [];
  const Socket = socketClass((message, socket) => void waiting.push([message, socket]));
  const link = new Link(config(), quiet, { WebSocket: Socket });
  const calls = Array.from({ length: 100 }, (_, number) => link.call("status", { number }));
  await new Promise((resolve) => setTimeout(resolve, 20));
  assert.equal(waiting.length, 60);
  const answered = new Set();
  while (answered.size < 100) {
    for (const [message, socket] of waiting.splice(0)) {
      answered.add(message.params.number);
      socket.onmessage({ data: JSON.stringify({ id: message.id, result: message.params.number }) });
    }
    await new Promise((resolve) => setImmediate(resolve));
  }
  assert.deepEqual(await Promise.all(calls), Array.from({ length: 100 }, (_, number) => number));
  link.close();
});

test("more than can ever be answered are refused at once", async () => {
  const link = new Link(config(), quiet, { WebSocket: socketClass(() => undefined) });
  const calls = Array.from({ length: 500 }, () => link.call("status", {}, { again: false }));
  await assert.rejects(link.call("status", {}), /500 calls wait/);
  link.close();
  await Promise.allSettled(calls);
});

test("a call without an answer ends at its deadline, and its place is free again", async () => {
  const link = new Link(config(), quiet, { WebSocket: socketClass((message) => (message.method === "ping" ? 1 : undefined)) });
  await assert.rejects(link.call("status", {}, { within: 30 }), /does not answer/);
  assert.equal(await link.call("ping", {}), 1);
  link.close();
});

test("whatever the service sends, the link lives on", async () => {
  const Socket = socketClass((message) => (message.method === "ping" ? "pong" : undefined));
  const link = new Link(config(), quiet, { WebSocket: Socket });
  await link.call("ping", {});
  for (const data of ["", "{", "null", "[]", "[null, 3]", '{"id":99,"result":1}', '{"method":"deliver"}', '"x"']) {
    Socket.made[0].onmessage({ data });
  }
  assert.equal(await link.call("ping", {}), "pong");
  link.close();
});

test("when another one attends under the same name, the two do not drive each other out for ever", async () => {
  const Socket = socketClass(() => ({}));
  const link = new Link(config(), quiet, { WebSocket: Socket });
  const down = [];
  link.keep({ name: "n", onDeliver: async () => {}, onUp() {}, onDown: (why) => down.push(why) });
  await new Promise((resolve) => setTimeout(resolve, 10));
  Socket.made[0].close(4001);
  await new Promise((resolve) => setTimeout(resolve, 600));
  assert.equal(Socket.made.length, 1);
  assert.match(down.at(-1), /another gateway/);
  link.close();
});

test("a service that offers no notices still does what it is asked for", async () => {
  const Socket = socketClass((message, socket) => {
    if (message.method !== "attend") return "done";
    const error = { code: -32004, message: "not offered", data: {} };
    queueMicrotask(() => socket.onmessage({ data: JSON.stringify({ id: message.id, error }) }));
  });
  const link = new Link(config(), quiet, { WebSocket: Socket });
  const down = [];
  link.keep({ name: "n", onDeliver: async () => {}, onUp() {}, onDown: (why) => down.push(why) });
  await new Promise((resolve) => setTimeout(resolve, 10));
  assert.match(down.at(-1), /not offered/);
  assert.equal(await link.call("ping", {}), "done");
  assert.equal(Socket.made.length, 1);
  link.close();
});

test("one that is turned away says so at once, in the words of who turned it away", async () => {
  const server = createServer();
  server.on("upgrade", (_, socket) => socket.end("HTTP/1.1 401 Unauthorized\r\ncontent-length: 9\r\n\r\nno token!"));
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  const link = new Link(config({ url: `ws://127.0.0.1:${server.address().port}/` }), quiet);
  await assert.rejects(link.call("status", {}), /HTTP 401, no token!/);
  server.close();
});

// ---- finding and starting the service

const service = `
import { existsSync, rmSync, writeFileSync, openSync, appendFileSync } from "node:fs";
const [folder] = process.argv.slice(2);
appendFileSync(folder + "/started", "x");
try { openSync(folder + "/lock", "wx"); } catch { console.error("another service has this sessionsDir"); process.exit(3); }
setTimeout(() => {
  writeFileSync(folder + "/door.token", "t");
  writeFileSync(folder + "/door.json", JSON.stringify({ url: "ws://127.0.0.1:1/", tokenFile: folder + "/door.token", pid: process.pid, protocol: 1 }));
}, 100);
setTimeout(() => process.exit(0), 20_000);
`;

async function startable() {
  const sessionsDir = await folder();
  const script = join(sessionsDir, "service.mjs");
  await writeFile(script, service);
  return readConfig({ sessionsDir, command: [process.execPath, script, sessionsDir] }, {});
}

async function end(sessionsDir) {
  process.kill(JSON.parse(await readFile(join(sessionsDir, "door.json"), "utf8")).pid);
}

test("two gateways that start a service at the same time find the one that came first", async () => {
  const own = await startable();
  await Promise.all([new Starter(own, quiet).start(), new Starter(own, quiet).start()]);
  assert.equal(await readFile(join(own.sessionsDir, "started"), "utf8"), "xx");
  assert.equal((await findDoor(own)).token, "t");
  await end(own.sessionsDir);
});

test("one gateway starts it once, however many wait for it", async () => {
  const own = await startable();
  const starter = new Starter(own, quiet);
  await Promise.all([starter.start(), starter.start(), starter.start()]);
  assert.equal(await readFile(join(own.sessionsDir, "started"), "utf8"), "x");
  await end(own.sessionsDir);
});

test("a command that cannot be run is named, and not run again at once", async () => {
  const own = readConfig({ sessionsDir: await folder(), command: ["/nowhere/opencode-actors", "serve"] }, {});
  const starter = new Starter(own, quiet);
  await assert.rejects(starter.start(), /nowhere.*ENOENT[\s\S]*config\.command/);
  await assert.rejects(starter.start(), NotRunning);
});

test("a service that was killed is told from one that was stopped, and from one of another version", async () => {
  const own = readConfig({ sessionsDir: await folder() }, {});
  await assert.rejects(findDoor(own), /no opencode service runs/);
  const door = { url: "ws://127.0.0.1:1/", tokenFile: "/nowhere", pid: 2 ** 22 + 1, protocol: 1 };
  const write = (changes) => writeFile(join(own.sessionsDir, "door.json"), JSON.stringify({ ...door, ...changes }));
  await write({});
  await assert.rejects(findDoor(own), /ended without a word/);
  await write({ pid: process.pid, protocol: 2 });
  await assert.rejects(findDoor(own), /version 2 of the protocol/);
  await write({ pid: process.pid });
  await assert.rejects(findDoor(own), /token cannot be read/);
  await writeFile(join(own.sessionsDir, "door.json"), "{");
  await assert.rejects(findDoor(own), /not what a service writes/);
});

test("the environment names the sessionsDir before the file does, as it does for the service", () => {
  const read = (raw, environment) => readConfig(raw, { HOME: "/home/u", ...environment }).sessionsDir;
  assert.equal(read({}, {}), "/home/u/.openclaw/opencode-sessions");
  assert.equal(read({ sessionsDir: "~/x" }, {}), "/home/u/x");
  assert.equal(read({ sessionsDir: "~/x" }, { OPENCODE_ACTORS_SESSIONS_DIR: "/y" }), "/y");
});
