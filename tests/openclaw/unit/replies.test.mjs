import assert from "node:assert/strict";
import { test } from "node:test";

import { registerCommands } from "../../../opencode_actors/openclaw_plugin/commands.js";
import { Refused } from "../../../opencode_actors/openclaw_plugin/errors.js";

/** A chat with `/opencode`, and a service that answers each method so. */
function chat(answers, { tell = async () => true } = {}) {
  const told = [];
  const asked = [];
  const link = {
    person: { tell: async (origin, text) => ((await tell()) ? told.push(text) > 0 : false) },
    async call(method, params) {
      if (method === "present") return {};
      asked.push([method, params]);
      return answers[method]?.(params) ?? {};
    },
  };
  let command;
  registerCommands({ registerCommand: (registered) => (command = registered) }, () => link);
  const type = async (args, channel = "discord") =>
    (await command.handler({ args, channel, sessionKey: "agent:main:discord:direct:42", agentId: "main" })).text;
  return { told, asked, command, type };
}

const sessions = () => ({
  sessions: Array.from({ length: 150 }, (_, n) => ({ sessionKey: `session-${n}`, status: "closed", jobs: 3 })),
});

test("an answer that is too long for the channel comes in messages that it takes, in order", async () => {
  const { told, type } = chat({ sessions });
  const last = await type("sessions --all");
  const messages = [...told, last];
  assert.ok(messages.length > 1 && messages.every((text) => text.length <= 2_000));
  assert.deepEqual(
    messages.join("\n").split("\n").map((line) => line.split(":")[0]),
    sessions().sessions.map(({ sessionKey }) => sessionKey),
  );
});

test("where its beginning cannot be sent, all of it is left to OpenClaw; the gateway's own chat takes any length", async () => {
  for (const [tell, channel] of [[async () => false, "discord"], [async () => Promise.reject(new Error("away")), "discord"], [async () => true, "webchat"]]) {
    const { told, type } = chat({ sessions }, { tell });
    assert.equal((await type("sessions --all", channel)).split("\n").length, 150);
    assert.deepEqual(told, []);
  }
});

test("a change without a place is refused, and `channel` is this chat's", async () => {
  const { asked, type } = chat({ notify: () => ({ channel: "discord", kinds: {} }) });
  assert.match(await type("notify -waiting"), /say for what: `notify JOB/);
  assert.deepEqual(asked, []);
  await type("notify channel -waiting");
  await type("notify");
  assert.deepEqual(asked, [["notify", { channel: "discord", off: ["waiting"] }], ["notify", { channel: "discord" }]]);
});

test("what was wrong is said with how it is written, and not with a page of the documentation", async () => {
  const refused = () => {
    throw new Refused({ code: -32602, message: "permission_mode must be allow, ask or plan", data: { hint: "docs/protocol.md has the params of start" } });
  };
  const { type } = chat({ start: refused });
  assert.equal(
    await type("start --mode pan x"),
    "permission_mode must be allow, ask or plan\n\n/opencode start [OPTIONS] [--session KEY] PROMPT\n/opencode help lists everything.",
  );
  assert.match(await type("resume"), /^resume needs a session\n\n\/opencode resume SESSION/);
});

test("the command is described by all that it knows", async () => {
  const { command } = chat({});
  for (const verb of ["reject", "background", "close", "reset", "info", "detach"]) assert.match(command.description, new RegExp(`\\b${verb}\\b`));
});

test("a session is closed, and one that was given up is let work again", async () => {
  const { asked, type } = chat({
    close: () => ({ sessionKey: "demo", endedBy: "stop" }),
    reset: () => ({ sessionKey: "demo", status: "ready", jobs: 1 }),
    info: () => ({ service: "opencode-actors", version: "1", pid: 7, engine: { kind: "podman", version: "5" }, image: "i", sessions: 2, jobs: 3 }),
  });
  assert.match(await type("close demo"), /^demo has ended\. Its files and its conversation stay/);
  assert.equal(await type("reset demo"), "demo: ready, 1 job");
  assert.equal(await type("info"), "opencode-actors 1 (process 7): 2 sessions, 3 jobs; image i, by podman 5");
  assert.deepEqual(asked, [["close", { session_id: "demo" }], ["reset", { session_id: "demo" }], ["info", {}]]);
});
