import assert from "node:assert/strict";
import { test } from "node:test";

import { keyOf } from "../../../opencode_actors/openclaw_plugin/operations.js";

const asked = { sessionKey: "agent:main:main", sessionId: "s", callId: "call_0123456789ab" };

test("the same call has the same key, and no other one has", () => {
  const key = keyOf({ prompt: "x" }, asked);
  assert.equal(keyOf({ prompt: "x" }, asked), key);
  for (const other of [
    { ...asked, callId: "call_0123456789ac" },
    { ...asked, sessionKey: "agent:red:main" },
    { ...asked, sessionId: "begun anew" },
  ]) {
    assert.notEqual(keyOf({ prompt: "x" }, other), key);
  }
  assert.notEqual(keyOf({ prompt: "y" }, asked), key);
});

test("a model that counts its calls from 0 gets a new job for each of them", () => {
  for (const callId of ["", "0", "call_0", "functions.opencode_start:0"]) {
    assert.notEqual(keyOf({ prompt: "x" }, { ...asked, callId }), keyOf({ prompt: "x" }, { ...asked, callId }));
  }
});
