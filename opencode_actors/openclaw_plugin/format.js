// Results as text, for a model and for a person. OpenClaw cuts a tool's result without being asked: at 16,000
// characters for most models, 32,000 for large ones; what is longer is given in pages.

export const PAGE = 15_000; // bytes of output in one answer; characters are never more than bytes
const LONGEST_TEXT = 15_500;
const LONGEST_LINE = 200;

/** Characters that a message may have, as the service counts them for what it tells. @type {Record<string, number>} */
export const SIZES = { discord: 2_000, irc: 400, sms: 600, line: 2_000 };
export const SIZE = 3_500; // of any other channel
const MOST_PARTS = 10; // a channel is not flooded

/** What ends a line somewhere, as Python's splitlines has it: a chat may show each of them as a new line. */
const LINE_ENDS = /\r\n|[\n\r\v\f\x1c-\x1e\x85\u2028\u2029]/;

/** What a job wrote stands behind `>` in each line, so that none of it can pass for a word of ours. @param {string} text */
export function quoted(text) {
  return String(text)
    .trim()
    .split(LINE_ENDS)
    .map((line) => `> ${line}`)
    .join("\n");
}

/** What a job wrote, where it stands within a line of ours. @param {unknown} text @param {number} [longest] */
export function oneLine(text, longest = LONGEST_LINE) {
  const words = String(text ?? "").replaceAll(/[\s\x1c-\x1e\x85]+/g, " ").trim();
  return words.length <= longest ? words : `${words.slice(0, longest - 1)}…`;
}

/** Characters in one message of this channel. @param {string | undefined} channel */
export function roomOf(channel) {
  return SIZES[channel ?? ""] ?? SIZE;
}

/** @param {string} text @param {number} room @returns {string[]} messages, cut between lines where that can be */
export function parts(text, room) {
  /** @type {string[]} */
  const messages = [];
  let message = "";
  for (const line of cut(text, Math.floor(room * MOST_PARTS * 0.8)).split("\n").flatMap((line) => pieces(line, room))) {
    if (message && message.length + 1 + line.length > room) {
      messages.push(message);
      message = line;
    } else message += `${message ? "\n" : ""}${line}`;
  }
  return [...messages, message];
}

/** A line that is quoted stays so in each of its pieces. @param {string} line @param {number} room */
function pieces(line, room) {
  const mark = line.startsWith("> ") ? "> " : "";
  const found = [line.slice(0, room)];
  for (let at = room; at < line.length; at += room - mark.length) found.push(`${mark}${line.slice(at, at + room - mark.length)}`);
  return found;
}

/** The end of what a job said, quoted, as much as has room. @param {string} text @param {number} room */
export function quotedEnd(text, room) {
  const lines = quoted(text.trim().slice(-room)).split("\n");
  let length = lines.reduce((sum, line) => sum + line.length + 1, -1);
  while (lines.length > 1 && length > room) length -= /** @type {string} */ (lines.shift()).length + 1;
  const end = lines.join("\n");
  return end.length <= room ? end : `> ${end.slice(end.length - room + 2)}`;
}

/**
 * @param {string} operation
 * @param {any} result
 * @returns {string} for a model
 */
export function textOf(operation, result) {
  switch (operation) {
    case "output":
      return pageOf(result);
    case "sessions":
      return listOf("sessions", result.sessions ?? []);
    case "requests":
      return listOf("open requests", result.requests ?? []);
    case "cleanup":
      return cut(JSON.stringify(result, null, 1));
    case "conversations":
      return listOf(`conversations of ${result.sessionKey}`, result.conversations ?? []);
    case "agents":
      return listOf(`agents of ${result.sessionKey}`, result.agents ?? []);
    case "models":
      return listOf(`models of ${result.sessionKey}`, result.models ?? []);
    case "start":
    case "respond":
    case "resume":
      return `${JSON.stringify(result)}\nYou will be told in this session when it ends or asks something: do not poll.`;
    case "follow":
      return newsText(result);
    default:
      return cut(JSON.stringify(result, null, 1));
  }
}

/** @param {{text: string, since: number | undefined, over: boolean, missed: number}} news */
function newsText({ text, since, over }) {
  const next = over ? "it is over: nothing more comes" : `go on with since ${since ?? 0}`;
  return `${text}${text.endsWith("\n") || !text ? "" : "\n"}[${text ? "" : "nothing new; "}${next}]`;
}

/** @param {string} operation @param {any} result @returns {string} for a person in a chat */
export function chatTextOf(operation, result) {
  switch (operation) {
    case "start":
    case "respond":
    case "resume":
      return `${result.name || result.jobId} is ${result.status} in session ${result.sessionKey}${ahead(result.ahead)}.`;
    case "fork":
      return forkText(result);
    case "status":
    case "cancel":
      return statusText(result);
    case "output":
      return pageOf({ ...result, text: result.text ? quoted(result.text) : "" });
    case "sessions":
      return cut((result.sessions ?? []).map(sessionText).join("\n")) || "There are no sessions.";
    case "cleanup":
      return cleanupText(result);
    case "requests":
      return requestsText(result.requests ?? []);
    case "statistics":
      return statisticsText(result);
    case "notify":
      return notifyText(result);
    case "attach":
      return attachText(result);
    case "close":
      return `${result.sessionKey} has ended. Its files and its conversation stay; /opencode resume goes on with it.`;
    case "reset":
      return sessionText(result);
    case "info":
      return infoText(result);
    case "detach":
      return `${result.sessionKey} is detached from ${result.server}. Nothing there was touched.`;
    case "conversations":
      return few(result.conversations ?? [], conversationText, "There are no conversations.");
    case "agents":
      return few(result.agents ?? [], agentText, "There are no agents.");
    case "models":
      return few(result.models ?? [], modelText, "There are no models like that.");
    default:
      return "Done.";
  }
}

/** @param {any} result */
function forkText({ sessionKey, forkedFrom, copied, files, leftOut, job }) {
  const copy = copied ? `, with a copy of its ${copied} (${files} ${files === 1 ? "file" : "files"})` : ": it was forked before";
  const lines = [`${sessionKey} goes on from where ${forkedFrom} is${copy}.`];
  if (leftOut) lines.push(`Left out: what ${leftOut} is doing right now.`);
  if (job) lines.push(`${job.name || job.jobId} is ${job.status} in it.`);
  return lines.join("\n");
}

/** @param {any} page */
function pageOf({ jobId, text, offset, nextOffset, hasMore, outputSize, status }) {
  const where = `bytes ${offset} to ${nextOffset} of ${outputSize} of ${jobId}, which is ${status}`;
  const rest = hasMore ? `; more: offset ${nextOffset}` : status === "running" ? "; nothing more yet" : "; the end";
  return `${text}${text.endsWith("\n") || !text ? "" : "\n"}[${where}${rest}]`;
}

/** @param {string} name @param {object[]} items as many as fit, and how many more there are */
function listOf(name, items) {
  const shown = [];
  let length = 0;
  for (const item of items) {
    const line = JSON.stringify(item);
    length += line.length + 1;
    if (length > LONGEST_TEXT - 200) break;
    shown.push(line);
  }
  const left = items.length - shown.length;
  return `${items.length} ${name}\n${shown.join("\n")}${left ? `\n(${left} more are not shown here)` : ""}`;
}

/** @param {any} status */
function statusText(status) {
  const name = status.name ? ` (${status.name})` : "";
  const lines = [`${status.jobId}${name} in session ${status.sessionKey}: ${doing(status)}`];
  if (status.interruptedBy) lines.push(`interrupted: ${status.interruptedBy} goes first`);
  if (status.error) lines.push(errorText(status.error));
  if (status.hint) lines.push(`hint: ${status.hint}`);
  if (status.todoTotal) lines.push(`${status.todoDone} of ${status.todoTotal} todos done`);
  for (const asked of status.pending ?? []) lines.push(askedText(asked));
  const cost = costText(status);
  if (cost) lines.push(cost);
  if (status.tailOutput) lines.push("", quoted(status.tailOutput));
  return cut(lines.join("\n"));
}

/** What stands behind its first line may be of a log, and that of the job. @param {string} error */
function errorText(error) {
  const [first, ...rest] = error.trim().split(LINE_ENDS);
  return rest.length ? `${first}\n${quoted(rest.join("\n"))}` : first;
}

/** @param {any} asked */
function askedText({ requestId, text, options = [], questions = 1, waitingSeconds }) {
  const since = waitingSeconds === undefined ? "" : `, for ${duration(waitingSeconds)}`;
  const lines = [`asks (${requestId}${since})${questions > 1 ? `, ${questions} questions, one line of the answer for each` : ""}:`, quoted(text)];
  for (const option of options) lines.push(`- ${oneLine(option)}`);
  return lines.join("\n");
}

/** @param {any} status */
function costText({ costUsd, costKnown = true, maxCostUsd }) {
  const unheld = maxCostUsd ? `, so its bound of $${maxCostUsd.toFixed(4)} does not hold` : "";
  const spent = costUsd ? `$${costUsd.toFixed(4)}` : "";
  if (costKnown) return spent;
  return spent ? `at least ${spent} (a model without a price was used${unheld})` : `cost unknown (no price is known${unheld})`;
}

/** @param {any} status */
function doing(status) {
  const state = status.cancelling ? "cancelling" : status.status;
  const activity = status.status === "running" && status.activityState ? `, ${status.activityState}` : "";
  return `${state}${activity}, ${duration(status.elapsedSeconds)}, ${status.outputSize ?? 0} bytes of output`;
}

const SHOWN = 20; // lines of a list that a phone shows

/** @param {any[]} items @param {(item: any) => string} line @param {string} nothing */
function few(items, line, nothing) {
  if (!items.length) return nothing;
  const lines = items.slice(0, SHOWN).map(line);
  if (items.length > SHOWN) lines.push(`and ${items.length - SHOWN} more`);
  return lines.join("\n");
}

/** @param {any} result */
function attachText({ sessionKey, server, version, directory, conversation, notes = [] }) {
  const where = directory ? `, in ${directory}` : "";
  const which = conversation ? `conversation ${conversation}` : "a new conversation, with its first job";
  const lines = [`${sessionKey} is attached to ${server} (OpenCode ${version})${where}: ${which}.`];
  for (const note of notes) lines.push(`note: ${note}`);
  return lines.join("\n");
}

/** @param {any} one */
function conversationText({ conversation, title, directory, state, ours }) {
  const more = [state === "idle" ? "" : state, ours ? "this session's" : ""].filter(Boolean).join(", ");
  return `${conversation}: ${oneLine(title)} (${oneLine(directory)})${more ? `, ${more}` : ""}`;
}

/** @param {any} one */
function agentText({ name, description }) {
  return description ? `${name}: ${oneLine(description, 100)}` : name;
}

/** @param {any} one */
function modelText({ name, title, priced }) {
  return `${name}${title ? `: ${oneLine(title)}` : ""}${priced ? "" : " (no price known)"}`;
}

/** @param {any} session */
function sessionText(session) {
  const active = session.activeJob ? `, works on ${session.activeJob}` : "";
  const jobs = session.jobs === undefined ? "" : `, ${session.jobs} ${session.jobs === 1 ? "job" : "jobs"}`;
  const seconds = session.lastActivitySecondsAgo ?? undefined;
  const name = session.name ? ` (${session.name})` : "";
  const lost = session.resumable === false ? ", its conversation is not kept" : "";
  const where = session.server ? ` on ${session.server}` : "";
  return `${session.sessionKey}${name}: ${session.status}${where}${lost}${active}${jobs}${seconds === undefined ? "" : `, last active ${duration(seconds)} ago`}`;
}

/** @param {any} result */
function infoText({ service, version, pid, startedAt, engine = {}, image, sessions, jobs }) {
  const since = typeof startedAt === "number" ? `, for ${duration(Date.now() / 1_000 - startedAt)}` : "";
  return `${service} ${version} (process ${pid}${since}): ${sessions} sessions, ${jobs} jobs; image ${image}, by ${engine.kind} ${engine.version}`;
}

/** @param {any} result */
function cleanupText({ ended = [], kept = [], deletedWorkspaces = [], forgottenSessions = [], forgottenJobs = 0 }) {
  const lines = [`${ended.length} ended, ${kept.length} kept`];
  for (const one of kept) lines.push(`kept ${one.sessionKey}: ${one.reason}`);
  if (deletedWorkspaces.length) lines.push(`deleted: ${deletedWorkspaces.join(", ")}`);
  for (const one of forgottenSessions) lines.push(`forgotten: ${one.sessionKey}, with its conversation`);
  if (forgottenJobs) lines.push(`${forgottenJobs} ended jobs are forgotten`);
  return cut(lines.join("\n"));
}

/** @param {any[]} requests */
function requestsText(requests) {
  if (!requests.length) return "No job asks anything.";
  const lines = requests.map((one) => `${one.name ?? one.jobId} ${askedText(one)}`);
  return cut(`${lines.join("\n")}\n/opencode answer JOB ANSWER, or /opencode reject JOB`);
}

/** @param {any} result */
function statisticsText({ days, jobs, byDay = [], byOutcome = [], byModel = [], mostExpensive = [], ...whole }) {
  const span = days === 1 ? "today" : `in ${days} days`;
  if (!jobs) return `No job has ended ${span}.`;
  const lines = [`${jobs} ${jobs === 1 ? "job" : "jobs"} ${span}: ${spentText(whole)}, ${duration(whole.meanSeconds)} on average`];
  lines.push(byOutcome.map((/** @type {any} */ one) => `${one.jobs} ${one.status}`).join(", "));
  if (byDay.length > 1) for (const one of byDay) lines.push(`${one.day}: ${spentText(one)}, ${one.jobs} ${one.jobs === 1 ? "job" : "jobs"}`);
  for (const one of byModel) lines.push(`${one.model ?? "no model"}: ${spentText(one)}, ${one.jobs} ${one.jobs === 1 ? "job" : "jobs"}`);
  if (mostExpensive.length) lines.push("most expensive:");
  for (const one of mostExpensive) lines.push(`- ${one.name ?? one.jobId}: $${one.costUsd.toFixed(4)} (${one.status}, ${one.day})`);
  return cut(lines.join("\n"));
}

/** @param {any} tally */
function spentText({ costUsd, costKnown }) {
  if (typeof costUsd !== "number") return "cost unknown";
  return `${costKnown ? "" : "at least "}$${costUsd.toFixed(4)}`;
}

/** @param {any} result */
function notifyText({ sessionKey, channel, kinds = {} }) {
  const place = sessionKey ? `session ${sessionKey}` : channel ? `chats of ${channel}` : "all chats";
  const told = Object.keys(kinds).filter((kind) => kinds[kind].on);
  const not = Object.keys(kinds).filter((kind) => !kinds[kind].on);
  return `Told, for ${place}: ${told.join(", ") || "nothing"}\nNot told: ${not.join(", ") || "nothing is left out"}`;
}

/** @param {number | undefined} jobs */
function ahead(jobs) {
  return jobs ? `, ${jobs} ahead of it` : "";
}

/** @param {number | undefined | null} seconds */
export function duration(seconds) {
  if (typeof seconds !== "number") return "?";
  const whole = Math.round(seconds);
  if (whole < 60) return `${whole} s`;
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${whole % 60} s`;
  return `${Math.floor(whole / 3600)} h ${Math.floor((whole % 3600) / 60)} min`;
}

/** @param {string} text @param {number} [longest] the beginning and the end of what is longer, and how much is not there */
export function cut(text, longest = LONGEST_TEXT) {
  if (text.length <= longest) return text;
  const head = Math.floor(longest * 0.4);
  const tail = longest - head - 40;
  const from = text.length - tail;
  const line = text.lastIndexOf("\n", from - 1) + 1;
  const mark = line < from && text.startsWith("> ", line) ? "> " : ""; // half of what a job wrote is still its own
  return `${text.slice(0, head)}\n… ${from - head} characters left out …\n${mark}${text.slice(from)}`;
}
