// A provider of OpenID Connect, the certified `oidc-provider`, on loopback with TLS. Whoever comes
// is signed in as the account that the request hints at, and agrees to everything.
//
// Usage: provider.mjs PLACE CERTIFICATE KEY. Says its issuer in the first line of its output. Then
// each line of JSON that it is given is answered with one: `{sign: {header, claims, key}}` with a
// token by the provider's own key ("own"), by one that it does not name ("other"), by its public key
// as if it were a secret ("public"), or by none ("none"), as somebody would forge one; `{rotate}`
// when it has another key; `{looks}` with how often its keys were looked at.

import * as crypto from "node:crypto";
import { readFileSync } from "node:fs";
import { createServer } from "node:https";
import { createRequire } from "node:module";
import { createInterface } from "node:readline";
import { pathToFileURL } from "node:url";

const [place, certificate, secret] = process.argv.slice(2);
const require = createRequire(`${place}/package.json`);
const imported = (name) => import(pathToFileURL(require.resolve(name)));
const { Provider } = await imported("oidc-provider");
const jose = await imported("jose");

async function key(kid) {
  const { privateKey } = await jose.generateKeyPair("ES256", { extractable: true });
  return { ...(await jose.exportJWK(privateKey)), kid, alg: "ES256", use: "sig" };
}
const half = ({ d, ...rest }) => rest;

const own = await key("first");
const other = await key("other");
let keys = [own];
let looks = 0;

const server = createServer({ cert: readFileSync(certificate), key: readFileSync(secret) });
await new Promise((done) => server.listen(0, "127.0.0.1", done));
const issuer = `https://127.0.0.1:${server.address().port}`;

const provider = new Provider(issuer, {
  jwks: { keys: [own] },
  findAccount: (ctx, id) => ({ accountId: id, claims: () => ({ sub: id }) }),
  scopes: ["openid", "offline_access", "pinfold", "pinfold.look"],
  clientDefaults: {
    token_endpoint_auth_method: "none",
    grant_types: ["authorization_code"],
    id_token_signed_response_alg: "ES256",
  },
  features: {
    devInteractions: { enabled: false },
    registration: { enabled: true },
    resourceIndicators: {
      enabled: true,
      useGrantedResource: () => true,
      getResourceServerInfo: (ctx, resource) => ({
        audience: resource,
        scope: "pinfold pinfold.look",
        accessTokenTTL: 600,
        accessTokenFormat: "jwt",
        jwt: { sign: { alg: "ES256" } },
      }),
    },
  },
  interactions: { url: (ctx, interaction) => `/interaction/${interaction.uid}` },
});
provider.on("server_error", (ctx, error) => console.error(error));

async function agree(request, response) {
  const { params, session } = await provider.interactionDetails(request, response);
  const account = session?.accountId ?? params.login_hint ?? "alice";
  const grant = new provider.Grant({ accountId: account, clientId: params.client_id });
  grant.addOIDCScope(params.scope ?? "");
  for (const resource of [params.resource].flat().filter(Boolean)) {
    grant.addResourceScope(resource, params.scope ?? "");
  }
  const consent = { grantId: await grant.save() };
  await provider.interactionFinished(request, response, { login: { accountId: account }, consent });
}

async function sign({ header, claims, key }) {
  if (key === "none") {
    const part = (value) => Buffer.from(JSON.stringify(value)).toString("base64url");
    return `${part({ ...header, alg: "none" })}.${part(claims)}.AAAA`;
  }
  const signer = new jose.SignJWT(claims);
  if (key === "public") {
    const text = crypto.createPublicKey({ key: half(own), format: "jwk" });
    const pem = text.export({ type: "spki", format: "pem" });
    return signer.setProtectedHeader({ ...header, alg: "HS256" }).sign(Buffer.from(pem));
  }
  const jwk = key === "other" ? other : keys.at(-1);
  const named = { alg: "ES256", kid: jwk.kid, ...header };
  return signer.setProtectedHeader(named).sign(await jose.importJWK(jwk, "ES256"));
}

const callback = provider.callback();
server.on("request", (request, response) => {
  if (request.url.startsWith("/interaction/")) return agree(request, response);
  if (request.url !== "/jwks") return callback(request, response);
  looks += 1;
  response.setHeader("content-type", "application/json");
  return response.end(JSON.stringify({ keys: keys.map(half) }));
});
console.log(issuer);

for await (const line of createInterface({ input: process.stdin })) {
  const asked = JSON.parse(line);
  if (asked.sign) console.log(JSON.stringify({ token: await sign(asked.sign) }));
  if (asked.rotate) {
    keys = [await key(`key-${crypto.randomUUID()}`)];
    console.log("{}");
  }
  if (asked.looks) console.log(JSON.stringify({ looks }));
}
process.exit(0);
