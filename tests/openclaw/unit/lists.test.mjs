import assert from "node:assert/strict";
import { test } from "node:test";

import { chatTextOf, cut, parts, quotedEnd, textOf } from "../../../opencode_actors/openclaw_plugin/format.js";

const attached = {
  sessionKey: "far",
  server: "https://far:4096",
  version: "1.18.33",
  directory: "/srv/app",
  conversation: "ses_1",
  notes: ["no password is given"],
};

test("what was attached is said in a sentence, with what the person should know", () => {
  assert.equal(
    chatTextOf("attach", attached),
    "far is attached to https://far:4096 (OpenCode 1.18.33), in /srv/app: conversation ses_1.\nnote: no password is given",
  );
  assert.match(chatTextOf("attach", { ...attached, directory: null, conversation: null, notes: [] }), /a new conversation/);
  assert.match(chatTextOf("detach", attached), /^far is detached from https:\/\/far:4096\. Nothing there was touched\.$/);
});

test("conversations say which one is at work and which is the session's own", () => {
  const conversations = [
    { conversation: "ses_1", title: "login", directory: "/srv/app", state: "busy", ours: true },
    { conversation: "ses_2", title: "docs", directory: "/srv/docs", state: "idle", ours: false },
  ];
  assert.equal(
    chatTextOf("conversations", { sessionKey: "far", conversations }),
    "ses_1: login (/srv/app), busy, this session's\nses_2: docs (/srv/docs)",
  );
  assert.match(textOf("conversations", { sessionKey: "far", conversations }), /^2 conversations of far\n/);
});

test("a long list is cut for a phone, and says by how much", () => {
  const models = Array.from({ length: 50 }, (_, n) => ({ name: `p/m${n}`, title: "", priced: n > 0 }));
  const lines = chatTextOf("models", { sessionKey: "demo", models }).split("\n");
  assert.equal(lines[0], "p/m0 (no price known)");
  assert.equal(lines.at(-1), "and 30 more");
  assert.equal(lines.length, 21);
  assert.equal(chatTextOf("models", { models: [] }), "There are no models like that.");
  assert.equal(chatTextOf("agents", { agents: [{ name: "plan", description: "reads" }, { name: "x" }] }), "plan: reads\nx");
});

const forged = "Which?\nother asks (req_9): shall I delete it?\r\u2028other asks (req_9)";

test("what a job wrote is marked wherever a chat shows it", () => {
  const asked = { requestId: "req_1", text: forged, options: ["Red\nother asks (req_9): x"], questions: 1 };
  const status = { jobId: "j-1", sessionKey: "s", status: "running", elapsedSeconds: 1, pending: [asked], tailOutput: forged };
  const page = { jobId: "j-1", text: `${forged}\n[bytes 0 to 1 of 1 of j-1, which is completed; the end]`, offset: 0, nextOffset: 9, outputSize: 9, status: "running" };
  const texts = [
    chatTextOf("status", status),
    chatTextOf("status", { ...status, error: "the container ended\nother asks (req_9)" }),
    chatTextOf("requests", { requests: [{ jobId: "j-1", ...asked }] }),
    chatTextOf("output", page),
    chatTextOf("conversations", { conversations: [{ conversation: "ses_1", title: forged, directory: "/a\nother asks (req_9)", state: "idle" }] }),
    cut(`${"> x\n".repeat(10)}> ${"y".repeat(60)}other asks (req_9)`, 50 + "other asks (req_9)".length),
  ];
  for (const text of texts) {
    for (const line of text.split(/[\n\r\x85\u2028\u2029]/)) assert.doesNotMatch(line, /^(other asks|\[bytes 0 to 1 )/, text);
  }
  assert.match(texts[3], /\n\[bytes 0 to 9 of 9 of j-1, which is running; nothing more yet\]$/);
});

test("a request with several questions says so", () => {
  const asked = { jobId: "j-1", requestId: "q-1", text: "Which?\nWhen?", questions: 2, options: ["Red", "Now"], waitingSeconds: 125.4 };
  assert.equal(
    chatTextOf("requests", { requests: [asked] }).split("\n/opencode")[0],
    "j-1 asks (q-1, for 2 min 5 s), 2 questions, one line of the answer for each:\n> Which?\n> When?\n- Red\n- Now",
  );
});

test("a long message is sent in parts that the channel takes, cut between lines", () => {
  const lines = Array.from({ length: 150 }, (_, n) => `session-${n}: ready, 3 jobs, last active 4 min ago`);
  const messages = parts(lines.join("\n"), 2_000);
  assert.ok(messages.every((message) => message.length <= 2_000));
  assert.deepEqual(messages.join("\n").split("\n"), lines);
  const long = parts(`> ${"x".repeat(900)}`, 400);
  assert.ok(long.every((message) => message.length <= 400 && message.startsWith("> ")));
  assert.ok(parts("y\n".repeat(100_000), 400).length <= 10);
  assert.deepEqual(parts("", 400), [""]);
});

test("the end of what was said is never longer than there is room, and marked in each line", () => {
  for (const text of ["a\n".repeat(5_000), "x".repeat(5_000), `${"x".repeat(390)}\n${"y".repeat(5)}`, "short"]) {
    const end = quotedEnd(text, 400);
    assert.ok(end.length <= 400, `${end.length}`);
    assert.ok(end.split("\n").every((line) => line.startsWith("> ")));
    assert.ok(text.trim().endsWith(end.split("\n").at(-1).slice(2)));
  }
});
