// What the service has to say to the session that started a job: put into that session's queue of system events,
// and the session woken, in process.
//
// OpenClaw keeps that queue in memory, 20 events for each session, and forgets older ones without a word. So
// many notices become one event, and the service is told that a notice was taken only when a turn of the agent
// has taken it, or after a while in which the agent was busy.

import { cut, quoted } from "./format.js";

const CONTEXT = "opencode:";
const DIGEST = `${CONTEXT}digest`;
const SEPARATE_EVENTS = 8; // of the queue's 20 places; others use it too
const LONGEST_EVENT = 4_000; // characters
const LONGEST_IN_DIGEST = 300;
const LONGEST_DIGEST = 12_000;
const TAKEN_WITHIN = 10_000; // ms; the service waits 15 s for the acknowledgement
const LOOK_EVERY = 200; // ms; nothing tells when a queue is emptied
const REMEMBERED = 500;

/**
 * @typedef {object} Queue OpenClaw's, of one session's system events
 * @property {(text: string, options: object) => boolean} enqueueSystemEvent
 * @property {(options: object) => void} requestHeartbeat
 * @property {((sessionKey: string) => {text: string, contextKey?: string | null}[]) | null} peek
 * @property {(origin: Origin) => object | undefined} [routeOf] where the session's last message came from
 *
 * @typedef {{session_key: string, agent_id: string, channel: string}} Origin
 */

export class Notifier {
  #queue;
  #person;
  /** @type {Set<string>} ids that a turn has taken: the acknowledgement may have been lost */
  #taken = new Set();
  #stopped = false;

  /** @param {Queue} queue @param {import("./person.js").Person} [person] */
  constructor(queue, person) {
    this.#queue = queue;
    this.#person = person;
  }

  stop() {
    this.#stopped = true;
  }

  /**
   * @param {import("./link.js").Delivery} delivery
   * @returns {Promise<void>} resolves when the service may forget it; throws when this gateway cannot pass it on
   */
  async deliver(delivery) {
    if (this.#taken.has(delivery.id)) return;
    const sessionKey = delivery.origin?.session_key;
    if (!sessionKey) throw new Error("nobody is named who asked for it");
    if (delivery.to === "person" && (await this.#tellPerson(delivery, sessionKey))) {
      this.#remember(delivery.id);
      return;
    }
    const contextKey = this.#enqueue(delivery, sessionKey);
    this.#queue.requestHeartbeat({
      source: "background-task", // wakes any session of any agent, also where heartbeats are off
      intent: "immediate",
      reason: "background-task",
      sessionKey,
      ...(delivery.origin.agent_id ? { agentId: delivery.origin.agent_id } : {}),
    });
    await this.#untilTaken(sessionKey, contextKey);
    this.#remember(delivery.id);
  }

  /** A word of the plugin's own for the chat's agent, at its next turn. @param {Origin} origin @param {string} text */
  leave(origin, text) {
    const deliveryContext = this.#queue.routeOf?.(origin);
    const options = { sessionKey: origin.session_key, contextKey: `${CONTEXT}plugin`, replace: true };
    this.#queue.enqueueSystemEvent(text, { ...options, ...(deliveryContext ? { deliveryContext } : {}) });
  }

  /**
   * No agent is woken. Where there is no way to the person, as in a chat that was never used or at a channel that takes
   * nothing at the moment, what is only to be known waits for the agent's next turn; a question has to reach somebody,
   * and the agent is told it: the service offers no word twice to the same gateway.
   * @param {import("./link.js").Delivery} delivery @param {string} sessionKey
   */
  async #tellPerson(delivery, sessionKey) {
    if (await this.#person?.tell(delivery.origin, cut(delivery.text, LONGEST_EVENT), delivery.id).catch(() => false)) return true;
    if (delivery.kind === "waiting") return false;
    this.#enqueue(delivery, sessionKey);
    return true;
  }

  /** @param {import("./link.js").Delivery} delivery @param {string} sessionKey @returns {string} where it now waits */
  #enqueue(delivery, sessionKey) {
    const ours = this.#waiting(sessionKey);
    const deliveryContext = this.#queue.routeOf?.(delivery.origin);
    const options = { sessionKey, ...(deliveryContext ? { deliveryContext } : {}) };
    if (ours.length < SEPARATE_EVENTS) {
      // A newer reminder of a job stands for the older one.
      const contextKey = `${CONTEXT}${delivery.jobId}:${delivery.kind}:${delivery.kind === "running" ? "" : delivery.id}`;
      this.#queue.enqueueSystemEvent(eventText(delivery), { ...options, contextKey, replace: true });
      return contextKey;
    }
    const digest = ours.find((event) => event.contextKey === DIGEST)?.text;
    this.#queue.enqueueSystemEvent(digestText(digest, delivery), { ...options, contextKey: DIGEST, replace: true });
    return DIGEST;
  }

  /** @param {string} sessionKey */
  #waiting(sessionKey) {
    const events = this.#queue.peek?.(sessionKey) ?? [];
    return events.filter((event) => event.contextKey?.startsWith(CONTEXT));
  }

  /** @param {string} sessionKey @param {string} contextKey */
  async #untilTaken(sessionKey, contextKey) {
    const until = Date.now() + TAKEN_WITHIN;
    const key = contextKey.toLowerCase(); // as OpenClaw keeps it
    while (Date.now() < until && this.#waiting(sessionKey).some((event) => event.contextKey === key)) {
      await new Promise((resolve) => setTimeout(resolve, LOOK_EVERY));
      if (this.#stopped) throw new Error("the gateway is stopping before the agent has read it");
    }
  }

  /** @param {string} id */
  #remember(id) {
    this.#taken.add(id);
    for (const oldest of this.#taken) {
      if (this.#taken.size <= REMEMBERED) break;
      this.#taken.delete(oldest);
    }
  }
}

/** @param {import("./link.js").Delivery} delivery @returns {string} */
export function eventText({ kind, jobId, sessionKey, name, text }) {
  // The service has put it into words itself, and has marked what the job wrote.
  if (text?.startsWith(`OpenCode job ${jobId} `)) return cut(text, LONGEST_EVENT);
  const job = `OpenCode job ${jobId}${name ? ` (${name})` : ""} in session ${sessionKey}`;
  const { says, next } = SAYINGS[kind] ?? { says: kind, next: "" };
  const said = text ? `\n${quoted(cut(text, LONGEST_EVENT))}` : "";
  return `${job} ${says}${said ? ":" : "."}${said}\n${next.replaceAll("JOB", jobId).replaceAll("SESSION", sessionKey)}`.trim();
}

/** @param {string | undefined} digest what waits already @param {import("./link.js").Delivery} delivery */
export function digestText(digest, delivery) {
  const head = "Several OpenCode jobs have news; opencode_status and opencode_output tell all of each:";
  const { says } = SAYINGS[delivery.kind] ?? { says: delivery.kind };
  const first = (delivery.text ?? "").trim().split("\n", 1)[0];
  const line = cut(`- ${delivery.jobId}${delivery.name ? ` (${delivery.name})` : ""} ${says}: ${first}`, LONGEST_IN_DIGEST);
  const whole = `${digest ?? head}\n${line.replaceAll("\n", " ")}`;
  if (whole.length <= LONGEST_DIGEST) return whole;
  const more = "- … and more: opencode_sessions names the sessions";
  return digest?.endsWith(more) ? digest : `${digest}\n${more}`;
}

/** @type {Record<string, {says: string, next: string}>} */
const SAYINGS = {
  completed: {
    says: "is completed",
    next:
      "(What stands behind > was written by the job. All of it: opencode_output with job_id JOB. To go on with the " +
      "same files: opencode_respond with session_id SESSION. Tell the person what came of it.)",
  },
  failed: {
    says: "has failed",
    next: "(opencode_status with job_id JOB tells the cause and a hint. Tell the person, or mend it and start again.)",
  },
  limit: {
    says: "has reached a limit",
    next: "(opencode_status with job_id JOB tells which. opencode_respond in session SESSION goes on from there.)",
  },
  cancelled: { says: "was cancelled", next: "" },
  waiting: {
    says: "asks, and waits for an answer",
    next:
      "(Answer with opencode_answer: job_id JOB; opencode_status names the request_id and the choices. Ask the person " +
      "when it is not yours to decide.)",
  },
  running: {
    says: "is still running",
    next: "(Nothing has to be done. opencode_status with job_id JOB tells how it is; opencode_cancel ends it.)",
  },
};
