// The plugin's own options, out of `plugins.entries.opencode.config`; the rest of that object is the service's.

import { homedir } from "node:os";
import { join } from "node:path";

/**
 * @typedef {object} Config
 * @property {string} url where the service listens; empty: what its door.json says
 * @property {string} token empty: read from tokenFile
 * @property {string} tokenFile empty: what door.json says
 * @property {boolean} autoStart
 * @property {string[]} command starts the service
 * @property {string} sessionsDir the service's, where door.json stands
 */

/**
 * @param {Record<string, unknown> | undefined} raw with OpenClaw's defaults filled in, or not
 * @param {NodeJS.ProcessEnv} environment the service reads the same one, and it wins over the file there as well
 * @returns {Config}
 */
export function readConfig(raw, environment) {
  const given = raw ?? {};
  const command = given.command ?? ["opencode-actors", "serve"];
  const home = environment.HOME || homedir();
  const expanded = (/** @type {string} */ path) => (path.startsWith("~/") ? join(home, path.slice(2)) : path);
  return {
    url: text(given.url),
    token: text(given.token),
    tokenFile: expanded(text(given.tokenFile)),
    autoStart: given.autoStart !== false,
    command: Array.isArray(command) ? command.map(String) : [String(command)],
    sessionsDir: expanded(
      text(environment.OPENCODE_ACTORS_SESSIONS_DIR) || text(given.sessionsDir) || "~/.openclaw/opencode-sessions",
    ),
  };
}

/** @param {unknown} value */
function text(value) {
  return typeof value === "string" ? value.trim() : "";
}
