// `/opencode follow JOB` in a chat: what was missed, then what is said, as it is said; several chats may follow one
// job, and a chat several. A channel is not flooded: what comes within a few seconds is one message.

import { cut, duration } from "./format.js";

const EVERY = 4_000; // ms from one message to the next
const LONGEST = 3_000; // characters in one; of what is longer the end
const LONGEST_LINE = 200;
const FOLLOWED_AT_MOST = 20; // by all chats of this gateway
const REMEMBERED = 200;
const EARLY = 5_000;

/**
 * @typedef {object} Followed
 * @property {import("./notify.js").Origin} origin
 * @property {string} jobId
 * @property {string} name
 * @property {number | undefined} since the number of the last notice that was shown
 * @property {string} subscription
 * @property {string} text that waits to be told
 * @property {string[]} todos
 * @property {ReturnType<typeof setTimeout> | undefined} timer
 * @property {boolean} catchingUp
 * @property {number} told
 */

export class Follows {
  #link;
  #person;
  #log;
  #every;
  /** @type {Map<string, Followed>} by chat and job */
  #followed = new Map();
  /** @type {Map<string, number>} the last notice that a chat saw of a job, for when it follows again */
  #seen = new Map();
  #serial = 0;
  /** @type {any[]} that came before the answer which names their subscription */
  #early = [];
  #subscribing = 0;

  /**
   * @param {{call(method: string, params: object, options?: object): Promise<any>}} link
   * @param {import("./person.js").Person} person
   * @param {{warn(text: string): void}} log
   * @param {{every?: number}} [options]
   */
  constructor(link, person, log, { every = EVERY } = {}) {
    this.#link = link;
    this.#person = person;
    this.#log = log;
    this.#every = every;
  }

  get size() {
    return this.#followed.size;
  }

  /**
   * @param {import("./notify.js").Origin} origin
   * @param {string} word a job's id or name
   * @returns {Promise<string>} what the chat is answered at once
   */
  async follow(origin, word) {
    const status = await this.#link.call("status", { job_id: word });
    const { jobId, name } = status;
    const key = keyOf(origin, jobId);
    if (this.#followed.has(key)) return `This chat follows ${calledOf(status)} already; /opencode background ends it.`;
    if (this.#followed.size >= FOLLOWED_AT_MOST) {
      throw new Error(`${FOLLOWED_AT_MOST} jobs are followed already; /opencode background ends it for this chat`);
    }
    /** @type {Followed} */
    const one = {
      origin,
      jobId,
      name: name ?? "",
      since: this.#seen.get(key),
      subscription: "",
      text: "",
      todos: [],
      timer: undefined,
      catchingUp: true,
      told: 0,
    };
    this.#followed.set(key, one);
    try {
      await this.#subscribe(one);
    } catch (error) {
      this.#followed.delete(key);
      throw error;
    }
    return `Following ${calledOf(status)}, which is ${status.status}. /opencode background ends it.`;
  }

  /** Ends what this chat follows, or one job of it. @param {import("./notify.js").Origin} origin @param {string} [word] */
  background(origin, word) {
    const ours = [...this.#followed].filter(
      ([, one]) => one.origin.session_key === origin.session_key && (!word || one.jobId === word || one.name === word),
    );
    for (const [key, one] of ours) this.#end(key, one);
    if (!ours.length) return word ? `This chat does not follow ${word}.` : "This chat follows nothing.";
    const names = ours.map(([, one]) => one.name || one.jobId).join(", ");
    return `${names} ${ours.length === 1 ? "goes" : "go"} on in the background; you are told when it ends or asks something.`;
  }

  /** The connection is there again: everything goes on behind what was shown. */
  reconnected() {
    for (const [key, one] of this.#followed) {
      this.#subscribe(one).catch((error) => {
        this.#log.warn(`${one.jobId} is not followed any more: ${error?.message}`);
        this.#end(key, one);
      });
    }
  }

  stop() {
    for (const [key, one] of this.#followed) this.#end(key, one);
  }

  /** @param {any} told the params of a notice, or of the end of a subscription */
  heard(told) {
    if (this.#subscribing && ![...this.#followed.values()].some((one) => one.subscription === told.subscription)) {
      if (this.#early.length < EARLY) this.#early.push(told);
      return;
    }
    for (const [key, one] of this.#followed) {
      if (!told.subscription || one.subscription !== told.subscription) continue;
      if (typeof told.seq === "number") one.since = told.seq;
      if (told.kind === undefined) {
        void this.#flush(one).finally(() => this.#end(key, one));
        return;
      }
      one.text = added(one, told);
      this.#schedule(one);
    }
  }

  /** @param {Followed} one */
  async #subscribe(one) {
    one.subscription = "";
    const params = { job_id: one.jobId, ...(one.since === undefined ? {} : { since: one.since }) };
    this.#subscribing++;
    try {
      const { subscription } = await this.#link.call("follow", params, { again: false });
      one.subscription = subscription;
    } finally {
      this.#subscribing--;
    }
    const early = this.#early.splice(0);
    for (const told of early) this.heard(told);
  }

  /** @param {Followed} one */
  #schedule(one) {
    if (one.timer || !one.text) return;
    const wait = Math.max(one.catchingUp ? Math.min(500, this.#every) : 0, one.told + this.#every - Date.now());
    one.timer = setTimeout(() => {
      one.timer = undefined;
      void this.#flush(one);
    }, wait);
    one.timer.unref?.();
  }

  /** @param {Followed} one */
  async #flush(one) {
    const text = one.text.trim();
    one.text = "";
    one.told = Date.now();
    one.catchingUp = false;
    if (!text) return;
    const head = `${one.name || one.jobId}:`;
    const shown = text.length <= LONGEST ? text : `… (earlier: /opencode output ${one.jobId})\n${text.slice(-LONGEST)}`;
    try {
      await this.#person.tell(one.origin, `${head}\n${quoted(shown)}`, `follow:${one.jobId}:${one.since}:${++this.#serial}`);
    } catch (error) {
      this.#log.warn(`what ${one.jobId} says cannot be told: ${/** @type {any} */ (error)?.message}`);
    }
  }

  /** @param {string} key @param {Followed} one */
  #end(key, one) {
    clearTimeout(one.timer);
    one.timer = undefined;
    if (one.since !== undefined) this.#seen.set(key, one.since);
    for (const oldest of this.#seen.keys()) {
      if (this.#seen.size <= REMEMBERED) break;
      this.#seen.delete(oldest);
    }
    this.#followed.delete(key);
    const { subscription } = one;
    one.subscription = "";
    if (subscription) this.#link.call("unfollow", { subscription }, { again: false }).catch(() => {}); // it is over already
  }
}

/** @param {Followed} one @param {any} told @returns {string} what waits, with this */
export function added(one, told) {
  const { text } = one;
  const line = (/** @type {string} */ words) => `${text}${!text || text.endsWith("\n") ? "" : "\n"}${oneLine(words)}\n`;
  switch (told.kind) {
    case "output":
      return told.outputKind === "text" ? text + told.text : told.outputKind === "remark" ? line(told.text) : text;
    case "toolStarted":
      return line(`[${told.tool}] ${told.title ?? ""}`);
    case "todosChanged":
      return changed(one, told.todos ?? []).reduce((whole, words) => `${whole}${!whole || whole.endsWith("\n") ? "" : "\n"}${words}\n`, text);
    case "inputWanted": {
      const options = told.options?.length ? ` (${told.options.join(" | ")})` : "";
      return `${line(`asks: ${told.text}${options}`)}answer with /opencode answer ${told.jobId} …\n`;
    }
    case "inputAnswered":
      return line(`the question is ${told.end}`);
    case "providerRetrying":
      return line(`the model provider failed, it is tried again: ${told.reason}`);
    case "jobCancelling":
      return line("it is being ended");
    case "missed":
      return line(`${told.count} notices are not kept any more`);
    case "jobEnded":
      return line(`${told.status?.status ?? "ended"}, after ${duration(told.status?.elapsedSeconds)}`);
    default:
      return text;
  }
}

/** What is new in the list, one line for each. @param {Followed} one @param {{content: string, status: string}[]} todos */
function changed(one, todos) {
  const now = todos.map(({ content, status }) => `${MARKS[status] ?? "[ ]"} ${oneLine(content)}`);
  const news = now.filter((line) => !one.todos.includes(line));
  one.todos = now;
  return news;
}

/** @type {Record<string, string>} */
const MARKS = { completed: "[x]", in_progress: "[>]", cancelled: "[-]" };

/** @param {string} text */
function oneLine(text) {
  return cut(String(text).replaceAll(/\s+/g, " ").trim(), LONGEST_LINE).replaceAll("\n", " ");
}

/** What a job has said stands behind `>`, so that none of it can pass for a word of somebody else. @param {string} text */
function quoted(text) {
  return text
    .split(/\r?\n/)
    .map((line) => `> ${line}`)
    .join("\n");
}

/** @param {import("./notify.js").Origin} origin @param {string} jobId */
function keyOf(origin, jobId) {
  return `${origin.session_key} ${jobId}`;
}

/** @param {{jobId: string, name?: string | null}} job */
function calledOf({ jobId, name }) {
  return name ? `${name} (${jobId})` : jobId;
}
