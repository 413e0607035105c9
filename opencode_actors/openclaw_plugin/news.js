// What is new of a job or a session, in one answer: for whoever cannot be told as it happens, as a tool's call or a
// method of the gateway. First what was missed; where nothing was, the next that comes within a while.

import { Refused } from "./errors.js";
import { addedTo } from "./follow.js";
import { PAGE } from "./format.js";

const WAITS = 30; // seconds; a tool's call of OpenClaw should not take much longer
const WAITS_AT_MOST = 60;
const QUIET = 250; // ms without another notice: what was missed comes at once
const EARLY = 500;

/**
 * @param {import("./link.js").Link} link
 * @param {Record<string, unknown>} params `wait` in seconds; the rest is the service's own
 * @param {AbortSignal} [signal]
 * @returns {Promise<{text: string, since: number | undefined, over: boolean, missed: number}>} `since` begins the next call
 */
export async function newsOf(link, { wait = WAITS, ...place }, signal) {
  if (typeof wait !== "number" || !(wait >= 0 && wait <= WAITS_AT_MOST)) {
    throw new Refused({ code: -32602, message: `wait must be a number of seconds, at most ${WAITS_AT_MOST}`, data: {} });
  }
  const hearing = new Hearing(place);
  let following = "";
  link.ears.add(hearing.ear);
  try {
    const { subscription, seq } = await link.call("follow", place, { again: false });
    following = subscription;
    hearing.since ??= seq;
    hearing.know(subscription);
    await hearing.until(wait * 1_000 || QUIET, signal);
  } finally {
    link.ears.delete(hearing.ear);
    if (following && !hearing.over) link.call("unfollow", { subscription: following }, { again: false }).catch(() => {}); // it is over already
  }
  return { text: hearing.text, since: hearing.since, over: hearing.over, missed: hearing.missed };
}

/** What one subscription has told, up to a page. */
class Hearing {
  text = "";
  todos = /** @type {string[]} */ ([]);
  job = "";
  over = false;
  missed = 0;
  #full = false;
  #subscription = "";
  /** @type {any[]} */
  #early = [];
  #changed = () => {};

  /** @param {Record<string, unknown>} place what is followed, and since when */
  constructor(place) {
    this.place = place;
    this.since = typeof place.since === "number" ? place.since : undefined;
  }

  ear = (/** @type {any} */ told) => {
    if (!this.#subscription) {
      if (this.#early.length < EARLY) this.#early.push(told);
    } else if (told.subscription === this.#subscription && !this.#full) this.#hear(told);
  };

  /** @param {string} subscription */
  know(subscription) {
    this.#subscription = subscription;
    for (const told of this.#early.splice(0)) this.ear(told);
  }

  /** @param {any} told */
  #hear(told) {
    if (told.kind === undefined) this.over = true;
    else {
      const text = addedTo(this, told);
      // What does not fit any more is the next call's, but for one that is larger than a page.
      if (text.length > PAGE && this.text) this.#full = true;
      else {
        this.text = text.slice(-PAGE);
        if (typeof told.seq === "number") this.since = told.seq;
        if (told.kind === "missed") this.missed += told.count ?? 0;
      }
    }
    this.#changed();
  }

  /** The end, a page, a moment of quiet behind something new, or the end of the wait. @param {number} wait ms @param {AbortSignal} [signal] @returns {Promise<void>} */
  until(wait, signal) {
    return new Promise((resolve, reject) => {
      /** @type {ReturnType<typeof setTimeout> | undefined} */
      let quiet;
      const end = () => {
        clearTimeout(quiet);
        clearTimeout(late);
        signal?.removeEventListener("abort", stop);
        this.#changed = () => {};
        resolve();
      };
      const stop = () => {
        reject(signal?.reason);
        end();
      };
      const late = setTimeout(end, wait);
      this.#changed = () => {
        if (this.over || this.#full) return end();
        clearTimeout(quiet);
        if (this.text) quiet = setTimeout(end, QUIET);
      };
      signal?.addEventListener("abort", stop, { once: true });
      this.#changed();
    });
  }
}
