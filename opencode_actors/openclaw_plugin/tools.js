// The tools that OpenClaw's agents see. Their names and parameters are those of earlier OpenCode plugins.

import { PAGE, textOf } from "./format.js";
import { perform } from "./operations.js";

const jobId = { type: "string", description: "The job's id or name, or its session's name" };
const sessionId = { type: "string", description: "The session's name" };
const either = { type: "string", description: "A session's name, or a job's name or id: that job's session" };

/** Notices that can be switched: the service's, held to them by a test. */
export const KINDS = ["completed", "failed", "cancelled", "limit", "waiting", "answered", "running", "report", "started", "text", "tool", "all"];

/** What a start and a follow-up have in common. No unions in these schemas: some model providers refuse them. */
const startOptions = {
  name: { type: "string", description: "What people call this job; it stands for its id. One line", maxLength: 80 },
  model: { type: "string", description: "provider/model; default: as configured" },
  agent: { type: "string", description: "The OpenCode agent that answers, for example build or plan" },
  system: { type: "string", description: "Added to the agent's system prompt" },
  permission_mode: {
    type: "string",
    enum: ["allow", "ask", "plan", "default"],
    description: "What it may do in this session from now on: all, what a person allows, only read; default: as configured",
  },
  permission_rules: {
    type: "array",
    items: { type: "string" },
    description: "Before the mode, the last match holds; each TOOL:PATTERN=ACTION, for example bash:git push*=deny",
  },
  max_cost_usd: {
    type: "number",
    description: "Dollars; a job that has cost more is ended, and fails of its budget. Default: no bound",
    exclusiveMinimum: 0,
  },
  image: { type: "string", description: "Another container image for the session; only when the person names one" },
  timeout: { type: "number", description: "Seconds for the whole job; default: no bound", exclusiveMinimum: 0 },
  report_every: {
    type: "number",
    description: "Seconds after which the person is told how far it is, again and again; 0: never",
    minimum: 0,
  },
};

/**
 * @typedef {object} Description
 * @property {string} operation
 * @property {string} label
 * @property {string} description
 * @property {string[]} [required]
 * @property {Record<string, object>} properties
 */

/** @type {Record<string, Description>} */
export const TOOLS = {
  opencode_start: {
    operation: "start",
    label: "OpenCode: start",
    description:
      "Gives a coding task to an OpenCode agent, which works on it in a container of its own, with its own " +
      "workspace, shell and network. Returns at once with the job's id; you are told in this session when the job " +
      "ends, fails or asks something. Do not wait or poll. With session_id it goes on in that session: same " +
      "files, same conversation.",
    required: ["prompt"],
    properties: {
      prompt: { type: "string", description: "The whole task: the agent sees nothing of this conversation" },
      session_id: { ...sessionId, description: "Go on with this session, or begin it; default: a new one" },
      ...startOptions,
    },
  },
  opencode_status: {
    operation: "status",
    label: "OpenCode: status",
    description:
      "How a job is: status, activity, todos, cost, the end of its output, what it asks (pending), and the cause " +
      "when it failed. Only when somebody wants to know: its end and its questions are announced by themselves.",
    required: ["job_id"],
    properties: { job_id: jobId, session_id: sessionId },
  },
  opencode_output: {
    operation: "output",
    label: "OpenCode: output",
    description:
      `A job's output, also while it runs, in pages of at most ${PAGE} bytes. The last line says which part it is ` +
      "and the offset of the next page.",
    required: ["job_id"],
    properties: {
      job_id: jobId,
      session_id: sessionId,
      offset: { type: "integer", description: "Byte at which to begin; default 0", minimum: 0 },
      limit: { type: "integer", description: `Bytes; at most ${PAGE} in one answer`, minimum: 1 },
    },
  },
  opencode_follow: {
    operation: "follow",
    label: "OpenCode: follow",
    description:
      "What a job, or all jobs of a session, say and do: first what is new since a number, and where nothing is, the next " +
      "that comes within a while. Only to watch one closely: its end and its questions are announced by themselves.",
    properties: {
      job_id: jobId,
      session_id: { ...sessionId, description: "All jobs of this session, instead of one job" },
      since: { type: "integer", description: "As the answer before says; default: a job's beginning, a session's now", minimum: 0 },
      wait: { type: "number", description: "Seconds to wait for something new; default 30", minimum: 0, maximum: 60 },
    },
  },
  opencode_cancel: {
    operation: "cancel",
    label: "OpenCode: cancel",
    description: "Ends a job and everything that it runs. Answers when it has ended, which may take half a minute.",
    required: ["job_id"],
    properties: { job_id: jobId, session_id: sessionId },
  },
  opencode_cleanup: {
    operation: "cleanup",
    label: "OpenCode: clean up",
    description: "Ends idle sessions and their containers; never one that works. Files stay unless asked otherwise.",
    properties: {
      delete_workspaces: {
        type: "boolean",
        description: "Also delete files, of all sessions that are not kept, also long ended ones: ask the person first",
      },
      delete_data: {
        type: "boolean",
        description: "Also delete the conversations of all those sessions: ask the person first",
      },
      older_than: { type: "number", description: "Seconds; keep what was used within them. Default: only what works is kept", minimum: 0 },
    },
  },
  opencode_sessions: {
    operation: "sessions",
    label: "OpenCode: sessions",
    description:
      "All sessions: age, last activity, messages, health, the job that they work on, their workspace. With all, also " +
      "those that have ended and can be resumed.",
    properties: { all: { type: "boolean", description: "Also those that have ended" } },
  },
  opencode_close: {
    operation: "close",
    label: "OpenCode: close",
    description:
      "Ends one session and its container, also with jobs at work, which fail: ask the person first when there are any. " +
      "Files and conversation stay, and opencode_resume goes on with them.",
    required: ["session_id"],
    properties: { session_id: either },
  },
  opencode_reset: {
    operation: "reset",
    label: "OpenCode: reset",
    description: "Lets a session work again that is given up or quarantined, once its cause is mended.",
    required: ["session_id"],
    properties: { session_id: either },
  },
  opencode_info: {
    operation: "info",
    label: "OpenCode: the service",
    description: "The service itself: version, engine, image, sessions and jobs, limits.",
    properties: {},
  },
  opencode_attach: {
    operation: "attach",
    label: "OpenCode: attach",
    description:
      "A session on an OpenCode server that somebody else runs; only when the person names the server. Its jobs run " +
      "there, in that server's files; nothing there is ever stopped but what a job of this session does.",
    required: ["name", "url"],
    properties: {
      name: { type: "string", description: "What the session is called: the session_id of its jobs" },
      url: { type: "string", description: "http:// or https://, without a password in it" },
      user: { type: "string", description: "Whom the server lets in, unless it is opencode" },
      password_env: { type: "string", description: "The NAME of the service's environment variable with the password" },
      password_file: { type: "string", description: "The PATH of the file with the password; never the password itself" },
      directory: { type: "string", description: "Where it works, an absolute path on that machine" },
      conversation: { type: "string", description: "Go on with this conversation, from opencode_conversations" },
    },
  },
  opencode_detach: {
    operation: "detach",
    label: "OpenCode: detach",
    description: "Forgets a session that was attached. Nothing on its server is touched.",
    required: ["session_id"],
    properties: { session_id: sessionId },
  },
  opencode_conversations: {
    operation: "conversations",
    label: "OpenCode: conversations",
    description: "The conversations that a session's server has, newest first: title, directory, whether one is at work.",
    required: ["session_id"],
    properties: { session_id: sessionId },
  },
  opencode_agents: {
    operation: "agents",
    label: "OpenCode: agents",
    description: "The agents that a start may name.",
    properties: { session_id: { ...sessionId, description: "Of this session's server; default: of any container" } },
  },
  opencode_models: {
    operation: "models",
    label: "OpenCode: models",
    description: "The models that a start may name, as provider/model. There may be hundreds: narrow it with match.",
    properties: {
      session_id: { ...sessionId, description: "Of this session's server; default: of any container" },
      match: { type: "string", description: "Only those with this word in their name" },
    },
  },
  opencode_answer: {
    operation: "answer",
    label: "OpenCode: answer",
    description:
      "Answers what a job asks (in a notice, or pending in opencode_status). A question: answers. A permission: reply. What a " +
      "person should decide is not yours to answer: ask them first.",
    required: ["job_id", "request_id"],
    properties: {
      job_id: jobId,
      request_id: { type: "string", description: "As the notice names it, or pending[].requestId" },
      answers: {
        type: "array",
        items: { type: "string" },
        description: "For a question: one answer for each of its questions, in order",
      },
      choices: {
        type: "array",
        items: { type: "array", items: { type: "string" } },
        description: "Instead of answers where a question takes several choices: for each of the questions the list of those chosen",
      },
      reply: { type: "string", enum: ["once", "always", "reject"], description: "For a permission" },
      message: { type: "string", description: "With a refusal: what to do instead" },
      reject: { type: "boolean", description: "Refuse to answer a question" },
    },
  },
  opencode_respond: {
    operation: "respond",
    label: "OpenCode: follow up",
    description:
      "A further prompt in a session: same files, same conversation. Give session_id or job_id. A session that has " +
      "ended starts again; behind a running job it is queued, or with interrupt it ends that job's turn and goes " +
      "first. Returns as opencode_start does.",
    required: ["message"],
    properties: {
      message: { type: "string" },
      session_id: either,
      job_id: jobId,
      interrupt: {
        type: "boolean",
        description: "End the turn that runs, keeping what it said, and send this now; to correct or redirect it",
      },
      ...startOptions,
    },
  },
  opencode_fork: {
    operation: "fork",
    label: "OpenCode: fork",
    description:
      "Branches a session: a new one that knows the whole conversation and has a copy of all files, to try another way. " +
      "The first one stays as it is; what a job of it is doing right now is left out of the conversation. With a " +
      "message, a job begins in the new one at once.",
    required: ["session_id"],
    properties: {
      session_id: either,
      message: { type: "string" },
      ...startOptions,
      name: { type: "string", description: "What the new session is called: letters, digits and . _ : -", maxLength: 64 },
    },
  },
  opencode_resume: {
    operation: "resume",
    label: "OpenCode: resume",
    description:
      "Goes on with a session that has ended, also weeks ago: same files, same conversation. Without a message it " +
      "finishes what it was at. Refused while a job of it is under way: then opencode_respond. Returns as " +
      "opencode_start does.",
    required: ["session_id"],
    properties: { session_id: either, message: { type: "string" }, ...startOptions },
  },
  opencode_requests: {
    operation: "requests",
    label: "OpenCode: open questions",
    description: "What all jobs ask and wait to be answered (opencode_answer): questions and permissions.",
    properties: {},
  },
  opencode_statistics: {
    operation: "statistics",
    label: "OpenCode: statistics",
    description: "What the jobs of the last days came to: cost by day, mean duration, outcomes, models, the most expensive.",
    properties: { days: { type: "integer", description: "So many, with today; default 7", minimum: 1, maximum: 3660 } },
  },
  opencode_notify: {
    operation: "notify",
    label: "OpenCode: notices",
    description:
      "Which notices of jobs come to the chat: shows them, and switches them for a job's session or for a channel. " +
      "Only when the person wants it so.",
    properties: {
      session_id: { ...sessionId, description: "Of the jobs of this session" },
      job_id: { ...jobId, description: "Of the jobs of this one's session" },
      channel: { type: "string", description: "To all chats of this channel, for example telegram" },
      on: { type: "array", items: { type: "string", enum: KINDS }, description: "These are told from now on" },
      off: { type: "array", items: { type: "string", enum: KINDS }, description: "These are not" },
      reset: { type: "array", items: { type: "string", enum: KINDS }, description: "These are as the settings say" },
    },
  },
};

/** What a caller of a tool may not say of itself. */
const OURS = ["key", "origin", "by"];

/** @param {any} api of OpenClaw @param {() => import("./link.js").Link} link */
export function registerTools(api, link) {
  for (const [name, description] of Object.entries(TOOLS)) {
    api.registerTool((/** @type {any} */ context) => toolOf(name, description, link, context), { name });
  }
}

/** @param {string} name @param {Description} described @param {() => import("./link.js").Link} link @param {any} context */
function toolOf(name, { operation, label, description, required = [], properties }, link, context) {
  return {
    name,
    label,
    description,
    catalogMode: "direct-only", // otherwise a model with OpenClaw's tool search finds one line of it, if it searches
    parameters: { type: "object", additionalProperties: false, required, properties },
    /** @param {string} callId @param {Record<string, unknown>} params @param {AbortSignal} [signal] */
    async execute(callId, params, signal) {
      const asked = operation === "output" ? onePage(params) : operation === "answer" ? chosen(params) : withoutOurs(params);
      const result = await perform(link(), operation, asked, callerOf(context, callId), signal);
      return { content: [{ type: "text", text: textOf(operation, result) }], details: detailsOf(result) };
    },
  };
}

/** @param {Record<string, unknown>} params */
function withoutOurs(params) {
  return Object.fromEntries(Object.entries(params ?? {}).filter(([key]) => !OURS.includes(key)));
}

/** @param {Record<string, unknown>} params */
function onePage(params) {
  const limit = params?.limit;
  return { ...withoutOurs(params), limit: typeof limit === "number" ? Math.min(limit, PAGE) : PAGE };
}

/** A schema for one parameter that is a list of texts or of lists is a union, so there are two. @param {Record<string, unknown>} params */
function chosen(params) {
  const { choices, ...rest } = withoutOurs(params);
  return choices === undefined ? rest : { ...rest, answers: choices };
}

/** @param {any} context @param {string} callId @returns {import("./operations.js").Caller} */
function callerOf(context, callId) {
  return {
    sessionKey: context.sessionKey,
    agentId: context.agentId,
    channel: context.messageChannel ?? context.deliveryContext?.channel,
    sessionId: context.sessionId,
    callId,
    by: /** @type {const} */ ("agent"),
  };
}

/** Small, for OpenClaw repeats them in the text where its tool search is on. @param {any} result */
function detailsOf(result) {
  const { jobId, sessionKey, status, nextOffset, hasMore } = result ?? {};
  return Object.fromEntries(
    Object.entries({ jobId, sessionKey, status, nextOffset, hasMore }).filter(([, value]) => value !== undefined),
  );
}
