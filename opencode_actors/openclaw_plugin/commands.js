// `/opencode …` in a chat, answered without the model.

import { randomUUID } from "node:crypto";

import { answerTo, rejectionOf } from "./answers.js";
import { Refused, textOfError } from "./errors.js";
import { chatTextOf, parts, roomOf } from "./format.js";
import { originOf, perform } from "./operations.js";
import { HELP, VERBS, firstWord, parse } from "./parse.js";

const CHAT_PAGE = 3_000; // bytes: a chat message is short

/** @param {any} api of OpenClaw @param {() => import("./link.js").Link} link */
export function registerCommands(api, link) {
  api.registerCommand({
    name: "opencode",
    description: `OpenCode jobs: ${Object.keys(VERBS).join(", ")}`,
    acceptsArgs: true,
    requireAuth: true,
    /** @param {any} context */
    async handler(context) {
      return { text: await sentUpToItsEnd(link(), context, await textFor(link(), context)) };
    },
  });
}

/** @param {import("./link.js").Link} link @param {any} context @returns {Promise<string>} */
async function textFor(link, context) {
  const parsed = parse(context.args ?? "");
  if ("wrong" in parsed) return parsed.wrong ? `${parsed.wrong}\n\n${usageOf(context.args)}` : HELP;
  try {
    return await run(link, parsed, context);
  } catch (error) {
    return textOfRefusal(error, context.args);
  }
}

/** @param {string} text as it was typed */
function usageOf(text) {
  const head = `/opencode ${firstWord(text.trim())[0].toLowerCase()} `;
  const lines = HELP.split("\n").filter((line) => `${line} `.startsWith(head));
  return [...lines, "/opencode help lists everything."].join("\n");
}

/** A page of the documentation is no help on a phone. @param {unknown} error @param {string} text as it was typed */
function textOfRefusal(error, text) {
  const aboutParams = error instanceof Refused && String(error.data.hint ?? "").startsWith("docs/");
  return aboutParams ? `${error.message.split("\nhint: ")[0]}\n\n${usageOf(text)}` : textOfError(error);
}

/**
 * A command is answered by one message. What is longer than the channel takes goes before it in messages of its own, or
 * is left to OpenClaw where there is no way to send them.
 * @param {import("./link.js").Link} link @param {any} context @param {string} text @returns {Promise<string>} the end
 */
async function sentUpToItsEnd({ person }, { sessionKey, agentId, channel }, text) {
  const origin = originOf({ sessionKey, agentId, channel, by: "person" });
  if (!person || !origin.session_key || !channel || channel === "webchat") return text; // which takes any length
  const messages = parts(text, roomOf(channel));
  const id = randomUUID();
  for (let sent = 0; sent < messages.length - 1; sent++) {
    const told = await person.tell(origin, messages[sent], `reply:${id}:${sent}`).catch(() => false);
    if (!told) return messages.slice(sent).join("\n");
  }
  return messages[messages.length - 1];
}

/** @param {import("./link.js").Link} link @param {import("./parse.js").Asked} asked @param {any} context */
async function run(link, { operation, params }, { sessionKey, agentId, channel }) {
  const caller = { sessionKey, agentId, channel, by: /** @type {const} */ ("person") };
  const origin = originOf(caller);
  if (origin.session_key) link.call("present", { origin }).catch(() => {}); // an answer or a start says it again
  if (operation === "follow" || operation === "background") return following(link, operation, origin, params);
  if (operation === "answer" || operation === "reject") {
    const status = await perform(link, "status", { job_id: params.job_id }, caller);
    const answer = operation === "answer" ? answerTo(status, String(params.answer)) : rejectionOf(status, String(params.message));
    return chatTextOf("answer", await perform(link, "answer", answer, caller));
  }
  const asked =
    operation === "output"
      ? { ...params, limit: Math.min(CHAT_PAGE, roomOf(channel)) }
      : operation === "notify"
        ? placeOf(params, channel)
        : params;
  return chatTextOf(operation, await perform(link, operation, asked, caller));
}

/** @param {import("./link.js").Link} link @param {string} operation @param {import("./notify.js").Origin} origin @param {any} params */
async function following({ follows }, operation, origin, { job_id, session_id }) {
  if (!follows || !origin.session_key) throw new Error("only a chat of a running gateway can follow a job");
  if (operation === "background") return follows.background(origin, job_id);
  return await (session_id ? follows.followSession(origin, session_id) : follows.follow(origin, job_id));
}

/** Without a place nothing is changed, and what is told in this chat's channel is shown. @param {any} params @param {string | undefined} channel */
function placeOf({ here, ...params }, channel) {
  if (here && !channel) throw new Error("this chat has no channel");
  return params.job_id || !channel ? params : { ...params, channel };
}
