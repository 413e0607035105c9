// A word for the person of a chat, as it is: no agent is woken by it, and none puts it into words of its own.

/** @typedef {import("./notify.js").Origin} Origin */

/**
 * @typedef {object} Person
 * @property {(origin: Origin, text: string, id: string) => Promise<boolean>} tell false when there is no way to it;
 *   the same id is told once
 */

/** @param {any} api of OpenClaw @returns {Person} */
export function personOf(api) {
  return {
    async tell(origin, text, id) {
      const route = routeOf(api.runtime.agent, origin);
      const config = api.runtime.config?.current?.();
      return route ? await toChannel(config, route, text) : await toTranscript(config, origin, text, id);
    },
  };
}

/** @param {any} config @param {any} route @param {string} text */
async function toChannel(config, route, text) {
  const sdk = await sdkOf(() => import("openclaw/plugin-sdk/channel-outbound"), "sendDurableMessageBatch");
  if (!sdk) return false;
  const { channel, to, accountId, threadId } = route;
  const result = await sdk.sendDurableMessageBatch({
    cfg: config,
    channel,
    to,
    ...(accountId ? { accountId } : {}),
    ...(threadId === undefined ? {} : { threadId }),
    payloads: [{ text }],
    durability: "best_effort",
  });
  if (result.status === "failed") throw result.error ?? new Error(`${channel} did not take it`);
  return true;
}

/** The gateway's own chat has no channel: what stands in the session's transcript is what its person sees. */
async function toTranscript(/** @type {any} */ config, /** @type {Origin} */ origin, /** @type {string} */ text, /** @type {string} */ id) {
  const append = "appendAssistantMirrorMessageByIdentity";
  const sdk = await sdkOf(() => import("openclaw/plugin-sdk/session-transcript-runtime"), append);
  if (!sdk) return false;
  const { session_key: sessionKey, agent_id: agentId } = origin;
  const done = await sdk[append]({
    sessionKey,
    ...(agentId ? { agentId } : {}),
    text,
    idempotencyKey: `opencode:${id}`,
    config,
  });
  return Boolean(done?.ok);
}

/** Parts of OpenClaw that another version of it may not have. @param {() => Promise<any>} load @param {string} name */
async function sdkOf(load, name) {
  try {
    const sdk = await load();
    return typeof sdk[name] === "function" ? sdk : null;
  } catch {
    return null;
  }
}

/**
 * Where the session's person is, so that the agent's word on a job goes to the chat it was asked for in; without
 * it OpenClaw sends it to its owner's direct chat. A session of the gateway's own chat has no such place.
 * @param {any} agent @param {Origin} origin
 */
export function routeOf(agent, { session_key: sessionKey, agent_id: agentId }) {
  const entry = agent?.session?.getSessionEntry?.({ sessionKey, ...(agentId ? { agentId } : {}) });
  const route = entry?.deliveryContext;
  return route?.channel && route.to && route.channel !== "webchat" ? route : undefined;
}
