// Finding the service: by the config, or by the files that it leaves in its sessionsDir.

import { readFile } from "node:fs/promises";
import { join } from "node:path";

import { NotRunning, TurnedAway } from "./errors.js";

export const PROTOCOL = 1;

/** @typedef {{url: string, token: string}} Door */

/**
 * @param {import("./config.js").Config} config
 * @returns {Promise<Door>} throws NotRunning when nothing says that a service runs
 */
export async function findDoor(config) {
  const file = join(config.sessionsDir, "door.json");
  if (config.url) return { url: config.url, token: await tokenOf(config, join(config.sessionsDir, "door.token")) };
  const written = await readDoor(file);
  if (!written) {
    throw new NotRunning(`no opencode service runs (there is no ${file}): start it with \`opencode-actors serve\``);
  }
  if (!isAlive(written.pid)) {
    throw new NotRunning(
      `the opencode service ended without a word (process ${written.pid} of ${file} is gone): ` +
        "start it again with `opencode-actors serve`",
    );
  }
  if (written.protocol !== PROTOCOL) {
    throw new NotRunning(
      `the opencode service speaks version ${written.protocol} of the protocol and this plugin version ${PROTOCOL}: ` +
        "install the plugin of the same release (`opencode-actors plugin install`)",
    );
  }
  return { url: written.url, token: await tokenOf(config, written.tokenFile) };
}

/**
 * Whether a service was there and has not taken its leave: it was killed, or the machine went down.
 * @param {import("./config.js").Config} config
 */
export async function endedWithoutAWord(config) {
  const written = await readDoor(join(config.sessionsDir, "door.json"));
  return written !== null && !isAlive(written.pid);
}

/**
 * @param {string} file
 * @returns {Promise<{url: string, tokenFile: string, pid: number, protocol: number} | null>}
 */
async function readDoor(file) {
  let text;
  try {
    text = await readFile(file, "utf8");
  } catch (error) {
    if (error?.code === "ENOENT") return null;
    throw new TurnedAway(`${file} cannot be read: ${error?.message}`);
  }
  try {
    const { url, tokenFile, pid, protocol } = JSON.parse(text);
    if (typeof url === "string" && typeof tokenFile === "string" && Number.isInteger(pid)) {
      return { url, tokenFile, pid, protocol };
    }
  } catch {
    // said below, together with what is not the expected object
  }
  throw new TurnedAway(`${file} is not what a service writes: remove it and start the service again`);
}

/** @param {import("./config.js").Config} config @param {string} file */
async function tokenOf(config, file) {
  if (config.token) return config.token;
  const named = config.tokenFile || file;
  try {
    return (await readFile(named, "utf8")).trim();
  } catch (error) {
    throw new TurnedAway(`the opencode service's token cannot be read: ${error?.message}`);
  }
}

/** @param {number} pid */
function isAlive(pid) {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return error?.code === "EPERM";
  }
}
