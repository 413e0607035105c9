// The service's operations, as tools, chat commands and gateway methods have them alike.

import { createHash, randomUUID } from "node:crypto";

import { newsOf } from "./news.js";

/**
 * What may take how long, and whether asking twice is the same as asking once. An answer is not: the second one
 * finds no question, and nobody knows any more whether the first one was taken.
 * @type {Record<string, {within?: number, again?: boolean}>}
 */
export const OPERATIONS = {
  start: {},
  status: {},
  output: {},
  cancel: { within: 90_000 }, // answered when it has settled; the ladder's rungs sum up to 45 s
  cleanup: { within: 90_000 },
  sessions: {},
  attach: {},
  detach: { again: false },
  conversations: {},
  agents: { within: 120_000 }, // a container may have to be started to be asked
  models: { within: 120_000 },
  answer: { again: false },
  requests: {},
  statistics: {},
  notify: {},
  close: { within: 90_000 },
  reset: { within: 90_000 },
  info: {},
  follow: { again: false }, // in pieces, see news.js
  respond: {},
  resume: {},
  fork: { within: 300_000, again: false }, // a workspace may have gigabytes; twice would be two sessions
};

/** The operations that begin a job, which must not begin twice. */
const STARTS = new Set(["start", "respond", "resume", "fork"]);
/** Those that tell a person from an agent: an agent may answer only so often in a row. */
const SIGNED = new Set([...STARTS, "answer"]);

/**
 * @typedef {object} Caller who asks, so that the notices of a job come back to where it was asked for
 * @property {string} [sessionKey] of OpenClaw
 * @property {string} [agentId]
 * @property {string} [channel]
 * @property {string} [sessionId] of OpenClaw: another one when the session was begun anew
 * @property {"agent" | "person"} by
 * @property {string} [callId] the same for each try of one call
 */

/**
 * @param {import("./link.js").Link} link
 * @param {keyof typeof OPERATIONS} name
 * @param {Record<string, unknown>} params
 * @param {Caller} caller
 * @param {AbortSignal} [signal] ends the waiting, and nothing else: the job goes on
 * @returns {Promise<any>} the service's result
 */
export async function perform(link, name, params, caller, signal) {
  signal?.throwIfAborted();
  if (name === "follow") return await newsOf(link, params, signal);
  const signed = SIGNED.has(name) ? { ...params, by: caller.by } : params;
  const given = STARTS.has(name) ? { ...signed, ...identity(params, caller) } : signed;
  const answer = link.call(name, given, OPERATIONS[name]);
  return signal ? unlessAborted(answer, signal) : answer;
}

/** @param {Record<string, unknown>} params @param {Caller} caller */
function identity(params, caller) {
  const identified = { key: typeof params.key === "string" ? params.key : keyOf(params, caller) };
  const origin = originOf(caller);
  return origin.session_key ? { ...identified, origin } : identified;
}

/** @param {Caller} caller @returns {import("./notify.js").Origin} */
export function originOf(caller) {
  return { session_key: qualified(caller), agent_id: caller.agentId ?? "", channel: caller.channel ?? "" };
}

/** System events go to sessions that are named with their agent. @param {Caller} caller */
function qualified({ sessionKey, agentId }) {
  if (!sessionKey) return "";
  return sessionKey.startsWith("agent:") || !agentId ? sessionKey : `agent:${agentId}:${sessionKey}`;
}

/**
 * The same call of a tool is the same job, also when OpenClaw itself makes it again. Some models count their calls
 * from 0 in each turn; what does not look unique gets a key of its own, or a later start would be an earlier job.
 * @param {Record<string, unknown>} params
 * @param {Caller} caller
 */
export function keyOf(params, { sessionKey = "", sessionId = "", callId = "" }) {
  const looksUnique = (callId.match(/[A-Za-z0-9]+/g) ?? []).some((run) => run.length >= 10 && /\d/.test(run));
  if (!looksUnique) return `openclaw:${randomUUID()}`;
  const parts = JSON.stringify([sessionKey, sessionId, callId, params]);
  return `openclaw:${createHash("sha256").update(parts).digest("hex").slice(0, 40)}`;
}

/** @param {Promise<any>} answer @param {AbortSignal} signal */
function unlessAborted(answer, signal) {
  return new Promise((resolve, reject) => {
    const stop = () => reject(signal.reason instanceof Error ? signal.reason : new Error("the call was cancelled"));
    signal.addEventListener("abort", stop, { once: true });
    answer.then(resolve, reject).finally(() => signal.removeEventListener("abort", stop));
  });
}
