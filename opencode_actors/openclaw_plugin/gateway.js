// `opencode.start`, `opencode.status` … as methods of OpenClaw's gateway, for its clients and its command line.

import { Refused, textOfError } from "./errors.js";
import { OPERATIONS, perform } from "./operations.js";

const READING = new Set(["info", "follow", "status", "output", "sessions", "requests", "statistics", "conversations", "agents", "models"]);

/** @param {any} api of OpenClaw @param {() => import("./link.js").Link} link */
export function registerGatewayMethods(api, link) {
  for (const name of Object.keys(OPERATIONS)) {
    const scope = READING.has(name) ? "operator.read" : "operator.write";
    api.registerGatewayMethod(`opencode.${name}`, methodOf(name, link), { scope });
  }
}

/** @param {string} name @param {() => import("./link.js").Link} link */
function methodOf(name, link) {
  return async (/** @type {any} */ { params, respond }) => {
    try {
      const { origin, ...rest } = params ?? {};
      const caller = { sessionKey: origin?.session_key, agentId: origin?.agent_id, channel: origin?.channel, by: /** @type {const} */ ("person") };
      respond(true, await perform(link(), name, rest, caller));
    } catch (error) {
      const code = error instanceof Refused && error.code === -32602 ? "INVALID_REQUEST" : "UNAVAILABLE";
      const details = error instanceof Refused ? { code: error.code, ...error.data } : {};
      respond(false, undefined, { code, message: textOfError(error), details });
    }
  };
}
