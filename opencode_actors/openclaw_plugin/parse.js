// What a person types behind `/opencode`, as an operation and its params. Phones make one long dash of two short ones
// and curl the quotes; both are read as what was meant. A prompt is taken as it is, but for this: an option that
// stands where it would do nothing is refused, for it may have been the one that keeps the job from writing.

export const HELP = `/opencode start [OPTIONS] [--session KEY] PROMPT
/opencode status [JOB]            its id, its name or its session's; without a job: all sessions
/opencode output JOB [OFFSET]
/opencode respond SESSION [OPTIONS] PROMPT  a follow-up: same files, same conversation
/opencode interrupt SESSION [OPTIONS] PROMPT  the same, at once: the running turn ends for it
/opencode resume SESSION [OPTIONS] [PROMPT]  go on with one that has ended
/opencode fork SESSION [OPTIONS] [PROMPT]  a new session with its conversation and a copy of its files; --name is its name
/opencode answer JOB ANSWER       what it asks: one line for each question, a comma between several choices;
                                  a permission: once, always or reject
/opencode reject JOB [WHY]        no to what it asks
/opencode requests                what all jobs ask
/opencode follow JOB              shows what it says, also what was missed
/opencode follow --session SESSION  the same of all its jobs, from now on
/opencode background [JOB]        ends that; the job goes on
/opencode cancel JOB
/opencode sessions [--all]        with --all those that have ended, too
/opencode close SESSION           end it, with what works in it; files and conversation stay
/opencode reset SESSION           let one work again that was given up or is quarantined
/opencode statistics [DAYS]       cost, time, outcomes
/opencode notify                  what this chat is told
/opencode notify JOB|channel [+KIND] [-KIND] [=KIND]  told of that job's session, or to all chats of this channel; = as the settings say
/opencode attach NAME URL [--user NAME] [--password-env VARIABLE | --password-file PATH] [--directory PATH] [--conversation ID]
                                  a session on a server that somebody else runs
/opencode detach SESSION          forget it; nothing there is touched
/opencode conversations SESSION   those of its server
/opencode agents [SESSION]
/opencode models [SESSION] [--match WORD]
/opencode cleanup [--delete-workspaces] [--delete-data] [--older-than AGE]
/opencode info                    the service itself

OPTIONS: --name NAME --model PROVIDER/MODEL --agent NAME --system TEXT --image IMAGE
--mode allow|ask|plan|default --rule "TOOL:PATTERN=allow|ask|deny"
--max-cost-usd USD --timeout TIME --report-every TIME (seconds, or as 5m, 2h; 0: never)
They stand before the prompt; a lone -- before a prompt that has such words in it makes them part of it.`;

/** @typedef {{operation: string, params: Record<string, unknown>}} Asked */
/** @typedef {Asked | {wrong: string}} Parsed */

/** What a start and whatever goes on with a session have in common: the flag, and the parameter that it is. */
const OPTIONS = {
  name: "name",
  model: "model",
  agent: "agent",
  system: "system",
  image: "image",
  mode: "permission_mode",
  rule: "permission_rules",
  "max-cost-usd": "max_cost_usd",
  timeout: "timeout",
  "report-every": "report_every",
};

/** @type {Record<string, Record<string, string>>} */
export const FLAGS = {
  start: { ...OPTIONS, session: "session_id" },
  respond: OPTIONS,
  interrupt: OPTIONS,
  resume: OPTIONS,
  fork: OPTIONS,
  follow: { session: "session_id" },
  sessions: { all: "all" },
  attach: { user: "user", "password-env": "password_env", "password-file": "password_file", directory: "directory", conversation: "conversation" },
  models: { match: "match", session: "session_id" },
  cleanup: { "delete-workspaces": "delete_workspaces", "delete-data": "delete_data", "older-than": "older_than" },
};

/** They take no value. */
const SWITCHES = new Set(["all", "delete_workspaces", "delete_data"]);

/** @type {Record<string, (value: string) => number>} */
const NUMBERS = {
  max_cost_usd: (value) => numberOf(value, /^\d*\.?\d+$/, (dollars) => dollars > 0, "a bound is an amount of dollars"),
  timeout: (value) => secondsOf(value, (seconds) => seconds > 0, "a timeout is a number of seconds, or as 90m, 2h"),
  report_every: (value) => secondsOf(value, () => true, "reports come after a number of seconds, or as 5m; 0 is never"),
  older_than: (value) => secondsOf(value, () => true, "an age is a number of seconds, or as 36h, 7d"),
};

/** @type {Record<string, number>} */
const UNITS = { "": 1, s: 1, m: 60, h: 3_600, d: 86_400 };

/** What was typed cannot be meant; its message says why. */
class Wrong extends Error {}

/** @type {Record<string, (rest: string, verb: string) => Asked>} */
export const VERBS = {
  start(text, verb) {
    const { params, rest } = flagsOf(text, verb);
    const prompt = promptOf(rest, verb);
    if (!prompt) throw new Wrong("start needs a prompt");
    return { operation: "start", params: { ...params, prompt } };
  },
  respond: furtherMessage,
  interrupt: furtherMessage,
  resume: goingOn,
  fork: goingOn,
  answer(text) {
    const [job_id, answer] = firstWord(text);
    if (!job_id || !answer) throw new Wrong("answer needs a job and an answer");
    return { operation: "answer", params: { job_id, answer } };
  },
  reject(text) {
    const [job_id, message] = firstWord(text);
    if (!job_id) throw new Wrong("reject needs a job");
    return { operation: "reject", params: { job_id, message } };
  },
  requests: alone,
  info: alone,
  follow(text, verb) {
    const { params, rest } = flagsOf(text, verb);
    if (params.session_id && rest) throw new Wrong("follow takes a job or --session, not both");
    return params.session_id ? { operation: "follow", params } : { operation: "follow", params: { job_id: needed(rest, "follow", "a job") } };
  },
  background: (text) => ({ operation: "background", params: text ? { job_id: unquoted(text) } : {} }),
  statistics(text) {
    if (!/^[1-9]\d{0,3}$/.test(text || "7")) throw new Wrong(`statistics takes a number of days, not ${text}`);
    return { operation: "statistics", params: text ? { days: Number(text) } : {} };
  },
  notify: choice,
  status: (text) =>
    text ? { operation: "status", params: { job_id: unquoted(text) } } : { operation: "sessions", params: {} },
  output(text) {
    const [job_id, offset] = firstWord(text);
    if (!job_id) throw new Wrong("output needs a job");
    if (!offset) return { operation: "output", params: { job_id } };
    if (!/^\d{1,15}$/.test(offset)) throw new Wrong(`an offset is a number of bytes, not ${offset}`);
    return { operation: "output", params: { job_id, offset: Number(offset) } };
  },
  cancel: (text) => ({ operation: "cancel", params: { job_id: needed(text, "cancel", "a job") } }),
  sessions: flagsOnly,
  cleanup: flagsOnly,
  attach(text, verb) {
    const [name, afterName] = firstWord(text);
    const [url, afterUrl] = firstWord(afterName);
    if (!name || !url) throw new Wrong("attach needs a name and the server's URL");
    const { params, rest } = flagsOf(afterUrl, verb);
    if (rest) throw new Wrong(`attach does not know what ${firstWord(rest)[0]} is`);
    return { operation: "attach", params: { name, url, ...params } };
  },
  detach: ofSession,
  conversations: ofSession,
  close: ofSession,
  reset: ofSession,
  agents: (text) => ({ operation: "agents", params: text ? { session_id: unquoted(text) } : {} }),
  models(text, verb) {
    const { params, place, rest } = placed(text, verb);
    if (rest) throw new Wrong(`models does not know what ${firstWord(rest)[0]} is`);
    return { operation: "models", params: { ...params, ...(place ? { session_id: place } : {}) } };
  },
};

/** @param {string} text what stands behind `/opencode` @returns {Parsed} */
export function parse(text) {
  const [word, rest] = firstWord(text.trim());
  const verb = word.toLowerCase(); // a phone begins a sentence with a capital
  if (!verb || verb === "help") return { wrong: "" };
  if (!Object.hasOwn(VERBS, verb)) return { wrong: `there is no "${word}"` };
  try {
    return VERBS[verb](rest, verb);
  } catch (error) {
    if (error instanceof Wrong) return { wrong: error.message };
    throw error;
  }
}

/** @param {string} text @param {string} verb @returns {Asked} */
function furtherMessage(text, verb) {
  const { params, place, rest } = placed(text, verb);
  const message = promptOf(rest, verb);
  if (!place || !message) throw new Wrong(`${verb} needs a session and a prompt`);
  return { operation: "respond", params: { session_id: place, message, ...params, ...(verb === "interrupt" ? { interrupt: true } : {}) } };
}

/** @param {string} text @param {string} verb @returns {Asked} */
function goingOn(text, verb) {
  const { params, place, rest } = placed(text, verb);
  const message = promptOf(rest, verb);
  if (!place) throw new Wrong(`${verb} needs a session`);
  return { operation: verb, params: { session_id: place, ...params, ...(message ? { message } : {}) } };
}

/** @param {string} text @param {string} verb @returns {Asked} */
function flagsOnly(text, verb) {
  const { params, rest } = flagsOf(text, verb);
  if (rest) throw new Wrong(`${verb} takes ${Object.keys(FLAGS[verb]).map((flag) => `--${flag}`).join(", ")}, not ${rest}`);
  return { operation: verb, params };
}

/** @param {string} text @param {string} verb @returns {Asked} */
function ofSession(text, verb) {
  return { operation: verb, params: { session_id: needed(text, verb, "a session") } };
}

/** @param {string} text @param {string} verb @returns {Asked} */
function alone(text, verb) {
  if (text) throw new Wrong(`${verb} takes nothing else`);
  return { operation: verb, params: {} };
}

/** @type {Record<string, string>} */
const LISTS = { "+": "on", "-": "off", "–": "off", "—": "off", "=": "reset" };

/** For which jobs, or chats, is said in each that changes something: all chats of a channel are many. @param {string} text @returns {Asked} */
function choice(text) {
  /** @type {Record<string, any>} */
  const params = {};
  let [word, rest] = firstWord(text);
  const named = Boolean(word) && !LISTS[word[0]];
  if (named) {
    if (/^channel\b/i.test(text) && word.toLowerCase() === "channel") params.here = true; // a job of that name stands in quotes
    else params.job_id = word;
    [word, rest] = firstWord(rest);
  }
  for (; word; [word, rest] = firstWord(rest)) {
    const list = LISTS[word[0]];
    if (!list || word.length < 2) throw new Wrong(`write +KIND, -KIND or =KIND, not ${word}`);
    params[list] = [...(params[list] ?? []), word.slice(1).toLowerCase()];
  }
  if (!named && Object.keys(params).length) {
    throw new Wrong("say for what: `notify JOB …` is for that job's session, `notify channel …` for all chats of this channel");
  }
  return { operation: "notify", params };
}

// ---- flags

const DASHES = "(?:--|[—–])";
const FLAG = new RegExp(`^${DASHES}([a-z][a-z-]*)(?=[\\s=]|$)`, "i");
const VALUE = /^(?:\s*=\s*|\s+)(?:["“”„]([^"“”„\n]*)["“”„]|['‘’]([^'‘’\n]*)['‘’](?=\s|$)|((?!--|[—–])\S+))\s*/;
const ESCAPE = new RegExp(`^${DASHES}(?:\\s+|$)`);

/** Flags stand before and behind the name. @param {string} text @param {string} verb */
function placed(text, verb) {
  const before = flagsOf(text, verb);
  const [place, behind] = firstWord(before.rest);
  const { params, rest } = flagsOf(behind, verb, before.params);
  return { params, place, rest };
}

/** @param {string} text @param {string} verb @param {Record<string, any>} [found] */
function flagsOf(text, verb, found = {}) {
  const params = { ...found };
  let rest = text;
  for (let flag = FLAG.exec(rest); flag; flag = FLAG.exec(rest)) {
    const word = flag[1].toLowerCase();
    if (!Object.hasOwn(FLAGS[verb], word)) {
      throw new Wrong(`${verb} knows no --${word} (a lone -- stands before a prompt that begins so)`);
    }
    const name = FLAGS[verb][word];
    rest = rest.slice(flag[0].length);
    if (SWITCHES.has(name)) {
      params[name] = true;
      rest = rest.trimStart();
      continue;
    }
    const value = VALUE.exec(rest);
    if (!value) throw new Wrong(`--${word} needs a value`);
    const given = value[1] ?? value[2] ?? value[3];
    if (name === "permission_rules") params[name] = [...(params[name] ?? []), given];
    else params[name] = NUMBERS[name] ? NUMBERS[name](given) : given;
    rest = rest.slice(value[0].length);
  }
  return { params, rest };
}

/** @param {string} text behind the flags @param {string} verb */
function promptOf(text, verb) {
  const escape = ESCAPE.exec(text);
  if (escape) return text.slice(escape[0].length);
  const stray = new RegExp(`(?:^|\\s)${DASHES}(${Object.keys(FLAGS[verb]).join("|")})(?![a-z-])`, "i").exec(text);
  if (!stray) return text;
  const flag = `--${stray[1].toLowerCase()}`;
  throw new Wrong(`${flag} stands in the prompt, where it does nothing: options go before the prompt. When it is meant to be part of it, write a lone -- before the prompt`);
}

/** JSON has no number that is not finite: it would become none. @param {string} value @param {RegExp} form @param {(number: number) => boolean} fits @param {string} what */
function numberOf(value, form, fits, what) {
  const number = Number(value);
  if (!form.test(value) || !Number.isFinite(number) || !fits(number)) throw new Wrong(`${what}, not ${value}`);
  return number;
}

/** @param {string} value @param {(seconds: number) => boolean} fits @param {string} what */
function secondsOf(value, fits, what) {
  const [, number, unit] = /^(\d*\.?\d+)([smhd]?)$/i.exec(value) ?? [];
  if (number === undefined) throw new Wrong(`${what}, not ${value}`);
  return numberOf(number, /./, fits, what) * UNITS[unit.toLowerCase()];
}

// ---- words

/** @param {string} text @param {string} verb @param {string} what */
function needed(text, verb, what) {
  if (!text) throw new Wrong(`${verb} needs ${what}`);
  return unquoted(text);
}

/** A name of several words stands in quotes. @param {string} text @returns {[string, string]} */
export function firstWord(text) {
  const [, quoted, word, rest] = /^(?:["“”„]([^"“”„\n]+)["“”„]|(\S*))\s*([\s\S]*)$/.exec(text) ?? ["", "", "", ""];
  return [quoted ?? word, rest.trim()];
}

/** @param {string} text */
function unquoted(text) {
  return /^["“”„]([^"“”„\n]+)["“”„]$/.exec(text)?.[1] ?? text;
}
