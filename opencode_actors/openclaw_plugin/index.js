// The plugin's entry. OpenClaw evaluates this module several times in one gateway process, as copies that share
// nothing but globalThis: one copy runs the service and the gateway's methods, another one the agents' tools and
// the chat command. Both must speak through one link, so it is kept there.

import { createHash } from "node:crypto";
import { hostname } from "node:os";

import { registerCommands } from "./commands.js";
import { readConfig } from "./config.js";
import { registerGatewayMethods } from "./gateway.js";
import { Link } from "./link.js";
import { Notifier } from "./notify.js";
import { registerTools } from "./tools.js";

const SHARED = Symbol.for("opencode-actors.openclaw-plugin.link.1");

/** @type {{[SHARED]?: Link}} */
const process_ = /** @type {any} */ (globalThis);

/** Modes in which OpenClaw only looks at what there is, without a runtime. */
const ONLY_LOOKING = new Set(["cli-metadata", "setup-only"]);

export default {
  id: "opencode",
  name: "OpenCode",
  description: "Delegates work to OpenCode agents in containers, supervised by opencode-actors",

  /** @param {any} api of OpenClaw */
  register(api) {
    if (ONLY_LOOKING.has(api.registrationMode)) return;
    const config = readConfig(api.pluginConfig, process.env);
    const link = () => (process_[SHARED] ??= new Link(config, api.logger));
    registerTools(api, link);
    registerCommands(api, link);
    registerGatewayMethods(api, link);
    api.registerService(serviceOf(api, config));
  },
};

/** The one that keeps the link up, and brings the notices. Runs in the gateway only. @param {any} api @param {import("./config.js").Config} config */
function serviceOf(api, config) {
  /** @type {Notifier | undefined} */
  let notifier;
  /** @type {Link | undefined} */
  let kept;
  return {
    id: "opencode-link",
    /** Waits for nothing: the gateway's start waits for it. @param {any} context */
    start(context) {
      process_[SHARED]?.close(); // a tool may have been faster, with the config of before
      const link = new Link(config, context.logger);
      const own = new Notifier(queueOf(api));
      process_[SHARED] = kept = link;
      notifier = own;
      link.keep({
        name: nameOf(context.stateDir),
        onDeliver: (delivery) => own.deliver(delivery),
        onUp: () => context.serviceHealth?.clearFailure(),
        onDown: (why) => context.serviceHealth?.reportFailure(new Error(why)),
      });
    },
    stop() {
      notifier?.stop();
      kept?.close();
      if (process_[SHARED] === kept) delete process_[SHARED];
    },
  };
}

/** The same after a restart of this gateway, another one for each other gateway. @param {string} stateDir */
function nameOf(stateDir) {
  const place = createHash("sha256").update(`${hostname()}:${stateDir}`).digest("hex").slice(0, 12);
  return `openclaw-${place}`;
}

/** @param {any} api @returns {import("./notify.js").Queue} */
function queueOf(api) {
  const { system, agent } = api.runtime;
  /** @type {import("./notify.js").Queue} */
  const queue = {
    enqueueSystemEvent: (text, options) => system.enqueueSystemEvent(text, options),
    requestHeartbeat: (options) => system.requestHeartbeat(options),
    peek: null,
    routeOf: (origin) => routeOf(agent, origin),
  };
  import("openclaw/plugin-sdk/system-event-runtime").then(
    (sdk) => {
      queue.peek = sdk.peekSystemEventEntries ?? null;
    },
    () => api.logger.warn("this OpenClaw does not show its queue of system events: notices are acknowledged at once"),
  );
  return queue;
}

/**
 * Where the session's person is, so that the agent's word on a job goes to the chat it was asked for in; without
 * it OpenClaw sends it to its owner's direct chat. A session of the gateway's own chat has no such place.
 * @param {any} agent @param {{session_key: string, agent_id: string}} origin
 */
function routeOf(agent, { session_key: sessionKey, agent_id: agentId }) {
  const entry = agent?.session?.getSessionEntry?.({ sessionKey, ...(agentId ? { agentId } : {}) });
  const route = entry?.deliveryContext;
  return route?.channel && route.to && route.channel !== "webchat" ? route : undefined;
}
