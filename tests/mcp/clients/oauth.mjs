// The official TypeScript client finds the way from a server's refusal to its provider, and back
// with a token. Its user's browser is played by fetch with a jar of cookies.
//
// Usage: oauth.mjs PLACE URL ACCOUNT SCOPE. Says in a line of JSON what came of it: `tools`, how
// many there are; `error`, in what the server refused the token; `token`, the token.

import { createRequire } from "node:module";

const [place, url, account, scope] = process.argv.slice(2);
const require = createRequire(`${place}/package.json`);
const { Client } = require("@modelcontextprotocol/sdk/client/index.js");
const sdk = require("@modelcontextprotocol/sdk/client/streamableHttp.js");
const auth = require("@modelcontextprotocol/sdk/client/auth.js");

const redirect = "http://127.0.0.1:9/callback";
const kept = {};
let authorization;
const person = {
  redirectUrl: redirect,
  clientMetadata: {
    client_name: "typescript",
    redirect_uris: [redirect],
    grant_types: ["authorization_code"],
    response_types: ["code"],
    token_endpoint_auth_method: "none",
    scope,
  },
  clientInformation: () => kept.client,
  saveClientInformation: (client) => { kept.client = client; },
  tokens: () => kept.tokens,
  saveTokens: (tokens) => { kept.tokens = tokens; },
  codeVerifier: () => kept.verifier,
  saveCodeVerifier: (verifier) => { kept.verifier = verifier; },
  redirectToAuthorization: (to) => { authorization = to; },
};

// Follows a browser's way until it is sent back to the client.
async function browse(from) {
  const jar = new Map();
  let at = new URL(from);
  at.searchParams.set("login_hint", account);
  at.searchParams.set("scope", scope);
  for (let step = 0; step < 20; step += 1) {
    const cookie = [...jar].map(([name, value]) => `${name}=${value}`).join("; ");
    const answer = await fetch(at, { redirect: "manual", headers: cookie ? { cookie } : {} });
    for (const line of answer.headers.getSetCookie()) {
      const [, name, value] = /^([^=]+)=([^;]*)/.exec(line);
      jar.set(name, value);
    }
    const to = answer.headers.get("location");
    if (!to) throw new Error(`${answer.status} at ${at}: ${await answer.text()}`);
    at = new URL(to, at);
    if (at.href.startsWith(redirect)) return at.searchParams;
  }
  throw new Error("the way has no end");
}

const transport = () =>
  new sdk.StreamableHTTPClientTransport(new URL(url), { authProvider: person });
const first = transport();
try {
  await new Client({ name: "typescript", version: "1" }).connect(first);
  throw new Error("the server let somebody in without a token");
} catch (error) {
  if (!(error instanceof auth.UnauthorizedError)) throw error;
}
const back = await browse(authorization);
if (!back.get("code")) throw new Error(`no code: ${back}`);
await first.finishAuth(back.get("code"));

const said = { token: kept.tokens.access_token };
// A second refusal shall not begin it all again.
const headers = { Authorization: `Bearer ${said.token}` };
const client = new Client({ name: "typescript", version: "1" });
try {
  const bare = new sdk.StreamableHTTPClientTransport(new URL(url), { requestInit: { headers } });
  await client.connect(bare);
  said.tools = (await client.listTools()).tools.length;
  await client.close();
} catch (error) {
  said.error = String(error);
}
console.log(JSON.stringify(said));
