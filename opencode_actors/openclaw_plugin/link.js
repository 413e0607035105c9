// The one connection to the service. Whoever calls waits for it, up to a deadline; what is lost with it is asked
// again where asking twice is the same as asking once.

import { endedWithoutAWord, findDoor } from "./door.js";
import { NotRunning, Refused, TurnedAway, Unreachable, textOfError } from "./errors.js";
import { whyRefused } from "./refusal.js";
import { Starter } from "./starter.js";

const OPEN_WITHIN = 10_000; // ms for the upgrade
const CALL_WITHIN = 30_000;
const FIRST_DELAY = 250; // ms before the first reconnect, doubled each time
const LONGEST_DELAY = 10_000;
const DELAY_AFTER_REPLACED = 60_000; // somebody else attends under our name; two that replace each other never rest
const MOST_IN_FLIGHT = 60; // the service answers "busy" beyond 64 of one connection
const MOST_WAITING = 500;
const LINGERS = 1_000; // ms that a connection which nobody keeps stays open after its last answer
const ASK_FOR_LIFE_EVERY = 30_000; // a process that is stopped keeps its connections open
const RECENTLY = 60_000; // ms in which a service that is gone is taken for one that restarts
const REPLACED = 4001;

/**
 * @param {number} attempt from 0
 * @param {number} chance from 0 to 1
 * @returns {number} ms: half of the delay is certain, so that a service which has just started is not stormed
 */
export function delayBefore(attempt, chance) {
  const whole = Math.min(LONGEST_DELAY, FIRST_DELAY * 2 ** attempt);
  return whole / 2 + (whole / 2) * chance;
}

/**
 * @typedef {object} Keeper what a link that stays up tells
 * @property {string} name under which it attends
 * @property {(delivery: Delivery) => Promise<void>} onDeliver resolves when it may be acknowledged
 * @property {(told: any) => void} onNotice what a subscription brings, and its end, which has no `kind`
 * @property {() => void} onUp
 * @property {(why: string) => void} onDown
 *
 * @typedef {object} Delivery
 * @property {string} id
 * @property {string} kind
 * @property {"agent" | "person"} [to]
 * @property {string} jobId
 * @property {string} sessionKey
 * @property {string} name
 * @property {{session_key: string, agent_id: string, channel: string}} origin
 * @property {string} text
 */

export class Link {
  #config;
  #log;
  #WebSocket;
  #starter;
  /** @type {WebSocket | null} */
  #socket = null;
  /** @type {Promise<WebSocket> | null} */
  #opening = null;
  /** @type {Map<number, {socket: WebSocket, resolve: (result: any) => void, reject: (error: Error) => void}>} */
  #asked = new Map();
  /** @type {(() => void)[]} */
  #queue = [];
  #inFlight = 0;
  #waiting = 0;
  #lastId = 0;
  /** @type {Keeper | null} */
  #keeper = null;
  #attempts = 0;
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #timer;
  /** @type {ReturnType<typeof setInterval> | undefined} */
  #pulse;
  #lastAlive = 0;
  #closed = false;

  /**
   * @param {import("./config.js").Config} config
   * @param {{info(text: string): void, warn(text: string): void}} log
   * @param {{WebSocket?: typeof WebSocket, starter?: {start(): Promise<void>}}} [parts]
   */
  constructor(config, log, parts = {}) {
    this.#config = config;
    this.#log = log;
    this.#WebSocket = parts.WebSocket ?? globalThis.WebSocket;
    this.#starter = parts.starter ?? new Starter(config, log);
  }

  /** @type {import("./follow.js").Follows | undefined} what chats follow over it */
  follows;

  /** @type {import("./person.js").Person | undefined} of a chat, where a gateway runs */
  person;

  /** @type {Set<(told: any) => void>} who hears each notice of a subscription, and its end, beside the keeper */
  ears = new Set();

  get isUp() {
    return this.#socket?.readyState === 1;
  }

  get isKept() {
    return this.#keeper !== null;
  }

  /** From now on it connects by itself, attends to notices and comes back after a loss. @param {Keeper} keeper */
  keep(keeper) {
    this.#keeper = keeper;
    this.#pulse = setInterval(() => void this.#askForLife(), ASK_FOR_LIFE_EVERY);
    this.#pulse.unref?.();
    if (this.#socket) void this.#attend(this.#socket);
    else this.#reconnect({ mayStart: true });
  }

  /** Ends the connection; whoever waits is told. The jobs go on. */
  close() {
    this.#closed = true;
    this.#keeper = null;
    clearTimeout(this.#timer);
    clearInterval(this.#pulse);
    this.#socket?.close(1000);
    this.#forget(this.#socket, new Unreachable("the OpenClaw gateway is stopping; the jobs go on"));
    this.#socket = null;
  }

  /**
   * @param {string} method
   * @param {object} params
   * @param {{within?: number, again?: boolean}} [options] `again`: asking twice is the same as asking once
   * @returns {Promise<any>} throws Refused, NotRunning or Unreachable
   */
  async call(method, params, { within = CALL_WITHIN, again = true } = {}) {
    if (this.#waiting >= MOST_WAITING) {
      throw new Unreachable(`${MOST_WAITING} calls wait for the opencode service already: try again later`);
    }
    this.#waiting++;
    const deadline = Date.now() + within;
    try {
      for (let attempt = 0; ; attempt++) {
        try {
          return await this.#callOnce(method, params, deadline);
        } catch (error) {
          const pause = delayBefore(attempt, Math.random());
          if (!this.#mayAskAgain(error, again) || Date.now() + pause >= deadline) throw error;
          await new Promise((resolve) => setTimeout(resolve, pause));
        }
      }
    } finally {
      this.#waiting--;
      this.#closeIfIdle();
    }
  }

  /** @param {unknown} error @param {boolean} again */
  #mayAskAgain(error, again) {
    if (this.#closed) return false;
    const neverSent = error instanceof NotRunning || (error instanceof Unreachable && error.neverSent);
    if (neverSent) return Date.now() - this.#lastAlive < RECENTLY;
    return error instanceof Unreachable && again;
  }

  /** @param {string} method @param {object} params @param {number} deadline */
  async #callOnce(method, params, deadline) {
    const socket = await by(deadline, this.#open({ mayStart: true }), new Unreachable(`${AWAY}: it takes too long to connect`, { neverSent: true }));
    while (this.#inFlight >= MOST_IN_FLIGHT) await this.#waitForPlace(deadline);
    this.#inFlight++;
    try {
      return await this.#ask(socket, method, params, deadline);
    } finally {
      this.#inFlight--;
      this.#queue.shift()?.();
    }
  }

  /** @param {number} deadline @returns {Promise<void>} */
  #waitForPlace(deadline) {
    return new Promise((resolve, reject) => {
      const called = () => {
        clearTimeout(timer);
        resolve();
      };
      const timer = setTimeout(() => {
        this.#queue.splice(this.#queue.indexOf(called), 1);
        reject(new Unreachable(`${AWAY}: it answers nothing of what it was asked before`, { neverSent: true }));
      }, deadline - Date.now());
      this.#queue.push(called);
    });
  }

  /** @param {WebSocket} socket @param {string} method @param {object} params @param {number} [deadline] */
  #ask(socket, method, params, deadline = Date.now() + CALL_WITHIN) {
    const id = ++this.#lastId;
    /** @type {Promise<any>} */
    const answer = new Promise((resolve, reject) => {
      this.#asked.set(id, { socket, resolve, reject });
      if (socket.readyState === 1) socket.send(JSON.stringify({ jsonrpc: "2.0", id, method, params }));
      else reject(new Unreachable(LOST));
    });
    return by(deadline, answer, new Unreachable("the opencode service does not answer")).finally(() => this.#asked.delete(id));
  }

  // ---- the connection

  /** @param {{mayStart: boolean}} options @returns {Promise<WebSocket>} */
  #open(options) {
    if (this.#closed) return Promise.reject(new Unreachable("the OpenClaw gateway is stopping"));
    if (this.#socket?.readyState === 1) return Promise.resolve(this.#socket);
    this.#opening ??= this.#openOnce(options).finally(() => {
      this.#opening = null;
    });
    return this.#opening;
  }

  /** @param {{mayStart: boolean}} options */
  async #openOnce({ mayStart }) {
    clearTimeout(this.#timer);
    try {
      const socket = await this.#connect(await this.#find(mayStart));
      if (this.#closed) throw new Unreachable("the OpenClaw gateway is stopping");
      this.#socket = socket;
      this.#lastAlive = Date.now();
      if (this.#keeper) void this.#attend(socket);
      return socket;
    } catch (error) {
      this.#keeper?.onDown(textOfError(error));
      this.#scheduleReconnect(FIRST_DELAY);
      throw error;
    }
  }

  /** @param {boolean} mayStart */
  async #find(mayStart) {
    try {
      return await findDoor(this.#config);
    } catch (error) {
      if (!(error instanceof NotRunning) || !mayStart || !this.#config.autoStart) throw error;
    }
    await this.#starter.start();
    return findDoor(this.#config);
  }

  /** @param {import("./door.js").Door} door @returns {Promise<WebSocket>} */
  async #connect(door) {
    try {
      return await this.#openSocket(door);
    } catch {
      const { why, turnedAway } = await whyRefused(door);
      const text = `${AWAY} at ${door.url}: ${why}`;
      throw turnedAway ? new TurnedAway(text) : new Unreachable(text, { neverSent: true });
    }
  }

  /** @param {import("./door.js").Door} door @returns {Promise<WebSocket>} */
  #openSocket({ url, token }) {
    return new Promise((resolve, reject) => {
      // Node's own takes headers beside the protocols; a browser's could not be told the token this way.
      const socket = new this.#WebSocket(url, /** @type {any} */ ({ headers: { authorization: `Bearer ${token}` } }));
      const timer = setTimeout(() => socket.close(), OPEN_WITHIN);
      socket.onopen = () => {
        clearTimeout(timer);
        resolve(socket);
      };
      socket.onmessage = (event) => this.#receive(socket, String(event.data));
      socket.onclose = (event) => {
        clearTimeout(timer);
        reject(new Error("closed"));
        this.#lost(socket, event);
      };
    });
  }

  /** @param {WebSocket} socket @param {{code: number, reason: string}} event */
  #lost(socket, event) {
    this.#forget(socket, new Unreachable(LOST));
    if (this.#socket !== socket) return;
    this.#socket = null;
    if (!this.#keeper) return;
    const replaced = event.code === REPLACED;
    this.#keeper.onDown(
      replaced
        ? "another gateway attends to the notices under the same name"
        : `the connection to the opencode service was lost (${event.code}${event.reason ? `, ${event.reason}` : ""})`,
    );
    this.#scheduleReconnect(replaced ? DELAY_AFTER_REPLACED : 0);
  }

  /** @param {WebSocket | null} socket @param {Error} error */
  #forget(socket, error) {
    for (const asked of [...this.#asked.values()]) if (asked.socket === socket) asked.reject(error);
  }

  /** @param {number} atLeast ms */
  #scheduleReconnect(atLeast) {
    if (!this.#keeper || this.#closed) return;
    const delay = Math.max(atLeast, delayBefore(this.#attempts++, Math.random()));
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => void this.#comeBack(), delay);
    this.#timer.unref?.();
  }

  /** One that was stopped on purpose stays so until somebody needs it; one that was killed is started again. */
  async #comeBack() {
    const killed = await endedWithoutAWord(this.#config).catch(() => false);
    this.#reconnect({ mayStart: killed });
  }

  /** @param {{mayStart: boolean}} options */
  #reconnect(options) {
    this.#open(options).catch((error) => {
      if (this.#attempts <= 1) this.#log.warn(textOfError(error)); // once, and not with each further attempt
    });
  }

  #closeIfIdle() {
    if (this.#keeper || this.#waiting > 0 || this.ears.size) return;
    const timer = setTimeout(() => {
      if (!this.#keeper && this.#waiting === 0 && !this.ears.size) this.#socket?.close(1000);
    }, LINGERS);
    timer.unref?.();
  }

  // ---- what comes from the service

  /** @param {WebSocket} socket @param {string} text */
  #receive(socket, text) {
    this.#lastAlive = Date.now();
    let message;
    try {
      message = JSON.parse(text);
    } catch {
      this.#log.warn("the opencode service sent what is not JSON");
      return;
    }
    for (const one of Array.isArray(message) ? message : [message]) this.#hear(socket, one);
  }

  /** @param {WebSocket} socket @param {any} message */
  #hear(socket, message) {
    if (message?.method === "deliver") return void this.#deliver(socket, message.params);
    if (message?.method === "notice" || message?.method === "followEnded") {
      for (const ear of [...this.ears]) ear(message.params);
      return void this.#keeper?.onNotice(message.params);
    }
    const asked = this.#asked.get(message?.id);
    if (!asked) return; // its caller did not wait that long
    if (message.error) asked.reject(new Refused(message.error));
    else asked.resolve(message.result);
  }

  /** @param {WebSocket} socket @param {Delivery} delivery */
  async #deliver(socket, delivery) {
    try {
      await this.#keeper?.onDeliver(delivery);
      if (!this.#keeper) return; // stopped meanwhile: it is delivered again, or by webhook
      await this.#ask(socket, "ack", { id: delivery.id });
    } catch (error) {
      this.#log.warn(`a notice of job ${delivery?.jobId} could not be passed on: ${textOfError(error)}`);
    }
  }

  /** @param {WebSocket} socket */
  async #attend(socket) {
    const keeper = this.#keeper;
    if (!keeper) return;
    try {
      await this.#ask(socket, "attend", { name: keeper.name });
      this.#attempts = 0;
      keeper.onUp();
    } catch (error) {
      keeper.onDown(`notices do not come: ${textOfError(error)}`);
      if (!(error instanceof Refused)) socket.close(); // what was refused once is refused again; the tools work
    }
  }

  async #askForLife() {
    const socket = this.#socket;
    if (!socket || Date.now() - this.#lastAlive < ASK_FOR_LIFE_EVERY) return;
    try {
      await this.#ask(socket, "ping", {});
    } catch (error) {
      if (error instanceof Refused) return; // it lives
      this.#keeper?.onDown(textOfError(error));
      socket.close();
    }
  }
}

const AWAY = "the opencode service cannot be reached";
const LOST = "the connection to the opencode service was lost before it answered";

/** @param {number} deadline @param {Promise<any>} promise @param {Error} late what is thrown then */
async function by(deadline, promise, late) {
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  let timer;
  const never = new Promise((_, reject) => {
    timer = setTimeout(() => reject(late), Math.max(0, deadline - Date.now()));
  });
  try {
    return await Promise.race([promise, never]);
  } finally {
    clearTimeout(timer);
  }
}
