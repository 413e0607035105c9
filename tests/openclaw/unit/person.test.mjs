import assert from "node:assert/strict";
import { test } from "node:test";

import { personOf, routeOf } from "../../../opencode_actors/openclaw_plugin/person.js";

const origin = { session_key: "agent:main:telegram:direct:42", agent_id: "main", channel: "telegram" };
const config = { channels: {} };

/** OpenClaw, as far as a person is reached through it. */
function openclaw(entry, result = { status: "sent" }) {
  const sent = [];
  const api = { runtime: { config: { current: () => config }, agent: { session: { getSessionEntry: () => entry } } } };
  const take = (answer) => async (params) => {
    sent.push(params);
    return answer;
  };
  const sdk = {
    channels: async () => ({ sendDurableMessageBatch: take(result) }),
    transcripts: async () => ({ appendAssistantMirrorMessageByIdentity: take({ ok: true, messageId: "m" }) }),
  };
  return { api, sdk, sent };
}

const phone = { sessionId: "s", deliveryContext: { channel: "telegram", to: "42", accountId: "work", threadId: 7 } };

test("a person at a channel is sent the word through OpenClaw's own outbound, to the session's place in it", async () => {
  const { api, sdk, sent } = openclaw(phone);
  assert.equal(await personOf(api, sdk).tell(origin, "3 of 7", "N-1"), true);
  assert.deepEqual(sent, [
    { cfg: config, channel: "telegram", to: "42", accountId: "work", threadId: 7, payloads: [{ text: "3 of 7" }], durability: "best_effort" },
  ]);
});

test("what the channel did not take is not told", async () => {
  const { api, sdk } = openclaw(phone, { status: "failed", error: new Error("blocked by the user") });
  await assert.rejects(personOf(api, sdk).tell(origin, "x", "N-1"), /blocked by the user/);
});

test("a person at the gateway's own chat finds the word in the transcript, under its id", async () => {
  const { api, sdk, sent } = openclaw({ sessionId: "s-1", deliveryContext: { channel: "webchat", to: "x" } });
  assert.equal(await personOf(api, sdk).tell(origin, "3 of 7", "N-1"), true);
  assert.deepEqual(sent, [
    { sessionKey: origin.session_key, sessionId: "s-1", agentId: "main", text: "3 of 7", idempotencyKey: "opencode:N-1", config },
  ]);
});

test("where there is no session, or another OpenClaw, there is no way", async () => {
  const unused = openclaw(undefined);
  assert.equal(await personOf(unused.api, unused.sdk).tell(origin, "x", "N-1"), false);
  const missing = { channels: () => Promise.reject(new Error("no such module")), transcripts: async () => ({}) };
  for (const entry of [phone, { sessionId: "s-1" }]) {
    assert.equal(await personOf(openclaw(entry).api, missing).tell(origin, "x", "N-1"), false);
  }
  assert.equal(await personOf(openclaw(phone).api).tell(origin, "x", "N-1"), false); // outside of OpenClaw
});

test("a session of the gateway's own chat has no place in a channel", () => {
  const agent = (deliveryContext) => ({ session: { getSessionEntry: () => ({ deliveryContext }) } });
  assert.equal(routeOf(agent({ channel: "webchat", to: "x" }), origin), undefined);
  assert.equal(routeOf(agent({ channel: "telegram" }), origin), undefined);
  assert.equal(routeOf({}, origin), undefined);
  assert.deepEqual(routeOf(agent(phone.deliveryContext), origin), phone.deliveryContext);
});

test("a channel that takes nothing is not waited for without an end", async (context) => {
  context.mock.timers.enable({ apis: ["setTimeout"] });
  const { api } = openclaw(phone);
  const silent = { channels: async () => ({ sendDurableMessageBatch: () => new Promise(() => {}) }), transcripts: async () => ({}) };
  const told = assert.rejects(personOf(api, silent).tell(origin, "x", "N-1"), /not taken it within 10 s/);
  context.mock.timers.tick(10_000);
  await told;
});
