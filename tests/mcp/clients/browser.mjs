// A person with a real browser: signs in with a link, refuses the official TypeScript client, lets
// it in, and signs out.
//
// Usage: browser.mjs PLACE CHROMIUM PROFILE LINK URL. Says in a line of JSON what was seen.

import http from "node:http";
import { createRequire } from "node:module";

const [place, chromium, profile, link, url] = process.argv.slice(2);
const require = createRequire(`${place}/package.json`);
const { Client } = require("@modelcontextprotocol/sdk/client/index.js");
const sdk = require("@modelcontextprotocol/sdk/client/streamableHttp.js");
const auth = require("@modelcontextprotocol/sdk/client/auth.js");
const puppeteer = (await import(`${place}/node_modules/puppeteer-core/lib/puppeteer/puppeteer-core.js`)).default;

// Where the client waits for its answer.
const answers = [];
const waiting = http.createServer((request, response) => {
  const at = new URL(request.url, "http://127.0.0.1");
  if (at.pathname === "/callback") answers.push(at.searchParams);
  response.end("back at the client");
});
await new Promise((listens) => waiting.listen(0, "127.0.0.1", listens));
const redirect = `http://127.0.0.1:${waiting.address().port}/callback`;

const kept = {};
let authorization;
const client = {
  redirectUrl: redirect,
  clientMetadata: {
    client_name: "typescript",
    redirect_uris: [redirect],
    grant_types: ["authorization_code", "refresh_token"],
    response_types: ["code"],
    token_endpoint_auth_method: "none",
  },
  clientInformation: () => kept.client,
  saveClientInformation: (made) => { kept.client = made; },
  tokens: () => kept.tokens,
  saveTokens: (tokens) => { kept.tokens = tokens; },
  codeVerifier: () => kept.verifier,
  saveCodeVerifier: (verifier) => { kept.verifier = verifier; },
  redirectToAuthorization: (to) => { authorization = to; },
};
const transport = () =>
  new sdk.StreamableHTTPClientTransport(new URL(url), { authProvider: client });

// Begins as a client that has no token, and gives the transport that waits for one.
async function begin() {
  const first = transport();
  try {
    await new Client({ name: "typescript", version: "1" }).connect(first);
  } catch (error) {
    if (error instanceof auth.UnauthorizedError) return first;
    throw error;
  }
  throw new Error("the server let somebody in without a token");
}

async function tools() {
  const session = new Client({ name: "typescript", version: "1" });
  await session.connect(transport());
  const { tools } = await session.listTools();
  await session.close();
  return tools.length;
}

const browser = await puppeteer.launch({
  executablePath: chromium,
  userDataDir: profile,
  args: ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"],
});
const said = { complaints: [], elsewhere: [] };
try {
  const page = await browser.newPage();
  const own = new URL(link).origin;
  page.on("console", (line) => {
    if (["error", "warn"].includes(line.type())) said.complaints.push(line.text());
  });
  page.on("pageerror", (error) => said.complaints.push(String(error)));
  page.on("request", (request) => {
    const origin = new URL(request.url()).origin;
    if (![own, new URL(url).origin, new URL(redirect).origin].includes(origin)) said.elsewhere.push(origin);
  });
  const heading = () => page.$eval("h1", (h1) => h1.textContent);
  const press = (text) =>
    Promise.all([page.waitForNavigation(), page.locator(`button::-p-text(${text})`).click()]);

  await page.goto(own);
  said.stranger = await heading();
  await page.goto(link);
  said.asked = await heading();
  said.styled = await page.evaluate(() => document.styleSheets[0]?.cssRules.length > 0);
  await press("Sign in");
  said.signed = await heading();
  said.readable = await page.evaluate(() => [document.cookie, localStorage.length, document.scripts.length]);
  const cookies = await browser.cookies();
  said.cookies = cookies.map(({ domain, httpOnly, sameSite, path }) => ({ domain, httpOnly, sameSite, path }));
  const answer = await page.goto(link);
  said.again = [answer.status(), await heading()];
  await press("Sign in");
  said.used = await heading();

  const refused = await begin();
  await page.goto(authorization.href);
  await page.waitForSelector("button[value=deny]");
  said.consent = await heading();
  said.shown = await page.$$eval("dd", (all) => all.map((one) => one.textContent));
  await press("Deny");
  const no = answers.pop();
  said.denied = [no.get("error"), no.get("iss"), no.has("code")];
  await refused.close();

  const first = await begin();
  await page.goto(authorization.href);
  await page.waitForSelector("button[value=approve]");
  await press("Approve");
  said.back = page.url().startsWith(redirect);
  await first.finishAuth(answers.pop().get("code"));
  said.tools = await tools();
  // A token that has gone stale is renewed without a person.
  const before = kept.tokens;
  kept.tokens = { ...before, access_token: `${before.access_token}x` };
  said.renewed = [await tools(), kept.tokens.refresh_token !== before.refresh_token];

  await page.goto(own);
  said.let_in = await page.$$eval("summary", (all) => all.map((one) => one.textContent));
  await press("Sign out");
  said.left = await heading();
  await page.goto(own);
  said.after = await heading();
  said.kept = (await browser.cookies()).length;
  said.still = await tools();
} finally {
  await browser.close();
  waiting.close();
}
console.log(JSON.stringify(said));
