// Draws /api/v1/openapi.json. Everything is put into the page as text, never as markup, so that
// nothing in the document can become a part of the page.
"use strict";

const METHODS = ["get", "post", "put", "patch", "delete"];
const DEPTH = 6;

const byId = (id) => document.getElementById(id);

/** An element with attributes and children; strings become text. */
function element(name, attributes, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes || {})) made.setAttribute(key, value);
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

const code = (text) => element("code", null, String(text));

/** The schema, response or header that a reference leads to. */
function resolve(spec, thing) {
  let seen = 0;
  while (thing && typeof thing === "object" && thing.$ref && seen++ < 8) {
    thing = thing.$ref.slice(2).split("/").reduce(
      (at, key) => (at === undefined ? at : at[key.replace(/~1/g, "/").replace(/~0/g, "~")]), spec);
  }
  return thing;
}

const nameOf = (thing) => (thing && thing.$ref ? thing.$ref.split("/").pop() : null);

/** One line about a schema. */
function kind(spec, schema) {
  if (schema === true || schema === undefined) return "anything";
  const found = resolve(spec, schema) || {};
  if ("const" in found) return JSON.stringify(found.const);
  if (found.enum) return found.enum.map((one) => JSON.stringify(one)).join(" | ");
  const choices = found.oneOf || found.anyOf;
  if (choices) return nameOf(schema) || choices.map((one) => kind(spec, one)).join(" | ");
  const types = [].concat(found.type || "anything");
  return types.map((type) => {
    if (type === "array") return kind(spec, found.items) + "[]";
    if (type === "object") return nameOf(schema) || "object";
    return found.format && type === "string" ? type + " (" + found.format + ")" : type;
  }).join(" | ");
}

/** The bounds of a schema in words. */
function bounds(found) {
  const told = [];
  if ("minimum" in found && found.minimum !== 0) told.push("from " + found.minimum);
  if ("maximum" in found && found.maximum < 2 ** 53) told.push("to " + found.maximum);
  if ("minLength" in found && found.minLength > 0) told.push("at least " + found.minLength + " characters");
  if ("maxLength" in found) told.push("at most " + found.maxLength + " characters");
  if ("maxItems" in found) told.push("at most " + found.maxItems);
  if ("maxProperties" in found) told.push("at most " + found.maxProperties);
  if (found.pattern) told.push("matches " + found.pattern);
  if ("default" in found && found.default !== null) told.push("default " + JSON.stringify(found.default));
  return told.join(", ");
}

/** A schema with its fields, opened level by level. */
function schemaView(spec, schema, depth) {
  const found = resolve(spec, schema);
  if (!found || typeof found !== "object") return element("p", null, kind(spec, schema));
  const box = element("div");
  if (found.description && depth === 0) box.append(element("p", null, found.description));
  const choices = found.oneOf || found.anyOf;
  if (choices && depth < DEPTH) {
    for (const choice of choices) {
      const inner = resolve(spec, choice) || {};
      const title = element("summary", null, code(kind(spec, choice)));
      if (inner.description) title.append(" " + inner.description);
      box.append(element("details", depth === 0 ? { open: "" } : null, title,
        schemaView(spec, choice, depth + 1)));
    }
  }
  if (found.type === "array" && depth < DEPTH) box.append(schemaView(spec, found.items, depth + 1));
  if (found.properties && depth < DEPTH) box.append(fieldsTable(spec, found, depth));
  if (box.childElementCount === 0) {
    box.append(element("p", null, code(kind(spec, schema)), " ", bounds(found)));
  }
  return box;
}

function fieldsTable(spec, found, depth) {
  const required = new Set(found.required || []);
  const table = element("table");
  for (const [name, field] of Object.entries(found.properties)) {
    const inner = resolve(spec, field) || {};
    const words = element("td", null, field.description || inner.description || "");
    const limits = bounds(inner);
    if (limits) words.append(" ", element("small", null, limits));
    if (inner.properties || inner.oneOf || inner.anyOf || (inner.items && nameOf(inner.items))) {
      const more = element("details", null, element("summary", null, "fields"));
      more.addEventListener("toggle", () => {
        if (more.open && more.childElementCount === 1) more.append(schemaView(spec, field, depth + 1));
      });
      words.append(more);
    }
    table.append(element("tr", null,
      element("td", null, code(name), required.has(name) ? element("b", { title: "required" }, " *") : null),
      element("td", null, code(kind(spec, field))), words));
  }
  return table;
}

/** A value that fits a schema, for the example. */
function example(spec, schema, depth) {
  const found = resolve(spec, schema);
  if (!found || typeof found !== "object") return null;
  if ("const" in found) return found.const;
  if (found.enum) return found.enum[0];
  const choices = found.oneOf || found.anyOf;
  if (choices) return example(spec, choices[0], depth + 1);
  const type = [].concat(found.type || "null")[0];
  if (type === "object") {
    const made = {};
    for (const name of depth < DEPTH ? found.required || [] : []) {
      made[name] = example(spec, (found.properties || {})[name], depth + 1);
    }
    return made;
  }
  if (type === "array") return found.minItems ? [example(spec, (found.prefixItems || [found.items])[0], depth + 1)] : [];
  if (type === "string") return /^\^\//.test(found.pattern || "") ? "/tmp/a" : "example";
  if (type === "integer" || type === "number") return Math.max(found.minimum || 0, 1);
  return type === "boolean" ? false : null;
}

const quoted = (text) => "'" + text.replace(/'/g, "'\\''") + "'";

function curl(spec, entry) {
  const { path, method, operation } = entry;
  const parameters = (operation.parameters || []).map((one) => resolve(spec, one));
  const filled = path.replace(/\{(\w+)\}/g, (_, name) => (name === "port" ? "8080" : name.toUpperCase()));
  const query = parameters.filter((one) => one.in === "query" && one.required)
    .map((one) => one.name + "=" + encodeURIComponent(example(spec, one.schema, 0))).join("&");
  const target = location.origin + filled + (query ? "?" + query : "");
  const lines = ["curl --fail-with-body -H \"Authorization: Bearer $PINFOLD_TOKEN\""];
  if (method !== "get") lines.push("-X " + method.toUpperCase());
  const content = (operation.requestBody || {}).content || {};
  if (content["application/json"]) {
    lines.push("-H 'Content-Type: application/json'");
    lines.push("-d " + quoted(JSON.stringify(example(spec, content["application/json"].schema, 0))));
  } else if (Object.keys(content)[0]) {
    lines.push("--upload-file FILE");
  }
  lines.push(quoted(target));
  return lines.join(" \\\n  ");
}

function show(spec, entry) {
  const { path, method, operation } = entry;
  const parts = [
    element("h2", null, element("span", { class: "method" }, method.toUpperCase() + " "), path),
    element("p", null, operation.description || operation.summary || ""),
    element("p", { class: "tags" },
      element("span", null, operation.operationId),
      element("span", null, "scope " + operation["x-scope"]),
      element("span", null, "rate class " + operation["x-rate-class"]),
      element("span", null, "repeat: " + operation["x-repeat"])),
  ];
  const parameters = (operation.parameters || []).map((one) => resolve(spec, one));
  if (parameters.length) {
    const table = element("table");
    for (const one of parameters) {
      table.append(element("tr", null,
        element("td", null, code(one.name), one.required ? element("b", { title: "required" }, " *") : null),
        element("td", null, one.in), element("td", null, code(kind(spec, one.schema))),
        element("td", null, one.description || "", " ",
          element("small", null, bounds(resolve(spec, one.schema) || {})))));
    }
    parts.push(element("h3", null, "Parameters"), table);
  }
  for (const [media, content] of Object.entries((operation.requestBody || {}).content || {})) {
    parts.push(element("h3", null, "Body: " + media));
    parts.push(content.schema ? schemaView(spec, content.schema, 0) : element("p", null, "Raw bytes."));
  }
  if (operation["x-websocket"]) {
    parts.push(element("h3", null, "Messages"));
    for (const [side, what] of Object.entries(operation["x-websocket"])) {
      parts.push(element("p", null, element("b", null, side.replace(/-/g, " "))));
      parts.push(typeof what === "string" ? element("p", null, what) : schemaView(spec, what, 0));
    }
  } else {
    parts.push(element("h3", null, "Example"), element("pre", null, curl(spec, entry)));
  }
  parts.push(element("h3", null, "Replies"));
  for (const [status, reference] of Object.entries(operation.responses)) {
    const reply = resolve(spec, reference) || {};
    const more = element("details", status < "300" ? { open: "" } : null,
      element("summary", null, element("b", null, status), " " + (reply.description || "")));
    for (const [media, content] of Object.entries(reply.content || {})) {
      more.append(element("p", null, code(media)));
      const schema = content.schema || content["x-line"];
      if (schema) more.append(schemaView(spec, schema, 0));
    }
    parts.push(more);
  }
  byId("detail").replaceChildren(...parts);
  document.title = operation.operationId + " · Pinfold API";
}

function draw(spec) {
  byId("version").textContent = spec.info.version;
  const entries = [];
  for (const [path, item] of Object.entries(spec.paths)) {
    for (const method of METHODS) {
      if (item[method]) entries.push({ path, method, operation: item[method] });
    }
  }
  const groups = new Map();
  for (const entry of entries) {
    const tag = (entry.operation.tags || ["other"])[0];
    if (!groups.has(tag)) groups.set(tag, []);
    groups.get(tag).push(entry);
    entry.text = (JSON.stringify(entry.operation) + entry.path).toLowerCase();
    entry.link = element("a", { href: "#" + entry.operation.operationId, title: entry.path },
      element("span", { class: "method" }, entry.method.toUpperCase()),
      element("span", null, entry.operation.operationId));
  }
  const list = byId("list");
  for (const [tag, members] of groups) {
    list.append(element("div", null, element("h2", null, tag), ...members.map((entry) => entry.link)));
  }
  const open = () => {
    const wanted = decodeURIComponent(location.hash.slice(1));
    const entry = entries.find((one) => one.operation.operationId === wanted);
    for (const one of entries) one.link.removeAttribute("aria-current");
    if (entry) {
      entry.link.setAttribute("aria-current", "true");
      show(spec, entry);
    } else {
      byId("detail").replaceChildren(element("p", null, spec.info.description || ""),
        element("p", null, element("a", { href: "/api/v1/openapi.json" }, "openapi.json")));
    }
  };
  byId("search").addEventListener("input", (event) => {
    const words = event.target.value.toLowerCase().split(/\s+/);
    for (const entry of entries) entry.link.hidden = !words.every((word) => entry.text.includes(word));
    for (const group of list.children) {
      group.hidden = [...group.querySelectorAll("a")].every((link) => link.hidden);
    }
  });
  addEventListener("hashchange", open);
  open();
}

fetch("/api/v1/openapi.json", { credentials: "same-origin" }).then(async (reply) => {
  const body = await reply.json();
  if (!reply.ok) throw new Error(body.detail + (body.hint ? ": " + body.hint : ""));
  draw(body);
}).catch((error) => {
  const status = byId("status");
  status.className = "bad";
  status.textContent = "The document could not be read: " + error.message;
});
