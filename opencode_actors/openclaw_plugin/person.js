// A word for the person of a chat, as it is: no agent is woken by it, and none puts it into words of its own.

/** @typedef {import("./notify.js").Origin} Origin */

/**
 * @typedef {object} Person
 * @property {(origin: Origin, text: string, id: string) => Promise<boolean>} tell false when there is no way to it;
 *   the same id is told once
 */

const TAKES = 10_000; // ms; the service waits 15 s for the acknowledgement

/** Parts of OpenClaw that another version of it may not have. */
const SDK = {
  channels: () => import("openclaw/plugin-sdk/channel-outbound"),
  transcripts: () => import("openclaw/plugin-sdk/session-transcript-runtime"),
};

/** @param {any} api of OpenClaw @param {{channels: () => Promise<any>, transcripts: () => Promise<any>}} [sdk] @returns {Person} */
export function personOf(api, sdk = SDK) {
  return {
    async tell(origin, text, id) {
      return await within(TAKES, tell(origin, text, id));
    },
  };

  /** @param {Origin} origin @param {string} text @param {string} id */
  async function tell(origin, text, id) {
    const route = routeOf(api.runtime.agent, origin);
    const config = api.runtime.config?.current?.();
    if (route) return await toChannel(sdk, config, route, text);
    const sessionId = entryOf(api.runtime.agent, origin)?.sessionId;
    return sessionId ? await toTranscript(sdk, config, { ...origin, sessionId }, text, id) : false;
  }
}

/** Whoever waits for a channel must not wait for ever. @param {number} ms @param {Promise<boolean>} telling */
async function within(ms, telling) {
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`the channel has not taken it within ${ms / 1_000} s`)), ms);
  });
  try {
    return await /** @type {Promise<boolean>} */ (Promise.race([telling, late]));
  } finally {
    clearTimeout(timer);
  }
}

/** @param {typeof SDK} sdk @param {any} config @param {any} route @param {string} text */
async function toChannel(sdk, config, route, text) {
  const send = await partOf(sdk.channels, "sendDurableMessageBatch");
  if (!send) return false;
  const { channel, to, accountId, threadId } = route;
  const result = await send({
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

/**
 * The gateway's own chat has no channel: what stands in the session's transcript is what its person sees.
 * @param {typeof SDK} sdk @param {any} config @param {Origin & {sessionId: string}} place @param {string} text @param {string} id
 */
async function toTranscript(sdk, config, place, text, id) {
  const append = await partOf(sdk.transcripts, "appendAssistantMirrorMessageByIdentity");
  if (!append) return false;
  const { session_key: sessionKey, agent_id: agentId, sessionId } = place;
  const done = await append({
    sessionKey,
    sessionId,
    ...(agentId ? { agentId } : {}),
    text,
    idempotencyKey: `opencode:${id}`,
    config,
  });
  return Boolean(done?.ok);
}

/** @param {() => Promise<any>} load @param {string} name */
async function partOf(load, name) {
  try {
    const part = (await load())[name];
    return typeof part === "function" ? part : null;
  } catch {
    return null;
  }
}

/**
 * Where the session's person is, so that the agent's word on a job goes to the chat it was asked for in; without
 * it OpenClaw sends it to its owner's direct chat. A session of the gateway's own chat has no such place.
 * @param {any} agent @param {Origin} origin
 */
export function routeOf(agent, origin) {
  const route = entryOf(agent, origin)?.deliveryContext;
  return route?.channel && route.to && route.channel !== "webchat" ? route : undefined;
}

/** What OpenClaw knows of the session; nothing of one that was never used. @param {any} agent @param {Origin} origin */
function entryOf(agent, { session_key: sessionKey, agent_id: agentId }) {
  return agent?.session?.getSessionEntry?.({ sessionKey, ...(agentId ? { agentId } : {}) });
}
