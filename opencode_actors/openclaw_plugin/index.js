// The plugin's entry. OpenClaw evaluates this module several times in one gateway process, as copies that share
// nothing but globalThis: one copy runs the service and the gateway's methods, another one the agents' tools and
// the chat command. Both must speak through one link, so it is kept there.

import { createHash } from "node:crypto";
import { hostname } from "node:os";

import { registerCommands } from "./commands.js";
import { readConfig } from "./config.js";
import { registerGatewayMethods } from "./gateway.js";
import { Follows } from "./follow.js";
import { Link } from "./link.js";
import { Notifier } from "./notify.js";
import { personOf, routeOf } from "./person.js";
import { registerTools } from "./tools.js";

const SHARED = Symbol.for("opencode-actors.openclaw-plugin.link.1");

/** @type {{[SHARED]?: Link}} */
const process_ = /** @type {any} */ (globalThis);

const PRESENT_FOR = 5_000; // ms in which a person who has written need not be told of again
const CHATS = 1_000;

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
    hearPeople(api, () => process_[SHARED]);
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
      const person = personOf(api);
      const own = new Notifier(queueOf(api), person);
      const leave = (/** @type {import("./notify.js").Origin} */ origin, /** @type {string} */ text) => own.leave(origin, text);
      const follows = (link.follows = new Follows(link, person, context.logger, { leave }));
      link.person = person;
      process_[SHARED] = kept = link;
      notifier = own;
      link.keep({
        name: nameOf(context.stateDir),
        onDeliver: (delivery) => own.deliver(delivery),
        onNotice: (told) => follows.heard(told),
        onUp: () => {
          context.serviceHealth?.clearFailure();
          follows.reconnected();
        },
        onDown: (why) => context.serviceHealth?.reportFailure(new Error(why)),
      });
    },
    stop() {
      notifier?.stop();
      kept?.follows?.stop();
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
 * Whoever writes in a chat is there: its agent may be woken again by what its jobs ask. An agent's own turns are no
 * messages. Nothing is started for it, and a chat that is talkative is told of now and then.
 * @param {any} api @param {() => Link | undefined} link
 */
function hearPeople(api, link) {
  /** @type {Map<string, number>} */
  const told = new Map();
  api.on?.("message_received", (/** @type {any} */ event, /** @type {any} */ context) => {
    const sessionKey = context?.sessionKey ?? event?.sessionKey;
    const open = link();
    if (!sessionKey || !open?.isUp || Date.now() - (told.get(sessionKey) ?? 0) < PRESENT_FOR) return;
    if (told.size >= CHATS) told.clear();
    told.set(sessionKey, Date.now());
    open.call("present", { origin: { session_key: sessionKey } }).catch(() => {}); // the next message tells it again
  });
}
