/** The dialogs of a key: make, change, rotate, and the one moment in which its secret is shown. */

import { copyAs } from "../lib/copyas.js";
import { fill, h } from "../lib/dom.js";
import { inWords, money } from "../lib/format.js";
import { LIMITS, PROVIDERS } from "../lib/registry.js";
import { copyButton, dialog, errorBox, field, select } from "../lib/ui.js";
import { call } from "./session.js";

const [FIRST] = Object.keys(PROVIDERS);

const PRESETS = [
  ["Designer: $5 a day", { maxCostPerDay: 5, maxRequestsPerMinute: 20, maxConcurrent: 2 }],
  ["Prototype: $2 a day, $20 a month", { maxCostPerDay: 2, maxCostPerMonth: 20, maxConcurrent: 4 }],
  [
    "Script or sheet: $1 a day, one at a time",
    { maxCostPerDay: 1, maxCostPerMonth: 10, maxRequestsPerMinute: 10, maxConcurrent: 1 },
  ],
  [
    "Team tool: $25 a day, $250 a month",
    { maxCostPerDay: 25, maxCostPerMonth: 250, maxRequestsPerMinute: 60, maxConcurrent: 8 },
  ],
  ["Guest: $1 a day, for a week", { maxCostPerDay: 1, maxRequestsPerDay: 100, maxConcurrent: 1, expiry: "7" }],
];
const EXPIRIES = [
  ["", "Never"],
  ["1", "In a day"],
  ["7", "In a week"],
  ["30", "In 30 days"],
  ["90", "In 90 days"],
  ["date", "On a date"],
];
const GRACES = [
  ["0", "At once"],
  ["3600", "In an hour"],
  ["86400", "In a day"],
  ["604800", "In a week"],
];

/** Ask for a new key and make it. Gives its name, or undefined. */
export async function createKey(session) {
  const credentials = await credentialNames();
  const made = await dialog((close) => form(session, null, credentials, close), { wide: true });
  if (made) await showSecret(made, session, "made");
  return made?.name;
}

/** Change a key. Gives whether it was. */
export async function editKey(session, key) {
  const credentials = await credentialNames();
  return Boolean(await dialog((close) => form(session, key, credentials, close), { wide: true }));
}

/** What a key may be bound to; a list that cannot be had only lacks in a hint. */
async function credentialNames() {
  try {
    return (await call("GET", "/admin/credentials")).credentials.map((each) => each.name);
  } catch {
    return [];
  }
}

/** Give a key a new secret, after asking how long the old one shall work. */
export async function rotateKey(session, key) {
  const grace = select(GRACES, "0");
  const problem = h("div");
  const rotated = await dialog((close) => ({
    title: `Rotate ${key.name}`,
    body: [
      h("p", {}, "The key gets a new secret, which is shown once. Limits and usage stay."),
      field("The old secret stops working", grace),
      problem,
    ],
    actions: [
      h("button.button", { type: "button", onclick: () => close() }, "Cancel"),
      h(
        "button.button.primary",
        {
          type: "button",
          onclick: async () => {
            try {
              const path = `/admin/keys/${encodeURIComponent(key.name)}/rotate`;
              close(await call("POST", path, { body: { graceSeconds: Number(grace.value) } }));
            } catch (error) {
              fill(problem, errorBox(error));
            }
          },
        },
        "Rotate",
      ),
    ],
  }));
  if (rotated) await showSecret(rotated, session, "rotated");
  return Boolean(rotated);
}

/** The secret of a key, this once, with code that uses it. */
function showSecret(made, session, what) {
  // A key that may use nothing yet has no example.
  const { provider, model } = made.example ?? { provider: FIRST, model: session.defaultModels[FIRST] };
  const request = () => ({
    base: location.origin,
    provider,
    body: { userPrompt: "Three names for a tea shop", model },
  });
  return dialog(
    (close) => ({
      title: `Key ${made.name} ${what}`,
      body: [
        h("p", {}, "Copy the key now. It is stored as a hash and ", h("strong", {}, "cannot be shown again"), "."),
        h(
          "div.secret",
          {},
          h("code", { id: "new-key" }, made.key),
          copyButton(() => made.key, "Copy key"),
        ),
        h(
          "div",
          {},
          h("h3", {}, "Ready to use, with this key in it"),
          h("div.spaced", {}, copyAs(request, made.key).element),
        ),
      ],
      actions: [h("button.button.primary", { type: "button", onclick: () => close() }, "I have copied the key")],
    }),
    { wide: true, closable: false },
  );
}

function form(session, key, credentials, close) {
  const defaults = Object.fromEntries(session.limits.map((limit) => [limit.name, limit.default]));
  const inputs = Object.fromEntries(LIMITS.map((limit) => [limit.name, limitInput(limit, key, defaults[limit.name])]));
  const name = h("input", {
    type: "text",
    required: true,
    maxlength: "50",
    pattern: "[A-Za-z0-9_\\-]{1,50}",
    autocomplete: "off",
    spellcheck: "false",
  });
  const note = h("input", { type: "text", maxlength: "500", autocomplete: "off" });
  const models = h("input", { type: "text", autocomplete: "off", spellcheck: "false", placeholder: "any" });
  const bound = h("input", { type: "text", autocomplete: "off", spellcheck: "false", placeholder: "any" });
  const providers = Object.fromEntries(Object.keys(PROVIDERS).map((each) => [each, checkbox(true)]));
  const expiry = select(EXPIRIES, "", { onchange: showDate });
  const date = h("input", { type: "datetime-local" });
  const dateField = field("Expires at (your time)", date);
  const problem = h("div");
  const preset = select(
    [["", "The server's defaults"], ...PRESETS.map(([label], place) => [String(place), label])],
    "",
    { onchange: usePreset },
  );

  if (key) {
    note.value = key.note;
    models.value = (key.models ?? []).join(", ");
    bound.value = (key.credentials ?? []).join(", ");
    for (const [each, input] of Object.entries(providers))
      input.checked = key.providers === null || key.providers.includes(each);
    if (key.expiresAt) {
      expiry.value = "date";
      date.value = local(new Date(key.expiresAt));
    }
  }
  showDate();

  function showDate() {
    dateField.hidden = expiry.value !== "date";
    date.required = expiry.value === "date";
  }

  function usePreset() {
    const chosen = preset.value === "" ? {} : PRESETS[Number(preset.value)][1];
    for (const [limit, input] of Object.entries(inputs)) input.value = chosen[limit] ?? "";
    expiry.value = chosen.expiry ?? "";
    showDate();
  }

  async function submit(event) {
    event.preventDefault();
    fill(problem);
    const chosen = Object.keys(providers).filter((each) => providers[each].checked);
    const body = {
      ...(key ? {} : { name: name.value.trim() }),
      ...limits(inputs),
      note: note.value.trim(),
      models: names(models.value),
      credentials: names(bound.value),
      providers: chosen.length === Object.keys(providers).length ? null : chosen,
      ...(key && expiryIs(key) ? {} : { expiresAt: expiresAt() }),
    };
    try {
      const path = key ? `/admin/keys/${encodeURIComponent(key.name)}` : "/admin/keys";
      close(await call(key ? "PATCH" : "POST", path, { body }));
    } catch (error) {
      fill(problem, errorBox(error));
      problem.scrollIntoView({ block: "nearest" });
    }
  }

  function expiresAt() {
    if (expiry.value === "") return null;
    if (expiry.value === "date") return new Date(date.value).toISOString();
    return new Date(Date.now() + Number(expiry.value) * 86400000).toISOString();
  }

  /** Whether the fields still say what the key has: its time may lie in the past, which cannot be sent. */
  function expiryIs(old) {
    return old.expiresAt
      ? expiry.value === "date" && date.value === local(new Date(old.expiresAt))
      : expiry.value === "";
  }

  const id = "key-form";
  return {
    title: key ? `Change ${key.name}` : "New key",
    body: h(
      "form.stack",
      { id, onsubmit: submit },
      !key &&
        h(
          "div.fields",
          {},
          field("Name", name, "Letters, digits, _ and -. It cannot be changed later."),
          field("Start from", preset, "Fills in the limits below; change what you like."),
        ),
      h(
        "div.fields",
        {},
        field("Note", note, "For yourself: who it is for, what for."),
        field("Expires", expiry),
        dateField,
      ),
      [...new Set(LIMITS.map((limit) => limit.group))].map((group) => {
        const rows = LIMITS.filter((limit) => limit.group === group);
        return h(
          "fieldset",
          {},
          h("legend", {}, group),
          h(
            rows.length > 3 ? "div.fields.four" : "div.fields.three",
            {},
            rows.map((limit) => field(inWords(limit.label), inputs[limit.name])),
          ),
        );
      }),
      h("p.hint", {}, "Empty: the server's default, which is shown in grey. 0: no limit, on purpose."),
      h(
        "div.fields",
        {},
        h(
          "fieldset",
          {},
          h("legend", {}, "May use"),
          h(
            "div.row",
            {},
            Object.entries(PROVIDERS).map(([each, { title }]) => h("label.check", {}, providers[each], title)),
          ),
        ),
        field("Only these models", models, "Names with commas between them. Empty: any."),
        field("Only these credentials", bound, `Names with commas between them${such(credentials)}. Empty: any.`),
      ),
      problem,
    ),
    actions: [
      h("button.button", { type: "button", onclick: () => close() }, "Cancel"),
      h("button.button.primary", { type: "submit", form: id }, key ? "Save" : "Make the key"),
    ],
  };
}

function such(credentials) {
  if (!credentials.length) return "";
  return `, of ${credentials.slice(0, 6).join(", ")}${credentials.length > 6 ? " …" : ""}`;
}

function limitInput(limit, key, byDefault) {
  const money_ = limit.unit === "dollars";
  const shown = byDefault === 0 ? "no limit" : money_ ? money(byDefault) : String(byDefault);
  const input = h("input", {
    type: "number",
    min: "0",
    step: money_ ? "any" : "1",
    inputmode: "decimal",
    placeholder: shown,
    name: limit.name,
  });
  const own = key?.ownLimits[limit.name];
  if (own !== undefined) {
    input.value = own;
    // A limit that was named once can be changed, not unnamed: an empty field would mean nothing.
    input.required = true;
  }
  return input;
}

function limits(inputs) {
  return Object.fromEntries(
    Object.entries(inputs)
      .filter(([, input]) => input.value !== "")
      .map(([limit, input]) => [limit, input.valueAsNumber]),
  );
}

function names(text) {
  const found = text
    .split(",")
    .map((each) => each.trim())
    .filter(Boolean);
  return found.length ? found : null;
}

function checkbox(checked) {
  const input = h("input", { type: "checkbox" });
  input.checked = checked;
  return input;
}

/** A moment as a datetime-local field wants it. */
function local(moment) {
  return new Date(moment.getTime() - moment.getTimezoneOffset() * 60000).toISOString().slice(0, 16);
}
