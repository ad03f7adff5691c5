// A real session with the official TypeScript clients over HTTP.
//
// Usage: session.mjs PLACE URL TOKEN REVISION, where PLACE is where the clients are installed. The
// revision of 2025-11-25 is spoken by the first line of the SDK, as most clients have it, and that
// of 2026-07-28 by the second. Ends with an exception where something is not as it should be.

import assert from "node:assert/strict";
import { createRequire } from "node:module";
import { setTimeout as sleep } from "node:timers/promises";

const [place, url, token, revision] = process.argv.slice(2);
const require = createRequire(`${place}/package.json`);
const modern = revision === "2026-07-28";

const headers = { Authorization: `Bearer ${token}` };
const info = { name: "typescript", version: "1" };
let client, transport;
if (modern) {
  const sdk = require("@modelcontextprotocol/client");
  client = new sdk.Client(info, { versionNegotiation: { mode: { pin: revision } } });
  transport = new sdk.StreamableHTTPClientTransport(new URL(url), { requestInit: { headers } });
} else {
  const { Client } = require("@modelcontextprotocol/sdk/client/index.js");
  const sdk = require("@modelcontextprotocol/sdk/client/streamableHttp.js");
  client = new Client(info);
  transport = new sdk.StreamableHTTPClientTransport(new URL(url), { requestInit: { headers } });
}

async function tool(name, args, options = {}) {
  const params = { name, arguments: args };
  // The first line takes the schema of the result in between.
  return modern ? client.callTool(params, options) : client.callTool(params, undefined, options);
}

// The structured result of a call that succeeds.
async function call(name, args, options) {
  const result = await tool(name, args, options);
  assert.ok(!result.isError, JSON.stringify(result.content));
  return result.structuredContent;
}

async function until(what, done) {
  for (let tries = 0; tries < 200; tries += 1) {
    if (await done()) return;
    await sleep(100);
  }
  assert.fail(what);
}

await client.connect(transport);
if (modern) {
  assert.equal(client.getNegotiatedProtocolVersion(), revision);
  assert.equal(transport.sessionId, undefined, "this revision has no sessions");
} else {
  assert.ok(transport.sessionId?.length >= 32, "the server makes the session");
}

const { tools } = await client.listTools();
assert.ok(tools.some((one) => one.name === "exec"));

const ws = "ts";
const made = await call("workspace_create", { name: ws });
assert.equal(made.workspace.state, "running");

const seen = [];
const lines = "for i in 1 2 3; do echo line-$i; sleep 0.7; done; exit 3";
const ran = await call(
  "exec",
  { workspace: ws, command: lines },
  { onprogress: (progress) => seen.push(progress.message) },
);
assert.equal(ran.exit_code, 3);
assert.equal(ran.stdout, "line-1\nline-2\nline-3\n");
assert.ok(seen.some((message) => message.includes("line-1")), JSON.stringify(seen));

const path = "/data/deep/a.txt";
await call("file_write", { workspace: ws, path, content: "één\ntwo\n" });
const read = await call("file_read", { workspace: ws, path });
assert.equal(read.content, "één\ntwo\n");
const resource = await client.readResource({ uri: `pinfold://workspace/${ws}/file${path}` });
assert.equal(resource.contents[0].text, "één\ntwo\n");

const taken = await call("snapshot_create", { workspace: ws, name: "before" });
await call("file_manage", { workspace: ws, action: "remove", path });
await call("snapshot_restore", { workspace: ws, snapshot: "before" });
const forked = await call("workspace_fork", { snapshot: taken.snapshot.id, name: "child" });
const child = forked.children[0].name;
const inherited = await call("file_read", { workspace: child, path });
assert.equal(inherited.content, "één\ntwo\n");

const refused = await tool("file_read", { workspace: "nobody", path });
assert.ok(refused.isError && refused.content[0].text.includes("not_found"));

// The second process leaves the first one's group and session.
const command = "echo $$ > /tmp/first; setsid sleep 4321 & sleep 4322";
const abort = new AbortController();
const running = tool("exec", { workspace: ws, command }, { signal: abort.signal });
await until("the command to run", async () => {
  const listed = await tool("file_list", { workspace: ws, path: "/tmp/first" });
  return !listed.isError;
});
abort.abort("enough");
await assert.rejects(running);
await until("the end of a cancelled command", async () => {
  const left = await call("exec", { workspace: ws, command: "pgrep -f 'sleep 432[12]' | wc -l" });
  return left.stdout.trim() === "0";
});

for (const name of [child, ws]) await call("workspace_destroy", { workspace: name });
if (!modern) await transport.terminateSession();
await client.close();
