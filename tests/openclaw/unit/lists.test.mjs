import assert from "node:assert/strict";
import { test } from "node:test";

import { chatTextOf, textOf } from "../../../opencode_actors/openclaw_plugin/format.js";

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
