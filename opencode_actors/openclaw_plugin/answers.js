// A person names the job and says the answer: which request it is for, and which of its questions, is seen from what
// the job asks.

import { oneLine, quoted } from "./format.js";
import { firstWord } from "./parse.js";

const REPLIES = ["once", "always", "reject"];

/**
 * One line for each question of the request; for one question all that is said. Several choices stand with commas
 * between them.
 * @param {any} status of the job @param {string} text
 */
export function answerTo(status, text) {
  const { asked, rest } = requestOf(status, text, "answer");
  const request = { job_id: status.jobId, request_id: asked.requestId };
  if (asked.kind === "permission") {
    const reply = rest.toLowerCase();
    if (!REPLIES.includes(reply)) throw new Error("a permission is answered with once, always or reject");
    return { ...request, reply };
  }
  const questions = asked.questions ?? 1;
  const lines = questions > 1 ? rest.split("\n").map((line) => line.trim()).filter(Boolean) : [rest];
  if (!rest || lines.length !== questions) {
    const wanted = questions > 1 ? `these ${questions} questions: write one line for each` : "this: write the answer behind it";
    throw new Error(`${status.jobId} asks ${wanted}\n${quoted(asked.text)}`);
  }
  return { ...request, answers: lines.map((line) => chosen(line, asked.options ?? [])) };
}

/** @param {any} status of the job @param {string} text what is asked, by its id, and why not */
export function rejectionOf(status, text) {
  const { asked, rest } = requestOf(status, text, "reason");
  return { job_id: status.jobId, request_id: asked.requestId, reply: "reject", ...(rest ? { message: rest } : {}) };
}

/** @param {any} status @param {string} text @param {string} what stands behind the id */
function requestOf({ jobId, pending = [] }, text, what) {
  const [first, rest] = firstWord(text);
  const named = pending.find((/** @type {any} */ asked) => asked.requestId === first);
  if (named) return { asked: named, rest };
  if (!pending.length) throw new Error(`${jobId} asks nothing at the moment`);
  if (pending.length === 1) return { asked: pending[0], rest: text.trim() };
  const ids = pending.map((/** @type {any} */ one) => `${one.requestId}: ${oneLine(one.text)}`).join("\n");
  throw new Error(`${jobId} asks more than one thing; put the id before the ${what}:\n${ids}`);
}

/** What is no choice is an answer in the person's own words. @param {string} line @param {string[]} options */
function chosen(line, options) {
  const one = choice(line, options);
  if (one !== undefined) return one;
  const several = line.split(",").map((part) => choice(part, options));
  return several.every((part) => part !== undefined) ? several : line;
}

/** @param {string} word @param {string[]} options */
function choice(word, options) {
  const wanted = word.trim().toLowerCase();
  return options.find((option) => option.toLowerCase() === wanted);
}
