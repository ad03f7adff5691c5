// A person with a real browser: signs in with a link, refuses the official TypeScript client, lets
// it in, as one that registered itself and as one that is known by its document, and signs out.
//
// Usage: browser.mjs PLACE CHROMIUM PROFILE CHAIN KEY. Says the port of the client's document, with
// that certificate, then reads a line with the link and the server's URL, and says in a line of
// JSON what was seen.

import fs from "node:fs";
import http from "node:http";
import https from "node:https";
import { createRequire } from "node:module";
import readline from "node:readline";

const [place, chromium, profile, chain, key] = process.argv.slice(2);
const require = createRequire(`${place}/package.json`);
const { Client } = require("@modelcontextprotocol/sdk/client/index.js");
const sdk = require("@modelcontextprotocol/sdk/client/streamableHttp.js");
const auth = require("@modelcontextprotocol/sdk/client/auth.js");
const core = "node_modules/puppeteer-core/lib/puppeteer/puppeteer-core.js";
const puppeteer = (await import(`${place}/${core}`)).default;

async function listening(server) {
  await new Promise((listens) => server.listen(0, "127.0.0.1", listens));
  return server.address().port;
}

// Where the client waits for its answer.
const answers = [];
const waiting = http.createServer((request, response) => {
  const at = new URL(request.url, "http://127.0.0.1");
  if (at.pathname === "/callback") answers.push(at.searchParams);
  response.end("back at the client");
});
const redirect = `http://127.0.0.1:${await listening(waiting)}/callback`;

const about = (name) => ({
  client_name: name,
  redirect_uris: [redirect],
  grant_types: ["authorization_code", "refresh_token"],
  response_types: ["code"],
  token_endpoint_auth_method: "none",
});
// Where its document lies.
const files = { cert: fs.readFileSync(chain), key: fs.readFileSync(key) };
const shelf = https.createServer(files, (request, response) => {
  response.setHeader("content-type", "application/json");
  response.end(JSON.stringify({ client_id: lies, ...about("documented") }));
});
const port = await listening(shelf);
const lies = `https://127.0.0.1:${port}/client.json`;
console.log(port);
const lines = readline.createInterface({ input: process.stdin })[Symbol.asyncIterator]();
const [link, url] = (await lines.next()).value.split(" ");

// What a client keeps, and where it last wanted its person to go.
function client(name, more) {
  const kept = {};
  const provider = {
    redirectUrl: redirect,
    clientMetadata: about(name),
    clientInformation: () => kept.client,
    saveClientInformation: (made) => { kept.client = made; },
    tokens: () => kept.tokens,
    saveTokens: (tokens) => { kept.tokens = tokens; },
    codeVerifier: () => kept.verifier,
    saveCodeVerifier: (verifier) => { kept.verifier = verifier; },
    redirectToAuthorization: (to) => { kept.authorization = to.href; },
    ...more,
  };
  const transport = () =>
    new sdk.StreamableHTTPClientTransport(new URL(url), { authProvider: provider });
  return { kept, transport };
}

// Begins as a client that has no token, and gives the transport that waits for one.
async function begin({ transport }) {
  const first = transport();
  try {
    await new Client({ name: "typescript", version: "1" }).connect(first);
  } catch (error) {
    if (error instanceof auth.UnauthorizedError) return first;
    throw error;
  }
  throw new Error("the server let somebody in without a token");
}

async function tools({ transport }) {
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
    const known = [own, new URL(url).origin, new URL(redirect).origin];
    if (!known.includes(origin)) said.elsewhere.push(origin);
  });
  const heading = () => page.$eval("h1", (h1) => h1.textContent);
  const waitFor = async (button) => {
    try {
      await page.waitForSelector(`button[value=${button}]`, { timeout: 10_000 });
    } catch (error) {
      const text = await page.$eval("body", (body) => body.innerText);
      throw new Error(`no ${button} at ${page.url()}: ${text}`, { cause: error });
    }
  };
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

  const registered = client("typescript");
  const refused = await begin(registered);
  await page.goto(registered.kept.authorization);
  await waitFor("deny");
  said.consent = await heading();
  const facts = () => page.$$eval("dd", (all) => all.map((one) => one.textContent));
  said.shown = await facts();
  await press("Deny");
  const no = answers.pop();
  said.denied = [no.get("error"), no.get("iss"), no.has("code")];
  await refused.close();

  const approve = async (who) => {
    const first = await begin(who);
    await page.goto(who.kept.authorization);
    await waitFor("approve");
    const shown = await facts();
    await press("Approve");
    said.back = page.url().startsWith(redirect);
    await first.finishAuth(answers.pop().get("code"));
    return shown;
  };
  await approve(registered);
  said.tools = await tools(registered);
  // A token that has gone stale is renewed without a person.
  const before = registered.kept.tokens;
  registered.kept.tokens = { ...before, access_token: `${before.access_token}x` };
  const after = await tools(registered);
  said.renewed = [after, registered.kept.tokens.refresh_token !== before.refresh_token];
  const documented = client("never shown", { clientMetadataUrl: lies });
  said.documented = await approve(documented);
  said.documented_tools = await tools(documented);

  await page.goto(own);
  said.let_in = await page.$$eval("summary", (all) => all.map((one) => one.textContent));
  await press("Sign out");
  said.left = await heading();
  await page.goto(own);
  said.after = await heading();
  said.kept = (await browser.cookies()).length;
  said.still = await tools(registered);
} finally {
  await browser.close();
  waiting.close();
  shelf.close();
}
console.log(JSON.stringify(said));
process.exit(0);
