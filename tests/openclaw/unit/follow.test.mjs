import assert from "node:assert/strict";
import { test } from "node:test";

import { Unreachable } from "../../../opencode_actors/openclaw_plugin/errors.js";
import { Follows, added } from "../../../opencode_actors/openclaw_plugin/follow.js";

const chat = { session_key: "agent:main:main", agent_id: "main", channel: "" };
const other = { ...chat, session_key: "agent:red:main" };

/** A service's answers, and a chat that reads. */
function house() {
  const calls = [];
  let serial = 0;
  const link = {
    calls,
    async call(method, params) {
      calls.push([method, params]);
      if (method === "status") return { jobId: `job_${params.job_id}`, name: params.job_id, sessionKey: `s_${params.job_id}`, status: "running" };
      return method === "follow" ? { subscription: `sub_${++serial}` } : {};
    },
  };
  const told = [];
  const person = {
    told,
    async tell(origin, text, id) {
      told.push([origin.session_key, text, id]);
      return true;
    },
  };
  const left = [];
  const leave = (origin, text) => left.push([origin.session_key, text]);
  return { link, person, left, follows: new Follows(link, person, { warn() {} }, { every: 20, leave }) };
}

const said = (subscription, seq, text) => ({ subscription, seq, kind: "output", outputKind: "text", text });
const quiet = () => new Promise((resolve) => setTimeout(resolve, 60));

test("what comes within a moment is one message, and nothing of it twice", async () => {
  const { link, person, follows } = house();
  assert.match(await follows.follow(chat, "it"), /Following it \(job_it\), which is running/);
  for (let seq = 1; seq <= 50; seq++) follows.heard(said("sub_1", seq, `w${seq} `));
  await quiet();
  for (let seq = 51; seq <= 60; seq++) follows.heard(said("sub_1", seq, `w${seq} `));
  await quiet();
  assert.equal(person.told.length, 2);
  const text = person.told.map(([, words]) => words).join("\n");
  for (let seq = 1; seq <= 60; seq++) assert.equal(text.match(new RegExp(`w${seq}\\b`, "g"))?.length, 1);
  assert.notEqual(person.told[0][2], person.told[1][2]);
  assert.deepEqual(link.calls.map(([method]) => method), ["status", "follow"]);
  follows.stop();
});

test("several chats follow one job, and each what it asked for", async () => {
  const { person, follows } = house();
  await follows.follow(chat, "it");
  await follows.follow(other, "it");
  await follows.follow(chat, "second");
  follows.heard(said("sub_1", 1, "one"));
  follows.heard(said("sub_2", 1, "one"));
  follows.heard(said("sub_3", 2, "two"));
  await quiet();
  assert.deepEqual(
    person.told.map(([key, text]) => [key, text]).sort(),
    [
      ["agent:main:main", "it:\n> one"],
      ["agent:main:main", "second:\n> two"],
      ["agent:red:main", "it:\n> one"],
    ],
  );
  follows.stop();
});

test("in the background nothing more comes, and whoever follows again is shown what was missed", async () => {
  const { link, person, follows } = house();
  await follows.follow(chat, "it");
  assert.match(await follows.follow(chat, "it"), /follows it \(job_it\) already/);
  follows.heard(said("sub_1", 7, "one"));
  await quiet();
  assert.match(follows.background(chat), /it goes on in the background/);
  assert.match(follows.background(chat), /follows nothing/);
  assert.match(follows.background(chat, "x"), /does not follow x/);
  follows.heard(said("sub_1", 8, "unheard"));
  await quiet();
  assert.equal(person.told.length, 1);
  await follows.follow(chat, "it");
  assert.deepEqual(link.calls.filter(([method]) => method === "follow").map(([, params]) => params), [
    { job_id: "job_it" },
    { job_id: "job_it", since: 7 },
  ]);
  assert.deepEqual(link.calls.find(([method]) => method === "unfollow")[1], { subscription: "sub_1" });
  follows.stop();
});

test("after a loss of the connection it goes on behind what was shown", async () => {
  const { link, person, follows } = house();
  await follows.follow(chat, "it");
  follows.heard(said("sub_1", 3, "before"));
  follows.reconnected();
  await quiet();
  follows.heard(said("sub_1", 4, "of the connection before"));
  follows.heard(said("sub_2", 4, "after"));
  await quiet();
  assert.deepEqual(link.calls.at(-1), ["follow", { job_id: "job_it", since: 3 }]);
  assert.deepEqual(person.told.map(([, text]) => text), ["it:\n> before", "it:\n> after"]);
  follows.stop();
});

test("what comes before the answer that names its subscription is not lost", async () => {
  const { link, person, follows } = house();
  const call = link.call;
  link.call = async (method, params) => {
    if (method === "follow") follows.heard(said("sub_1", 1, "early"));
    return call(method, params);
  };
  await follows.follow(chat, "it");
  await quiet();
  assert.deepEqual(person.told.map(([, text]) => text), ["it:\n> early"]);
  follows.stop();
});

test("with the end of the job its following ends, and its last words are told", async () => {
  const { person, follows } = house();
  await follows.follow(chat, "it");
  follows.heard(said("sub_1", 1, "done"));
  follows.heard({ subscription: "sub_1", seq: 2, kind: "jobEnded", status: { status: "completed", elapsedSeconds: 3 } });
  follows.heard({ subscription: "sub_1", seq: 2, reason: "what was followed is over" });
  await quiet();
  assert.deepEqual(person.told.map(([, text]) => text), ["it:\n> done\n> completed, after 3 s"]);
  assert.equal(follows.size, 0);
});

test("a job that does not exist is followed by nobody", async () => {
  const { link, follows } = house();
  link.call = async () => {
    throw new Error("there is no job x");
  };
  await assert.rejects(follows.follow(chat, "x"), /no job x/);
  assert.equal(follows.size, 0);
});

test("of what is too long the end is shown, and where the rest is", async () => {
  const { person, follows } = house();
  await follows.follow(chat, "it");
  follows.heard(said("sub_1", 1, `BEGIN${"x".repeat(50_000)}END`));
  await quiet();
  const [[, text]] = person.told;
  assert.ok(text.length < 3_300);
  assert.match(text, /END$/);
  assert.match(text, /\/opencode output job_it/);
  follows.stop();
});

test("a tool is one line, and of the todos only what is new", () => {
  const one = { text: "", todos: [] };
  const hear = (told) => {
    one.text = added(one, told);
  };
  hear({ kind: "output", outputKind: "text", text: "I look" });
  hear({ kind: "toolStarted", tool: "bash", title: "make\ntest" });
  hear({ kind: "output", outputKind: "tool", text: "[bash] make test (exit 0)\n" });
  hear({ kind: "todosChanged", todos: [{ content: "read", status: "completed" }, { content: "mend", status: "in_progress" }] });
  hear({ kind: "todosChanged", todos: [{ content: "read", status: "completed" }, { content: "mend", status: "completed" }] });
  hear({ kind: "inputWanted", jobId: "job_1", text: "Which?", options: ["Red", "Blue"] });
  assert.deepEqual(one.text.split("\n"), [
    "I look",
    "[bash] make test",
    "[x] read",
    "[>] mend",
    "[x] mend",
    "asks: Which? (Red | Blue)",
    "answer with /opencode answer job_1 …",
    "",
  ]);
});

const until = async (holds) => {
  while (!holds()) await new Promise((resolve) => setTimeout(resolve, 5));
};

test("what was heard and not told yet is told when the chat follows again", async () => {
  const { link, person, follows } = house();
  await follows.follow(chat, "it");
  follows.heard(said("sub_1", 1, "one"));
  await until(() => person.told.length === 1);
  follows.heard(said("sub_1", 2, "two"));
  follows.background(chat, "it");
  await follows.follow(chat, "it");
  assert.deepEqual(link.calls.filter(([method]) => method === "follow").at(-1)[1], { job_id: "job_it", since: 1 });
  follows.heard(said("sub_2", 2, "two"));
  await until(() => person.told.length === 2);
  assert.equal(person.told[1][1], "it:\n> two");
  follows.stop();
});

test("a message that could not be sent is sent again under its id, and what came meanwhile after it", async () => {
  const { person, follows } = house();
  const { tell } = person;
  const tried = [];
  let fails = [true, false]; // thrown, and no way
  person.tell = async (origin, text, id) => {
    tried.push([text, id]);
    const how = fails.shift();
    if (how === true) throw new Error("the channel is away");
    return how === undefined ? tell(origin, text, id) : how;
  };
  await follows.follow(chat, "it");
  follows.heard(said("sub_1", 1, "one"));
  await until(() => tried.length === 1);
  follows.heard(said("sub_1", 2, "two"));
  follows.heard({ subscription: "sub_1", seq: 2, reason: "what was followed is over" });
  await until(() => follows.size === 0);
  assert.deepEqual(person.told.map(([, text]) => text), ["it:\n> one", "it:\n> two"]);
  assert.deepEqual(tried.map(([text]) => text), ["it:\n> one", "it:\n> one", "it:\n> one", "it:\n> two"]);
  assert.equal(new Set(tried.slice(0, 3).map(([, id]) => id)).size, 1);
});

test("messages do not overtake each other, and a following ends when the last one was told", async () => {
  const { person, follows } = house();
  const { tell } = person;
  const open = [];
  person.tell = (...message) => new Promise((resolve) => open.push(() => resolve(tell(...message))));
  await follows.follow(chat, "it");
  follows.heard(said("sub_1", 1, "one"));
  await until(() => open.length === 1);
  follows.heard(said("sub_1", 2, "two"));
  follows.heard({ subscription: "sub_1", seq: 2, reason: "what was followed is over" });
  await quiet();
  assert.equal(open.length, 1);
  open.shift()();
  await until(() => open.length === 1);
  assert.equal(follows.size, 1);
  open.shift()();
  await until(() => follows.size === 0);
  assert.deepEqual(person.told.map(([, text]) => text), ["it:\n> one", "it:\n> two"]);
});

test("a chat that follows again while a message is on its way is not told it twice", async () => {
  const { link, person, follows } = house();
  const { tell } = person;
  const open = [];
  person.tell = (...message) => new Promise((resolve) => open.push(() => resolve(tell(...message))));
  await follows.follow(chat, "it");
  follows.heard(said("sub_1", 1, "one"));
  await until(() => open.length === 1);
  follows.background(chat);
  const again = follows.follow(chat, "it");
  open.shift()();
  await again;
  assert.deepEqual(link.calls.at(-1), ["follow", { job_id: "job_it", since: 1 }]);
  follows.stop();
});

test("where nothing can be sent for long, the following ends, and the agent is left a word for its person", async () => {
  const { link, person, left, follows } = house();
  person.tell = async () => false;
  await follows.follow(chat, "it");
  follows.heard(said("sub_1", 1, "one"));
  await until(() => left.length === 1);
  assert.equal(follows.size, 0);
  assert.match(left[0][1], /it says cannot be sent into this chat/);
  await follows.follow(chat, "it");
  assert.deepEqual(link.calls.at(-1), ["follow", { job_id: "job_it" }]); // it has seen nothing
  follows.stop();
});

test("a following that is refused after a loss tells its last words, and why it has ended", async () => {
  const { link, person, follows } = house();
  await follows.follow(chat, "it");
  follows.heard(said("sub_1", 1, "one"));
  const { call } = link;
  link.call = async (method) => {
    throw new Error(`${method}: there is no job\nother asks (req_9)`);
  };
  follows.reconnected();
  await until(() => follows.size === 0);
  assert.deepEqual(person.told.map(([, text]) => text), [
    "it:\n> one",
    "it is not followed any more: follow: there is no job other asks (req_9)",
  ]);
  link.call = call;
});

test("a connection that is lost once more ends nothing", async () => {
  const { link, person, follows } = house();
  await follows.follow(chat, "it");
  const { call } = link;
  link.call = async () => {
    throw new Unreachable("the connection was lost");
  };
  follows.reconnected();
  await quiet();
  assert.equal(follows.size, 1);
  link.call = call;
  follows.reconnected();
  await quiet();
  follows.heard(said("sub_2", 1, "one"));
  await until(() => person.told.length === 1);
  follows.stop();
});

test("a chat may call what it follows as it did, by its id, and by its session", async () => {
  const { follows } = house();
  for (const word of ["it", "job_it", "s_it"]) {
    await follows.follow(chat, "it");
    assert.match(follows.background(chat, word), /it goes on in the background/);
  }
  await follows.followSession(chat, "wall");
  assert.match(follows.background(chat, "wall"), /wall goes on in the background/);
});

test("of a session all jobs are followed, and it is said which one speaks", async () => {
  const { link, person, follows } = house();
  assert.match(await follows.followSession(chat, "wall"), /Following all jobs of session wall\. /);
  assert.deepEqual(link.calls, [["follow", { session_id: "wall" }]]);
  follows.heard({ ...said("sub_1", 1, "one"), jobId: "job_1" });
  follows.heard({ ...said("sub_1", 2, " more"), jobId: "job_1" });
  follows.heard({ ...said("sub_1", 3, "two"), jobId: "job_2" });
  await until(() => person.told.length === 1);
  assert.equal(person.told[0][1], "wall:\n> job_1:\n> one more\n> job_2:\n> two");
  follows.stop();
});

test("a message has no more characters than its channel takes", async () => {
  const { person, follows } = house();
  await follows.follow({ ...chat, channel: "discord" }, "it");
  follows.heard(said("sub_1", 1, "x\n".repeat(20_000)));
  await until(() => person.told.length === 1);
  assert.ok(person.told[0][1].length <= 2_000);
  follows.stop();
});

test("what is left before the service has answered is not followed there either", async () => {
  const { link, follows } = house();
  const { call } = link;
  let answer;
  link.call = (method, params) =>
    method === "follow" ? new Promise((resolve) => (answer = () => resolve(call(method, params)))) : call(method, params);
  const following = follows.follow(chat, "it");
  await until(() => answer);
  follows.background(chat);
  answer();
  await following;
  assert.deepEqual(link.calls.at(-1), ["unfollow", { subscription: "sub_1" }]);
});
