/** Audit: who changed what, when, and from where. */

import { fill, h } from "../lib/dom.js";
import { visible, whenExact, whenFull } from "../lib/format.js";
import { cell, row, table } from "../lib/table.js";
import { emptyState, errorBox, skeleton } from "../lib/ui.js";
import { call } from "./session.js";

const ACTIONS = {
  key_created: "made the key",
  key_changed: "changed the key",
  key_revoked: "revoked the key",
  key_rotated: "rotated the key",
  key_disabled: "disabled the key",
  key_enabled: "enabled the key",
  credential_added: "added the credential",
  credential_changed: "changed the credential",
  credential_removed: "removed the credential",
  credential_enabled: "enabled the credential",
  credential_disabled: "disabled the credential",
  credential_reset: "let be tried again the credential",
  usage_reset: "reset the usage of",
  run_stopped: "stopped the request",
  logs_exported: "exported the log as",
  loop_suspected: "paused, for a suspected loop, the key",
  link_made: "made a link that logs in once",
  logged_in: "logged in",
  logged_out: "logged out",
  sessions_ended: "ended all sessions",
};
const ALONE = new Set(["link_made", "logged_in", "logged_out", "sessions_ended"]);

export const title = () => "Audit";

export function show({ head, body }) {
  head.append(h("button.button", { type: "button", onclick: () => load(null) }, "Refresh"));
  const { element, body: rows } = table("Changes by admins", [["When"], ["Who"], ["What"], ["From"]]);
  const box = h("section.card.flush", {}, skeleton(6));
  const more = h("div.pager", { hidden: true });
  const error = h("div");
  fill(body, error, box);
  let left = false;

  async function load(before) {
    let answer;
    try {
      answer = await call("GET", `/admin/audit?limit=50${before ? `&before=${encodeURIComponent(before)}` : ""}`);
    } catch (failure) {
      if (!left)
        fill(
          error,
          errorBox(failure, () => load(before)),
        );
      return;
    }
    if (left) return;
    fill(error);
    if (before === null) rows.replaceChildren();
    rows.append(...answer.audit.map(entryRow));
    if (rows.childElementCount) fill(box, element, more);
    else
      fill(
        box,
        emptyState(
          "Nothing was changed yet",
          "Every change of a key, every log-in and every stopped request is written down here.",
        ),
      );
    more.hidden = !answer.next;
    fill(more, h("button.button", { type: "button", onclick: () => load(answer.next) }, "Show older"));
  }

  load(null);
  return () => {
    left = true;
  };
}

function entryRow(entry) {
  const subject = ALONE.has(entry.action) ? null : h("strong", {}, h("bdi", {}, visible(entry.subject)));
  const changes = differences(entry.before, entry.after);
  return row(
    {},
    cell("When", h("time.nowrap", { datetime: entry.at, title: whenFull(entry.at) }, whenExact(entry.at))),
    cell("Who", h("bdi", {}, visible(entry.actor))),
    cell("", [
      h("div", {}, ACTIONS[entry.action] ?? visible(entry.action), " ", subject),
      changes.map((change) => h("div.small.muted", {}, h("bdi", {}, change))),
    ]),
    cell("From", h("span.mono", {}, visible(entry.address || "this host"))),
  );
}

/** What is not the same before and after, one line each. */
function differences(before, after) {
  const [old, now] = [flat(before), flat(after)];
  return [...new Set([...Object.keys(old), ...Object.keys(now)])]
    .filter((name) => old[name] !== now[name])
    .map((name) => {
      const [was, is] = [old[name], now[name]].map((value) => (value === undefined ? null : visible(value)));
      if (was === null) return `${visible(name)}: ${is}`;
      return is === null ? `${visible(name)} was ${was}` : `${visible(name)}: ${was} → ${is}`;
    });
}

function flat(value, prefix = "") {
  if (value === null || value === undefined || value === "") return {};
  if (typeof value !== "object") return { [prefix || "value"]: String(value) };
  if (Array.isArray(value)) return { [prefix]: value.join(", ") || "none" };
  return Object.assign(
    {},
    ...Object.entries(value).map(([name, each]) =>
      flat(each, prefix && prefix !== "limits" ? `${prefix}.${name}` : name),
    ),
  );
}
