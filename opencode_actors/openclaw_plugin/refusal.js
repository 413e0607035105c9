// Node's own WebSocket says of a connection that failed only that it failed. Asked again as plain HTTP, the
// other side says why.

import { randomBytes } from "node:crypto";
import http from "node:http";
import https from "node:https";

const WITHIN = 5_000; // ms
const LONGEST = 500; // characters of what it says

/**
 * @param {import("./door.js").Door} door that could not be opened
 * @returns {Promise<{why: string, turnedAway: boolean}>} `turnedAway`: it is there, and trying again does not help
 */
export function whyRefused({ url, token }) {
  return new Promise((resolve) => {
    const target = new URL(url.replace(/^ws/, "http"));
    const headers = {
      authorization: `Bearer ${token}`,
      connection: "upgrade",
      upgrade: "websocket",
      "sec-websocket-version": "13",
      "sec-websocket-key": randomBytes(16).toString("base64"),
    };
    const request = (target.protocol === "https:" ? https : http).request(target, { headers, timeout: WITHIN });
    const end = (/** @type {string} */ why, turnedAway = false) => {
      request.destroy();
      resolve({ why, turnedAway });
    };
    request.once("error", (/** @type {any} */ error) =>
      end(error.code === "ECONNREFUSED" ? "nothing listens there" : error.message),
    );
    request.once("timeout", () => end("no answer"));
    request.once("upgrade", () => end("the connection failed"));
    request.once("response", (response) => {
      let said = "";
      response.setEncoding("utf8");
      response.on("data", (piece) => {
        said = (said + piece).slice(0, LONGEST);
      });
      response.once("close", () => end(`HTTP ${response.statusCode}${said ? `, ${said.trim()}` : ""}`, true));
    });
    request.end();
  });
}
