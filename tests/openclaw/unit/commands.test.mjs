import assert from "node:assert/strict";
import { test } from "node:test";

import { answerTo, rejectionOf } from "../../../opencode_actors/openclaw_plugin/answers.js";
import { parse } from "../../../opencode_actors/openclaw_plugin/parse.js";

const READ = {
  "start mend it": { operation: "start", params: { prompt: "mend it" } },
  "start --session demo --model=a/b first\nsecond": {
    operation: "start",
    params: { session_id: "demo", model: "a/b", prompt: "first\nsecond" },
  },
  "start --max-cost-usd 0.5 mend it": { operation: "start", params: { max_cost_usd: 0.5, prompt: "mend it" } },
  'start --name "login page" --image=a/b:1 mend it': {
    operation: "start",
    params: { name: "login page", image: "a/b:1", prompt: "mend it" },
  },
  'status "login page"': { operation: "status", params: { job_id: "login page" } },
  "status login page": { operation: "status", params: { job_id: "login page" } },
  'output "login page" 3000': { operation: "output", params: { job_id: "login page", offset: 3000 } },
  'answer "login page" the blue one': { operation: "answer", params: { job_id: "login page", answer: "the blue one" } },
  "start explain --verbose to me": { operation: "start", params: { prompt: "explain --verbose to me" } },
  status: { operation: "sessions", params: {} },
  "status j-1": { operation: "status", params: { job_id: "j-1" } },
  "output j-1": { operation: "output", params: { job_id: "j-1" } },
  "output j-1 3000": { operation: "output", params: { job_id: "j-1", offset: 3000 } },
  "respond demo and now test it": { operation: "respond", params: { session_id: "demo", message: "and now test it" } },
  "interrupt demo use tabs": { operation: "respond", params: { session_id: "demo", message: "use tabs", interrupt: true } },
  "fork demo": { operation: "fork", params: { session_id: "demo" } },
  "fork --name other demo try tabs": { operation: "fork", params: { session_id: "demo", name: "other", message: "try tabs" } },
  "resume demo": { operation: "resume", params: { session_id: "demo" } },
  'resume "login page" and test it': { operation: "resume", params: { session_id: "login page", message: "and test it" } },
  "answer j-1 the blue one": { operation: "answer", params: { job_id: "j-1", answer: "the blue one" } },
  "cancel j-1": { operation: "cancel", params: { job_id: "j-1" } },
  "sessions --all": { operation: "sessions", params: { all: true } },
  sessions: { operation: "sessions", params: {} },
  requests: { operation: "requests", params: {} },
  'follow "login page"': { operation: "follow", params: { job_id: "login page" } },
  background: { operation: "background", params: {} },
  "background j-1": { operation: "background", params: { job_id: "j-1" } },
  statistics: { operation: "statistics", params: {} },
  "statistics 30": { operation: "statistics", params: { days: 30 } },
  "reject j-1 not like that": { operation: "reject", params: { job_id: "j-1", message: "not like that" } },
  notify: { operation: "notify", params: {} },
  "notify channel +text —running": { operation: "notify", params: { here: true, on: ["text"], off: ["running"] } },
  'notify "channel" +text': { operation: "notify", params: { job_id: "channel", on: ["text"] } },
  "notify demo": { operation: "notify", params: { job_id: "demo" } },
  'notify "login page" +text +tool =report': {
    operation: "notify",
    params: { job_id: "login page", on: ["text", "tool"], reset: ["report"] },
  },
  "start --report-every 60 mend it": { operation: "start", params: { report_every: 60, prompt: "mend it" } },
  'start --mode plan --rule "edit:docs/*=allow" --rule bash=deny mend it': {
    operation: "start",
    params: { permission_mode: "plan", permission_rules: ["edit:docs/*=allow", "bash=deny"], prompt: "mend it" },
  },
  "attach far https://far:4096": { operation: "attach", params: { name: "far", url: "https://far:4096" } },
  "attach far http://far:4096/x --user maria --password-env FAR_PASSWORD --directory=/srv/a --conversation ses_1": {
    operation: "attach",
    params: {
      name: "far",
      url: "http://far:4096/x",
      user: "maria",
      password_env: "FAR_PASSWORD",
      directory: "/srv/a",
      conversation: "ses_1",
    },
  },
  "detach far": { operation: "detach", params: { session_id: "far" } },
  "conversations far": { operation: "conversations", params: { session_id: "far" } },
  agents: { operation: "agents", params: {} },
  "agents far": { operation: "agents", params: { session_id: "far" } },
  models: { operation: "models", params: {} },
  "models --match opus far": { operation: "models", params: { match: "opus", session_id: "far" } },
  "start —mode plan Read it": { operation: "start", params: { permission_mode: "plan", prompt: "Read it" } },
  "Start –Mode=plan —rule “bash:git push*=deny” —name “a b” say “hi” — please": {
    operation: "start",
    params: { permission_mode: "plan", permission_rules: ["bash:git push*=deny"], name: "a b", prompt: "say “hi” — please" },
  },
  "start --mode plan -- explain --mode and --name": {
    operation: "start",
    params: { permission_mode: "plan", prompt: "explain --mode and --name" },
  },
  "start --rule 'bash:git push*=deny' --name ‘a b’ x": {
    operation: "start",
    params: { permission_rules: ["bash:git push*=deny"], name: "a b", prompt: "x" },
  },
  "start — explain —mode": { operation: "start", params: { prompt: "explain —mode" } },
  "start Go—name the file": { operation: "start", params: { prompt: "Go—name the file" } },
  'start --system "be short" --timeout 2h --report-every 0 x': {
    operation: "start",
    params: { system: "be short", timeout: 7200, report_every: 0, prompt: "x" },
  },
  "resume far --model x/y": { operation: "resume", params: { session_id: "far", model: "x/y" } },
  "resume --model x/y “login page” —mode ask go on": {
    operation: "resume",
    params: { session_id: "login page", model: "x/y", permission_mode: "ask", message: "go on" },
  },
  "respond demo --max-cost-usd .5 --rule bash=deny --rule edit=deny test it": {
    operation: "respond",
    params: { session_id: "demo", max_cost_usd: 0.5, permission_rules: ["bash=deny", "edit=deny"], message: "test it" },
  },
  "interrupt demo --agent plan stop": {
    operation: "respond",
    params: { session_id: "demo", agent: "plan", message: "stop", interrupt: true },
  },
  "fork far --name other --image a/b:1 do it": {
    operation: "fork",
    params: { session_id: "far", name: "other", image: "a/b:1", message: "do it" },
  },
  "fork --model a/b demo": { operation: "fork", params: { session_id: "demo", model: "a/b" } },
  "follow —session demo": { operation: "follow", params: { session_id: "demo" } },
  "close demo": { operation: "close", params: { session_id: "demo" } },
  "Reset demo": { operation: "reset", params: { session_id: "demo" } },
  info: { operation: "info", params: {} },
  "cleanup --delete-data —older-than 7d": { operation: "cleanup", params: { delete_data: true, older_than: 604_800 } },
  cleanup: { operation: "cleanup", params: {} },
  "cleanup --delete-workspaces": { operation: "cleanup", params: { delete_workspaces: true } },
};

for (const [text, parsed] of Object.entries(READ)) {
  test(`/opencode ${JSON.stringify(text)}`, () => assert.deepEqual(parse(text), parsed));
}

for (const text of ["", "help", "start", "start --colour blue x", "start --max-cost-usd much x", "output", "output j-1 far", "respond demo", "interrupt demo", "resume", "fork", "answer j-1", "cancel", "cleanup now", "sessions now", "dance", "follow", "requests now", "statistics far", "statistics 0", "notify j-1 text", "notify +", "reject", "attach far", "attach far http://far secret", "attach far http://far --password x", "detach", "conversations", "models --colour x", "start --report-every often x", "start Read it --mode plan", "start Read it —mode plan", "start --mode: plan Read it", "start --model", "start --model --mode plan x", "start —colour blue x", "start --max-cost-usd Infinity x", "start --max-cost-usd 1e999 x", "start --max-cost-usd 0 x", `start --max-cost-usd ${"9".repeat(400)} x`, "start --timeout 0 x", "start --report-every -1 x", "respond demo --session other x", "resume demo go on --model x/y", "fork demo do it --name other", "notify -waiting", "close", "reset", "info now", "follow --session a b", "cleanup --older-than long", "toString", "__proto__"]) {
  test(`/opencode ${JSON.stringify(text)} is explained`, () => assert.ok("wrong" in parse(text)));
}

const question = { requestId: "q-1", kind: "question", text: "Which?", options: ["Blue", "Red"] };
const permission = { requestId: "p-1", kind: "permission", text: "May I?", options: [] };

test("an answer needs no id where only one thing is asked", () => {
  const request = { job_id: "j-1", request_id: "q-1" };
  assert.deepEqual(answerTo({ jobId: "j-1", pending: [question] }, "dark blue"), { ...request, answers: ["dark blue"] });
  assert.deepEqual(answerTo({ jobId: "j-1", pending: [question] }, "q-1 Red"), { ...request, answers: ["Red"] });
});

test("a permission takes one of its three words", () => {
  const status = { jobId: "j-1", pending: [question, permission] };
  assert.deepEqual(answerTo(status, "p-1 once"), { job_id: "j-1", request_id: "p-1", reply: "once" });
  assert.throws(() => answerTo(status, "p-1 sure"), /once, always or reject/);
});

test("what a phone writes with a capital is a permission's word all the same", () => {
  assert.equal(answerTo({ jobId: "j-1", pending: [permission] }, "Once").reply, "once");
});

test("each question of a request has a line, and several choices stand with commas", () => {
  const two = { requestId: "q-2", kind: "question", text: "Which?\nWhen?", questions: 2, options: ["Red", "Blue", "Now, or never", "Later"] };
  const status = { jobId: "j-1", pending: [two] };
  assert.deepEqual(answerTo(status, "red, Blue\nnow, or never").answers, [["Red", "Blue"], "Now, or never"]);
  assert.deepEqual(answerTo(status, "q-2\nRed\nby May, or June").answers, ["Red", "by May, or June"]);
  assert.throws(() => answerTo(status, "Red"), /these 2 questions: write one line for each\n> Which\?\n> When\?/);
});

test("a refusal needs the id where more than one thing is asked", () => {
  const status = { jobId: "j-1", pending: [question, permission] };
  assert.throws(() => rejectionOf(status, "no"), /more than one thing.*\nq-1: Which\?\np-1: May I\?/);
  assert.deepEqual(rejectionOf(status, "p-1 no"), { job_id: "j-1", request_id: "p-1", reply: "reject", message: "no" });
  assert.deepEqual(rejectionOf({ jobId: "j-1", pending: [question] }, ""), { job_id: "j-1", request_id: "q-1", reply: "reject" });
});

test("what is not clear is asked back", () => {
  assert.throws(() => answerTo({ jobId: "j-1", pending: [] }, "yes"), /asks nothing/);
  assert.throws(() => answerTo({ jobId: "j-1", pending: [question, permission] }, "yes"), /q-1: Which\?\np-1: May I\?/);
});
