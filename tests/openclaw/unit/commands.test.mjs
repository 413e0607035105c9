import assert from "node:assert/strict";
import { test } from "node:test";

import { answerTo, parse } from "../../../opencode_actors/openclaw_plugin/commands.js";

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
  "notify +text -running": { operation: "notify", params: { on: ["text"], off: ["running"] } },
  "notify channel +text": { operation: "notify", params: { channel: "channel", on: ["text"] } },
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
  "attach far http://far:4096/x --password-env FAR_PASSWORD --directory=/srv/a --conversation ses_1": {
    operation: "attach",
    params: {
      name: "far",
      url: "http://far:4096/x",
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
  cleanup: { operation: "cleanup", params: {} },
  "cleanup --delete-workspaces": { operation: "cleanup", params: { delete_workspaces: true } },
};

for (const [text, parsed] of Object.entries(READ)) {
  test(`/opencode ${JSON.stringify(text)}`, () => assert.deepEqual(parse(text), parsed));
}

for (const text of ["", "help", "start", "start --colour blue x", "start --max-cost-usd much x", "output", "output j-1 far", "respond demo", "interrupt demo", "resume", "fork", "fork --model a/b demo", "answer j-1", "cancel", "cleanup now", "sessions now", "dance", "follow", "requests now", "statistics far", "statistics 0", "notify j-1 text", "notify +", "reject", "attach far", "attach far http://far secret", "attach far http://far --password x", "detach", "conversations", "models --colour x", "start --report-every often x"]) {
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

test("what is not clear is asked back", () => {
  assert.throws(() => answerTo({ jobId: "j-1", pending: [] }, "yes"), /asks nothing/);
  assert.throws(() => answerTo({ jobId: "j-1", pending: [question, permission] }, "yes"), /q-1: Which\?\np-1: May I\?/);
});
