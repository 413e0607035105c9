// `/opencode …` in a chat, answered without the model.

import { textOfError } from "./errors.js";
import { chatTextOf } from "./format.js";
import { originOf, perform } from "./operations.js";

export const HELP = `/opencode start [--name NAME] [--session KEY] [--model PROVIDER/MODEL] [--agent NAME] [--image IMAGE] [--max-cost-usd USD] [--report-every SECONDS] [--mode allow|ask|plan] [--rule "TOOL:PATTERN=allow|ask|deny"] PROMPT
/opencode status [JOB]            its id, its name or its session's; without a job: all sessions
/opencode output JOB [OFFSET]
/opencode respond SESSION PROMPT  a follow-up: same files, same conversation
/opencode interrupt SESSION PROMPT  the same, at once: the running turn ends for it
/opencode resume SESSION [PROMPT] go on with one that has ended
/opencode fork [--name NAME] SESSION [PROMPT]  a new session with its conversation and a copy of its files
/opencode answer JOB ANSWER       what it asks; a permission: once, always or reject
/opencode reject JOB [WHY]        no to what it asks
/opencode requests                what all jobs ask
/opencode follow JOB              shows what it says, also what was missed
/opencode background [JOB]        ends that; the job goes on
/opencode cancel JOB
/opencode sessions [--all]         with --all those that have ended, too
/opencode statistics [DAYS]       cost, time, outcomes
/opencode notify [JOB|channel] [+KIND] [-KIND] [=KIND]   what this chat is told; = as the settings say
/opencode attach NAME URL [--password-env VARIABLE | --password-file PATH] [--directory PATH] [--conversation ID]
                                  a session on a server that somebody else runs
/opencode detach SESSION          forget it; nothing there is touched
/opencode conversations SESSION   those of its server
/opencode agents [SESSION]
/opencode models [SESSION] [--match WORD]
/opencode cleanup [--delete-workspaces]`;

/** @typedef {{operation: string, params: Record<string, unknown>} | {wrong: string}} Parsed */

/** Flags of a start, and the parameter that each one is. @type {Record<string, string>} */
const FLAGS = {
  session: "session_id",
  name: "name",
  model: "model",
  mode: "permission_mode",
  rule: "permission_rules",
  agent: "agent",
  image: "image",
  "max-cost-usd": "max_cost_usd",
  "report-every": "report_every",
};

/** Of these the value is a number above 0, of this. @type {Record<string, string>} */
const NUMBERS = { max_cost_usd: "a bound is an amount of dollars", report_every: "reports come after a number of seconds" };

/** @type {Record<string, string>} */
const ATTACH_FLAGS = {
  "password-env": "password_env",
  "password-file": "password_file",
  directory: "directory",
  conversation: "conversation",
};

/** @type {Record<string, string>} */
const MODEL_FLAGS = { match: "match", session: "session_id" };

/** @param {string} text what stands behind `/opencode` @returns {Parsed} */
export function parse(text) {
  const [verb, rest] = firstWord(text.trim());
  switch (verb) {
    case "start":
      return parseStart(rest);
    case "respond":
    case "interrupt":
      return needing(firstWord(rest), "a session and a prompt", (session_id, message) => ({
        operation: "respond",
        params: { session_id, message, ...(verb === "interrupt" ? { interrupt: true } : {}) },
      }));
    case "resume": {
      const [session_id, message] = firstWord(rest);
      if (!session_id) return { wrong: "resume needs a session" };
      return { operation: "resume", params: message ? { session_id, message } : { session_id } };
    }
    case "fork":
      return parseFork(rest);
    case "answer":
      return needing(firstWord(rest), "a job and an answer", (job_id, answer) => ({
        operation: "answer",
        params: { job_id, answer },
      }));
    case "reject":
      return rejection(firstWord(rest));
    case "requests":
      return rest ? { wrong: "requests takes nothing else" } : { operation: "requests", params: {} };
    case "follow":
      return rest ? { operation: "follow", params: { job_id: unquoted(rest) } } : { wrong: "follow needs a job" };
    case "background":
      return { operation: "background", params: rest ? { job_id: unquoted(rest) } : {} };
    case "statistics":
      return /^[1-9]\d{0,3}$/.test(rest || "7")
        ? { operation: "statistics", params: rest ? { days: Number(rest) } : {} }
        : { wrong: `statistics takes a number of days, not ${rest}` };
    case "notify":
      return parseNotify(rest);
    case "status":
      return rest ? { operation: "status", params: { job_id: unquoted(rest) } } : { operation: "sessions", params: {} };
    case "output":
      return parseOutput(rest);
    case "cancel":
      return rest ? { operation: "cancel", params: { job_id: unquoted(rest) } } : { wrong: "cancel needs a job" };
    case "sessions":
      if (rest && rest !== "--all") return { wrong: `sessions takes --all, not ${rest}` };
      return { operation: "sessions", params: rest ? { all: true } : {} };
    case "attach":
      return parseAttach(rest);
    case "detach":
    case "conversations":
      return rest ? { operation: verb, params: { session_id: unquoted(rest) } } : { wrong: `${verb} needs a session` };
    case "agents":
      return { operation: "agents", params: rest ? { session_id: unquoted(rest) } : {} };
    case "models": {
      const flags = flagsOf(rest, MODEL_FLAGS, "models");
      if ("wrong" in flags) return flags;
      return { operation: "models", params: { ...flags.params, ...(flags.rest ? { session_id: unquoted(flags.rest) } : {}) } };
    }
    case "cleanup":
      if (rest && rest !== "--delete-workspaces") return { wrong: `cleanup takes --delete-workspaces, not ${rest}` };
      return { operation: "cleanup", params: rest ? { delete_workspaces: true } : {} };
    case "":
    case "help":
      return { wrong: "" };
    default:
      return { wrong: `there is no "${verb}"` };
  }
}

/** @param {[string, string]} words @returns {Parsed} */
function rejection([job_id, message]) {
  return job_id ? { operation: "reject", params: { job_id, message } } : { wrong: "reject needs a job" };
}

/** @type {Record<string, string>} */
const SWITCHES = { "+": "on", "-": "off", "=": "reset" };

/** @param {string} text @returns {Parsed} */
function parseNotify(text) {
  /** @type {Record<string, any>} */
  const params = {};
  let [word, rest] = firstWord(text);
  if (word && !SWITCHES[word[0]]) {
    params[word === "channel" ? "channel" : "job_id"] = word;
    [word, rest] = firstWord(rest);
  }
  for (; word; [word, rest] = firstWord(rest)) {
    const list = SWITCHES[word[0]];
    if (!list || word.length < 2) return { wrong: `write +KIND, -KIND or =KIND, not ${word}` };
    params[list] = [...(params[list] ?? []), word.slice(1)];
  }
  return { operation: "notify", params };
}

const FLAG = /^--([a-z-]+)(?:=|\s+)(?:"([^"\n]*)"|(\S+))\s*/;

/** @param {string} text @returns {Parsed} */
function parseStart(text) {
  const flags = flagsOf(text, FLAGS, "start");
  if ("wrong" in flags) return flags;
  return flags.rest
    ? { operation: "start", params: { ...flags.params, prompt: flags.rest } }
    : { wrong: "start needs a prompt" };
}

/** @param {string} text @returns {Parsed} */
function parseAttach(text) {
  const [name, afterName] = firstWord(text);
  const [url, afterUrl] = firstWord(afterName);
  if (!name || !url) return { wrong: "attach needs a name and the server's URL" };
  const flags = flagsOf(afterUrl, ATTACH_FLAGS, "attach");
  if ("wrong" in flags) return flags;
  if (flags.rest) return { wrong: `attach does not know what ${firstWord(flags.rest)[0]} is` };
  return { operation: "attach", params: { name, url, ...flags.params } };
}

/**
 * @param {string} text @param {Record<string, string>} known @param {string} verb
 * @returns {{params: Record<string, unknown>, rest: string} | {wrong: string}}
 */
function flagsOf(text, known, verb) {
  /** @type {Record<string, unknown>} */
  const params = {};
  let rest = text;
  for (let flag = FLAG.exec(rest); flag; flag = FLAG.exec(rest)) {
    const name = known[flag[1]];
    if (!name) return { wrong: `${verb} knows no --${flag[1]}` };
    const value = flag[2] ?? flag[3];
    if (NUMBERS[name] && !(Number(value) > 0)) return { wrong: `${NUMBERS[name]}, not ${value}` };
    if (name === "permission_rules") params[name] = [...(/** @type {string[]} */ (params[name] ?? [])), value];
    else params[name] = NUMBERS[name] ? Number(value) : value;
    rest = rest.slice(flag[0].length);
  }
  return { params, rest };
}

/** @param {string} text @returns {Parsed} */
function parseFork(text) {
  const flag = FLAG.exec(text);
  if (flag && flag[1] !== "name") return { wrong: `fork knows no --${flag[1]}` };
  const name = flag ? { name: flag[2] ?? flag[3] } : {};
  const [session_id, message] = firstWord(text.slice(flag ? flag[0].length : 0));
  if (!session_id) return { wrong: "fork needs a session" };
  return { operation: "fork", params: { session_id, ...name, ...(message ? { message } : {}) } };
}

/** @param {string} text @returns {Parsed} */
function parseOutput(text) {
  const [job_id, offset] = firstWord(text);
  if (!job_id) return { wrong: "output needs a job" };
  if (!offset) return { operation: "output", params: { job_id } };
  if (!/^\d+$/.test(offset)) return { wrong: `an offset is a number of bytes, not ${offset}` };
  return { operation: "output", params: { job_id, offset: Number(offset) } };
}

/**
 * @param {[string, string]} words @param {string} what
 * @param {(first: string, rest: string) => Parsed} make
 * @returns {Parsed}
 */
function needing([first, rest], what, make) {
  return first && rest ? make(first, rest) : { wrong: `needs ${what}` };
}

/** A name of several words stands in quotes. @param {string} text @returns {[string, string]} */
function firstWord(text) {
  const [, quoted, word, rest] = /^(?:"([^"\n]+)"|(\S*))\s*([\s\S]*)$/.exec(text) ?? ["", "", "", ""];
  return [quoted ?? word, rest.trim()];
}

/** @param {string} text */
function unquoted(text) {
  return /^"([^"\n]+)"$/.exec(text)?.[1] ?? text;
}

const CHAT_PAGE = 3_000; // bytes: a chat message is short

/** @param {any} api of OpenClaw @param {() => import("./link.js").Link} link */
export function registerCommands(api, link) {
  api.registerCommand({
    name: "opencode",
    description: "OpenCode jobs: start, status, output, respond, interrupt, resume, fork, answer, follow, requests, statistics, notify, cancel, sessions, attach, models, cleanup",
    acceptsArgs: true,
    requireAuth: true,
    /** @param {any} context */
    async handler(context) {
      const parsed = parse(context.args ?? "");
      if ("wrong" in parsed) return { text: parsed.wrong ? `${parsed.wrong}\n\n${HELP}` : HELP };
      try {
        return { text: await run(link(), parsed, context) };
      } catch (error) {
        return { text: textOfError(error) };
      }
    },
  });
}

/** @param {import("./link.js").Link} link @param {{operation: string, params: any}} parsed @param {any} context */
async function run(link, { operation, params }, { sessionKey, agentId, channel }) {
  const caller = { sessionKey, agentId, channel, by: /** @type {const} */ ("person") };
  const origin = originOf(caller);
  if (origin.session_key) link.call("present", { origin }).catch(() => {}); // an answer or a start says it again
  if (operation === "follow" || operation === "background") return following(link, operation, origin, params.job_id);
  if (operation === "reject") {
    const status = await perform(link, "status", { job_id: params.job_id }, caller);
    await perform(link, "answer", rejectionOf(status, params.message), caller);
    return "Done.";
  }
  const asked =
    operation === "answer"
      ? answerTo(await perform(link, "status", { job_id: params.job_id }, caller), params.answer)
      : operation === "output"
        ? { ...params, limit: CHAT_PAGE }
        : operation === "notify"
          ? placeOf(params, channel)
          : params;
  return chatTextOf(operation, await perform(link, operation, asked, caller));
}

/** @param {import("./link.js").Link} link @param {string} operation @param {import("./notify.js").Origin} origin @param {string} job */
async function following(link, operation, origin, job) {
  const { follows } = link;
  if (!follows || !origin.session_key) throw new Error("only a chat of a running gateway can follow a job");
  return operation === "follow" ? await follows.follow(origin, job) : follows.background(origin, job);
}

/** Without a place it is this chat's channel. @param {any} params @param {string | undefined} channel */
function placeOf(params, channel) {
  const { channel: named, ...rest } = params;
  if (rest.job_id || !channel) {
    if (named && !channel) throw new Error("this chat has no channel");
    return rest;
  }
  return { ...rest, channel };
}

/** @param {any} status of the job @param {string} text what is asked, by its id, and why not */
function rejectionOf({ jobId, pending = [] }, text) {
  const [first, rest] = firstWord(text);
  const named = pending.find((/** @type {any} */ asked) => asked.requestId === first);
  const asked = named ?? pending[0];
  if (!asked) throw new Error(`${jobId} asks nothing at the moment`);
  const message = named ? rest : text;
  return { job_id: jobId, request_id: asked.requestId, reply: "reject", ...(message ? { message } : {}) };
}

/**
 * A person names the job and says the answer: which request it is for is seen from what the job asks.
 * @param {any} status of the job @param {string} text
 */
export function answerTo({ jobId, pending = [] }, text) {
  const [first, rest] = firstWord(text);
  const named = pending.find((/** @type {any} */ asked) => asked.requestId === first);
  const [asked, answer] = named ? [named, rest] : [pending[0], text];
  if (!asked) throw new Error(`${jobId} asks nothing at the moment`);
  if (!named && pending.length > 1) {
    const ids = pending.map((/** @type {any} */ one) => `${one.requestId}: ${one.text}`).join("\n");
    throw new Error(`${jobId} asks more than one thing; put the id before the answer:\n${ids}`);
  }
  const request = { job_id: jobId, request_id: asked.requestId };
  if (asked.kind !== "permission") return { ...request, answers: [answer] };
  if (!["once", "always", "reject"].includes(answer)) {
    throw new Error("a permission is answered with once, always or reject");
  }
  return { ...request, reply: answer };
}
