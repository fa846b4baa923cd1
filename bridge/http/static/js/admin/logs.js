/** Logs: every request, newest first, with filters and exports. */

import { fill, h } from "../lib/dom.js";
import { query } from "../lib/api.js";
import { PROVIDERS } from "../lib/registry.js";
import { emptyState, errorBox, field, select } from "../lib/ui.js";
import { logTable, openLine } from "./logtable.js";
import { call } from "./session.js";

const PAGE = 50;
const STATUSES = [
  ["", "Any"],
  ["ok", "Answered"],
  ["error", "Not answered"],
];
/** Where the codes of errors stand in the list, which has them by the names that the table shows. */
const GROUPS = [
  ["Caps and pace (429)", (status) => status === 429],
  ["The request, the key or the answer (4xx)", (status) => status < 500 && status !== 429],
  ["The CLI or the bridge (5xx)", (status) => status >= 500],
];

export const title = () => "Logs";

export function show({ head, body, query: given, session }) {
  const names = h("datalist", { id: "key-names" });
  const asked = given.get("status") ?? "";
  const inputs = {
    key: h("input", {
      type: "text",
      list: "key-names",
      value: given.get("key") ?? "",
      placeholder: "Any",
      autocomplete: "off",
      spellcheck: "false",
    }),
    provider: select(
      [["", "Any"], ...Object.entries(PROVIDERS).map(([name, { title }]) => [name, title])],
      given.get("provider") ?? "",
    ),
    status: select(statuses(session.codes, asked), asked),
    text: h("input", { type: "search", value: given.get("text") ?? "", placeholder: "Prompt, error, model or id" }),
    from: h("input", { type: "date", value: given.get("from") ?? "" }),
    to: h("input", { type: "date", value: given.get("to") ?? "" }),
  };
  const form = h(
    "form.card",
    { onsubmit: search, "aria-label": "Filters", role: "search" },
    h(
      "div.filters",
      {},
      field("Text", inputs.text),
      field("Key", inputs.key),
      field("Provider", inputs.provider),
      field("Status", inputs.status),
      field("From", inputs.from),
      field("Until", inputs.to),
    ),
    h(
      "div.row.filter-foot",
      {},
      h("button.button.primary", { type: "submit" }, "Show"),
      h("a.button", { href: "#/logs" }, "Clear"),
      h("span.hint", {}, "Days are those of your own time zone."),
    ),
    names,
  );
  const csv = h("a.button", { download: true }, "Export CSV");
  const jsonl = h("a.button", { download: true }, "Export JSONL");
  head.append(
    h("div.row", {}, h("button.button", { type: "button", onclick: () => load(null) }, "Refresh"), csv, jsonl),
  );
  const table = logTable("Requests");
  const more = h("div.pager", { hidden: true });
  const error = h("div");
  fill(body, form, error, h("section.card.flush", {}, table.element, more));
  const controller = new AbortController();

  for (const each of [inputs.provider, inputs.status]) each.addEventListener("change", search);
  setExports();
  load(null);
  suggest();

  function values() {
    return Object.fromEntries(Object.entries(inputs).map(([name, input]) => [name, input.value.trim()]));
  }

  /** The filters as the API wants them: days become moments, the last one included. */
  function filters() {
    const { from, to, ...rest } = values();
    const until = to && new Date(`${to}T00:00`);
    if (until) until.setDate(until.getDate() + 1);
    return { ...rest, since: from && new Date(`${from}T00:00`).toISOString(), until: until && until.toISOString() };
  }

  function search(event) {
    event.preventDefault();
    const next = `#/logs${query(values())}`;
    if (next === location.hash) load(null);
    else location.hash = next;
  }

  function setExports() {
    for (const [link, format] of [
      [csv, "csv"],
      [jsonl, "jsonl"],
    ])
      link.href = `/admin/logs/export${query({ ...filters(), format })}`;
  }

  async function load(before) {
    try {
      const page = await call("GET", `/admin/logs${query({ ...filters(), before, limit: PAGE, prompts: "preview" })}`, {
        signal: controller.signal,
      });
      fill(error);
      if (before === null) table.update(page.logs, openLine, nothing());
      else table.append(page.logs, openLine);
      more.hidden = !page.next;
      fill(more, h("button.button", { type: "button", onclick: () => load(page.next) }, "Show older"));
    } catch (failure) {
      if (!controller.signal.aborted)
        fill(
          error,
          errorBox(failure, () => load(before)),
        );
    }
  }

  function nothing() {
    return Object.values(values()).some(Boolean)
      ? emptyState(
          "Nothing matches",
          "No request in the log fits these filters.",
          h("a.button", { href: "#/logs" }, "Clear the filters"),
        )
      : emptyState("The log is empty", "Every request is listed here, also those that a cap has refused.");
  }

  async function suggest() {
    try {
      const { keys } = await call("GET", "/admin/keys?revoked=1", { background: true, signal: controller.signal });
      fill(
        names,
        keys.map((key) => h("option", { value: key.name })),
      );
    } catch {
      // Only a help for typing.
    }
  }

  return () => controller.abort();
}

/** The choices of the status: every code of an error, and whatever else the address names. */
function statuses(codes, asked) {
  const groups = GROUPS.map(([label, fits]) => [
    label,
    codes.filter(({ status }) => fits(status)).map(({ code }) => [code, code]),
  ]);
  const known = [...STATUSES.map(([value]) => value), ...codes.map(({ code }) => code)];
  return [...STATUSES, ...groups, ...(known.includes(asked) ? [] : [[asked, asked]])];
}
