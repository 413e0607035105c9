// `/opencode follow JOB` in a chat: what was missed, then what is said, as it is said; several chats may follow one
// job, and a chat several. A channel is not flooded: what comes within a few seconds is one message.

import { Unreachable } from "./errors.js";
import { duration, oneLine, quoted, quotedEnd, roomOf } from "./format.js";

const EVERY = 4_000; // ms from one message to the next
const LONGEST = 3_000; // characters in one; of what is longer the end
const FRAME = 200; // of these for what stands around the job's words
const KEPT = 20_000; // characters that wait to be told, of what is longer the end
const FOLLOWED_AT_MOST = 20; // by all chats of this gateway
const REMEMBERED = 200;
const EARLY = 5_000;
const TRIES = 6; // of one message, each after a pause that doubles: two minutes
const LONGEST_PAUSE = 8; // times EVERY

/**
 * @typedef {object} Followed
 * @property {import("./notify.js").Origin} origin
 * @property {Record<string, string>} place the job or the session, as the service is asked for it
 * @property {string} id of it
 * @property {string} name
 * @property {Set<string>} words by which the chat may call it
 * @property {number | undefined} heard the number of the last notice that is in `text`, or was told
 * @property {string} subscription
 * @property {string} text that waits to be told
 * @property {string} farewell what is told last of all, as our own word
 * @property {string} job the one that spoke last
 * @property {string[]} todos
 * @property {{text: string, id: string, upto: number | undefined} | undefined} message that is being sent, until it was
 * @property {Promise<void> | undefined} sending
 * @property {number} tries
 * @property {ReturnType<typeof setTimeout> | undefined} timer
 * @property {boolean} catchingUp
 * @property {boolean} over nothing comes any more
 * @property {number} told when
 */

export class Follows {
  #link;
  #person;
  #log;
  #every;
  #leave;
  /** @type {Map<string, Followed>} by chat, and job or session */
  #followed = new Map();
  /** @type {Map<string, number>} the last notice that a chat was told of a job, for when it follows again */
  #seen = new Map();
  /** @type {Map<string, Promise<void>>} what is still being sent of what is not followed any more */
  #leaving = new Map();
  #serial = 0;
  /** @type {any[]} that came before the answer which names their subscription */
  #early = [];
  #subscribing = 0;

  /**
   * @param {{call(method: string, params: object, options?: object): Promise<any>}} link
   * @param {import("./person.js").Person} person
   * @param {{warn(text: string): void}} log
   * @param {{every?: number, leave?: (origin: import("./notify.js").Origin, text: string) => void}} [options] `leave`: a
   *   word for the chat's agent, at its next turn, when the chat itself cannot be told
   */
  constructor(link, person, log, { every = EVERY, leave = () => {} } = {}) {
    this.#link = link;
    this.#person = person;
    this.#log = log;
    this.#every = every;
    this.#leave = leave;
  }

  get size() {
    return this.#followed.size;
  }

  /**
   * @param {import("./notify.js").Origin} origin
   * @param {string} word a job's id or name, or its session's
   * @returns {Promise<string>} what the chat is answered at once
   */
  async follow(origin, word) {
    const status = await this.#link.call("status", { job_id: word });
    const { jobId, name, sessionKey } = status;
    const called = name ? `${name} (${jobId})` : jobId;
    const words = [word, jobId, name, sessionKey].filter(Boolean);
    return await this.#begin(origin, { place: { job_id: jobId }, id: jobId, name, called, words, state: `, which is ${status.status}` });
  }

  /** All jobs of a session, from now on. @param {import("./notify.js").Origin} origin @param {string} word @returns {Promise<string>} */
  async followSession(origin, word) {
    return await this.#begin(origin, { place: { session_id: word }, id: `session ${word}`, name: word, called: `all jobs of session ${word}`, words: [word], state: "" });
  }

  /** @param {import("./notify.js").Origin} origin @param {{place: Record<string, string>, id: string, name: string, called: string, words: string[], state: string}} what */
  async #begin(origin, { place, id, name, called, words, state }) {
    const key = keyOf(origin, id);
    await this.#leaving.get(key); // or it would be told again
    if (this.#followed.has(key)) return `This chat follows ${called} already; /opencode background ends it.`;
    if (this.#followed.size >= FOLLOWED_AT_MOST) {
      throw new Error(`${FOLLOWED_AT_MOST} jobs are followed already; /opencode background ends it for this chat`);
    }
    /** @type {Followed} */
    const one = {
      origin,
      place,
      id,
      name: name ?? "",
      words: new Set(words),
      heard: this.#seen.get(key),
      subscription: "",
      text: "",
      farewell: "",
      job: "",
      todos: [],
      message: undefined,
      sending: undefined,
      tries: 0,
      timer: undefined,
      catchingUp: true,
      over: false,
      told: 0,
    };
    this.#followed.set(key, one);
    try {
      await this.#subscribe(key, one);
    } catch (error) {
      this.#followed.delete(key);
      throw error;
    }
    return `Following ${called}${state}. /opencode background ends it.`;
  }

  /** Ends what this chat follows, or one job of it. @param {import("./notify.js").Origin} origin @param {string} [word] */
  background(origin, word) {
    const ours = [...this.#followed].filter(
      ([, one]) => one.origin.session_key === origin.session_key && (!word || one.words.has(word)),
    );
    for (const [key, one] of ours) this.#end(key, one);
    if (!ours.length) return word ? `This chat does not follow ${word}.` : "This chat follows nothing.";
    const names = ours.map(([, one]) => one.name || one.id).join(", ");
    return `${names} ${ours.length === 1 ? "goes" : "go"} on in the background; you are told when it ends or asks something.`;
  }

  /** The connection is there again: everything goes on behind what was heard. */
  reconnected() {
    for (const [key, one] of this.#followed) {
      if (one.over) continue;
      this.#subscribe(key, one).catch((error) => {
        if (error instanceof Unreachable) return; // lost once more: it is tried again when that is mended
        this.#log.warn(`${one.id} is not followed any more: ${error?.message}`);
        one.farewell = `${one.name || one.id} is not followed any more: ${oneLine(error?.message)}`;
        one.over = true;
        this.#send(key, one);
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
      if (typeof told.seq === "number") one.heard = told.seq;
      if (told.kind === undefined) {
        one.over = true;
        this.#send(key, one);
        return;
      }
      one.text = addedTo(one, told).slice(-KEPT);
      this.#schedule(key, one);
    }
  }

  /** @param {string} key @param {Followed} one */
  async #subscribe(key, one) {
    one.subscription = "";
    const params = { ...one.place, ...(one.heard === undefined ? {} : { since: one.heard }) };
    this.#subscribing++;
    try {
      const { subscription } = await this.#link.call("follow", params, { again: false });
      if (this.#followed.get(key) === one) one.subscription = subscription;
      else this.#unfollow(subscription); // the chat has left it meanwhile
    } finally {
      this.#subscribing--;
    }
    const early = this.#early.splice(0);
    for (const told of early) this.heard(told);
  }

  /** @param {string} key @param {Followed} one */
  #schedule(key, one) {
    if (one.timer || one.sending || (!one.text && !one.message)) return;
    const pause = this.#every * Math.min(LONGEST_PAUSE, 2 ** one.tries);
    const wait = Math.max(one.catchingUp ? Math.min(500, this.#every) : 0, one.told + pause - Date.now());
    one.timer = setTimeout(() => this.#send(key, one), wait);
    one.timer.unref?.();
  }

  /** One message after the other; what is heard meanwhile is the next one. @param {string} key @param {Followed} one */
  #send(key, one) {
    clearTimeout(one.timer);
    one.timer = undefined;
    one.sending ??= this.#sendNext(key, one).finally(() => {
      one.sending = undefined;
      this.#leaving.delete(key);
      if (this.#followed.get(key) !== one) return;
      if (one.tries >= TRIES) this.#giveUp(key, one);
      else if (!one.over || one.message) this.#schedule(key, one);
      else if (one.text.trim() || one.farewell) this.#send(key, one);
      else this.#end(key, one);
    });
  }

  /** The same message under the same id until it was taken: nothing is lost with it, and it is told once. @param {string} key @param {Followed} one */
  async #sendNext(key, one) {
    const { message } = one;
    if (!(one.message ??= this.#messageOf(one))) return;
    try {
      if (!(await this.#person.tell(one.origin, one.message.text, one.message.id))) throw new Error("there is no way into its chat");
      if (one.message.upto !== undefined) this.#remember(key, one.message.upto);
      one.message = undefined;
      one.tries = 0;
    } catch (error) {
      if (!message) this.#log.warn(`what ${one.id} says cannot be told: ${/** @type {any} */ (error)?.message}`);
      one.tries++;
    }
    one.told = Date.now();
    one.catchingUp = false;
  }

  /** @param {Followed} one */
  #messageOf(one) {
    const text = one.text.trim();
    one.text = "";
    const id = `follow:${one.id}:${one.heard}:${++this.#serial}`;
    if (!text) {
      const { farewell } = one;
      one.farewell = "";
      return farewell ? { text: farewell, id, upto: undefined } : undefined;
    }
    const room = Math.min(LONGEST, roomOf(one.origin.channel) - FRAME);
    const end = quotedEnd(text, room);
    const earlier = quoted(text).length > end.length ? `… (earlier: /opencode output ${one.job || one.id})\n` : "";
    return { text: `${one.name || one.id}:\n${earlier}${end}`, id, upto: one.heard };
  }

  /** @param {string} key @param {Followed} one */
  #giveUp(key, one) {
    this.#log.warn(`${one.id} is not followed any more: its chat cannot be told`);
    this.#end(key, one);
    this.#leave(
      one.origin,
      `What OpenCode's ${one.name || one.id} says cannot be sent into this chat, so it is not followed any more. It goes ` +
        "on, and its end is announced. (Tell the person; /opencode follow begins behind what they have seen.)",
    );
  }

  /** @param {string} key @param {number} number */
  #remember(key, number) {
    this.#seen.delete(key);
    this.#seen.set(key, number);
    for (const oldest of this.#seen.keys()) {
      if (this.#seen.size <= REMEMBERED) break;
      this.#seen.delete(oldest);
    }
  }

  /** What was heard and not told is told when the chat follows again. @param {string} key @param {Followed} one */
  #end(key, one) {
    clearTimeout(one.timer);
    one.timer = undefined;
    if (one.sending) this.#leaving.set(key, one.sending);
    this.#followed.delete(key);
    const { subscription } = one;
    one.subscription = "";
    if (subscription && !one.over) this.#unfollow(subscription);
  }

  /** @param {string} subscription */
  #unfollow(subscription) {
    this.#link.call("unfollow", { subscription }, { again: false }).catch(() => {}); // it is over already
  }
}

/**
 * @typedef {{text: string, todos: string[], job: string, place: Record<string, unknown>}} Heard
 * @param {Heard} one @param {any} told @returns {string} what waits, with this; in a session it is said which job speaks
 */
export function addedTo(one, told) {
  const { text } = one;
  const speaks = one.place.session_id && told.jobId && told.jobId !== one.job;
  const before = { text: speaks ? `${text}${!text || text.endsWith("\n") ? "" : "\n"}${told.jobId}:\n` : text, todos: one.todos };
  const whole = added(before, told);
  one.todos = before.todos;
  if (whole === before.text) return text;
  one.job = told.jobId ?? one.job;
  return whole;
}

/** @param {{text: string, todos: string[]}} one @param {any} told @returns {string} what waits, with this */
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

/** What is new in the list, one line for each. @param {{todos: string[]}} one @param {{content: string, status: string}[]} todos */
function changed(one, todos) {
  const now = todos.map(({ content, status }) => `${MARKS[status] ?? "[ ]"} ${oneLine(content)}`);
  const news = now.filter((line) => !one.todos.includes(line));
  one.todos = now;
  return news;
}

/** @type {Record<string, string>} */
const MARKS = { completed: "[x]", in_progress: "[>]", cancelled: "[-]" };

/** @param {import("./notify.js").Origin} origin @param {string} id */
function keyOf(origin, id) {
  return `${origin.session_key} ${id}`;
}
