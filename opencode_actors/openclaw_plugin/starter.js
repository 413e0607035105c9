// Starts the service when none runs. Never two: the service itself refuses a second one on its sessionsDir, so
// when two gateways start one at the same time, one child ends at once and both find the other's door.

import { spawn } from "node:child_process";
import { chmod, mkdir, open, rename, stat } from "node:fs/promises";
import { join } from "node:path";

import { findDoor } from "./door.js";
import { NotRunning } from "./errors.js";

const READY_WITHIN = 60_000; // ms; it looks after the containers of its last run before it listens
const OTHERS_DOOR_WITHIN = 10_000; // ms for the door of whoever was faster, once our own child has ended
const LOOK_EVERY = 100; // ms
const LONGEST_LOG = 5 << 20;
const TOLD_OF_LOG = 600; // characters
const FIRST_PAUSE = 5_000; // ms between two attempts that failed, doubled each time
const LONGEST_PAUSE = 300_000;

export class Starter {
  #config;
  #log;
  /** @type {Promise<void> | null} */
  #starting = null;
  #failures = 0;
  #notBefore = 0;
  #lastFailure = "";

  /** @param {import("./config.js").Config} config @param {{info(text: string): void}} log */
  constructor(config, log) {
    this.#config = config;
    this.#log = log;
  }

  /** Resolves once a service runs. A start that has just failed is not tried again at once. */
  start() {
    if (!this.#starting && Date.now() < this.#notBefore) return Promise.reject(new NotRunning(this.#lastFailure));
    this.#starting ??= this.#start()
      .then(() => {
        this.#failures = 0;
      })
      .catch((error) => {
        this.#notBefore = Date.now() + Math.min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** this.#failures++);
        this.#lastFailure = error.message;
        throw error;
      })
      .finally(() => {
        this.#starting = null;
      });
    return this.#starting;
  }

  async #start() {
    const { command, sessionsDir } = this.#config;
    await mkdir(sessionsDir, { recursive: true, mode: 0o700 });
    const file = join(sessionsDir, "serve.log");
    const begins = await makeRoom(file);
    const log = await open(file, "a", 0o600);
    try {
      await chmod(file, 0o600);
      // A process group of its own: what ends the gateway's must not end the jobs.
      const child = spawn(command[0], command.slice(1), { detached: true, stdio: ["ignore", log.fd, log.fd] });
      const ended = new Promise((resolve) => {
        child.once("error", (error) => resolve({ how: error.message, patience: 0 }));
        child.once("exit", (code, signal) => resolve({ how: signal ?? `exit ${code}`, patience: OTHERS_DOOR_WITHIN }));
      });
      child.unref();
      this.#log.info(`starting the opencode service: ${command.join(" ")} (log: ${file})`);
      await this.#untilFound(ended, file, begins);
    } finally {
      await log.close();
    }
  }

  /** @param {Promise<{how: string, patience: number}>} ended @param {string} file @param {number} begins */
  async #untilFound(ended, file, begins) {
    let until = Date.now() + READY_WITHIN;
    let end = "";
    void ended.then(({ how, patience }) => {
      end = how;
      until = Math.min(until, Date.now() + patience);
    });
    while (Date.now() < until) {
      try {
        await findDoor(this.#config);
        return;
      } catch (error) {
        if (!(error instanceof NotRunning)) throw error;
      }
      await new Promise((resolve) => setTimeout(resolve, LOOK_EVERY));
    }
    const said = await lastWords(file, begins);
    throw new NotRunning(
      `\`${this.#config.command.join(" ")}\` ${end ? `ended (${end})` : "does not listen"}` +
        `${said ? `, and said:\n${said}` : ""}\n` +
        `hint: run it in a terminal, correct what it says, or name it in plugins.entries.opencode.config.command`,
    );
  }
}

/** @param {string} file @returns {Promise<number>} where what is written from now on begins */
async function makeRoom(file) {
  const size = await stat(file).then(
    (found) => found.size,
    () => 0,
  );
  if (size <= LONGEST_LOG) return size;
  await rename(file, `${file}.1`);
  return 0;
}

/** @param {string} file @param {number} begins */
async function lastWords(file, begins) {
  const log = await open(file, "r");
  try {
    const { size } = await log.stat();
    const from = Math.max(begins, size - TOLD_OF_LOG);
    const { buffer, bytesRead } = await log.read(Buffer.alloc(TOLD_OF_LOG), 0, TOLD_OF_LOG, from);
    return buffer.toString("utf8", 0, bytesRead).trim();
  } finally {
    await log.close();
  }
}
