import assert from "node:assert/strict";
import { test } from "node:test";

import { textOf } from "../../../opencode_actors/openclaw_plugin/format.js";
import { newsOf } from "../../../opencode_actors/openclaw_plugin/news.js";

/** A service that has these notices when it is asked to be followed. */
function service(notices, { early = false } = {}) {
  const calls = [];
  const ears = new Set();
  const tell = () => notices.forEach((told) => ears.forEach((ear) => ear({ subscription: "sub_1", ...told })));
  const link = {
    ears,
    calls,
    async call(method, params) {
      calls.push([method, params]);
      if (method !== "follow") return {};
      if (early) tell();
      else setImmediate(tell);
      return { subscription: "sub_1", seq: params.since ?? 0 };
    },
  };
  return link;
}

const said = (seq, text) => ({ seq, kind: "output", outputKind: "text", text });
const end = { seq: 9, reason: "what was followed is over" };

for (const early of [false, true]) {
  test(`what was missed comes at once, with where to go on${early ? ", also what comes before the answer" : ""}`, async () => {
    const link = service([said(4, "one "), said(5, "two")], { early });
    const news = await newsOf(link, { job_id: "it", since: 3, wait: 60 });
    assert.deepEqual(news, { text: "one two", since: 5, over: false, missed: 0 });
    assert.equal(textOf("follow", news), "one two\n[go on with since 5]");
    assert.deepEqual(link.calls, [["follow", { job_id: "it", since: 3 }], ["unfollow", { subscription: "sub_1" }]]);
    assert.equal(link.ears.size, 0);
  });
}

test("the end of what is followed is the end of the waiting", async () => {
  const link = service([said(4, "done"), { seq: 9, kind: "jobEnded", status: { status: "completed", elapsedSeconds: 3 } }, end]);
  const news = await newsOf(link, { job_id: "it", wait: 60 });
  assert.equal(textOf("follow", news), "done\ncompleted, after 3 s\n[it is over: nothing more comes]");
  assert.deepEqual(link.calls.map(([method]) => method), ["follow"]);
});

test("where nothing comes, the answer says where to go on", async () => {
  const news = await newsOf(service([]), { session_id: "wall", wait: 0 });
  assert.equal(textOf("follow", news), "[nothing new; go on with since 0]");
});

test("what does not fit into one answer is the next one's, and none of it is lost", async () => {
  const notices = [1, 2, 3, 4].map((seq) => said(seq, `${seq}`.repeat(6_000)));
  const first = await newsOf(service(notices), { job_id: "it" });
  assert.equal(first.since, 2);
  const second = await newsOf(service(notices.slice(first.since)), { job_id: "it", since: first.since });
  assert.equal(first.text + second.text, notices.map(({ text }) => text).join(""));
});

test("a call that is cancelled, or refused, leaves nothing behind", async () => {
  const link = service([]);
  const stop = new AbortController();
  const news = newsOf(link, { job_id: "it" }, stop.signal);
  setImmediate(() => stop.abort(new Error("the run was stopped")));
  await assert.rejects(news, /the run was stopped/);
  assert.equal(link.ears.size, 0);
  assert.deepEqual(link.calls.at(-1), ["unfollow", { subscription: "sub_1" }]);
  await assert.rejects(newsOf(link, { job_id: "it", wait: 61 }), /at most 60/);
});
