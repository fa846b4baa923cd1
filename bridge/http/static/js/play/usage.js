/** The holder's own usage: bars, what remains, when it resets, and the last requests. */

import { call } from "../lib/api.js";
import { bar, levels, otherLimits } from "../lib/bars.js";
import { fill, h, keyed, say } from "../lib/dom.js";
import {
  cost,
  count,
  duration,
  inWords,
  money,
  plural,
  resets,
  visible,
  when,
  whenExact,
  whenFull,
} from "../lib/format.js";
import { poll } from "../lib/poll.js";
import { cell, row, table } from "../lib/table.js";
import { badge, card, emptyState, skeleton } from "../lib/ui.js";

export const title = "My usage";

const EVERY_MS = 5000;

export function show(main, { headers, expired }) {
  const heading = h("h1", { tabindex: "-1" }, "My usage");
  const bars = h("div.bars.wide");
  const noBars = h("p.muted", { hidden: true }, "Your key has no cap per day or month.");
  const facts = h("dl.facts");
  const { element, body: rows } = table("Your last requests", [
    ["When"],
    ["Model"],
    ["Status"],
    ["Tokens", "num"],
    ["Cost", "num"],
    ["Took", "num"],
    ["Prompt"],
  ]);
  const holder = h("div", {}, skeleton(4));
  const empty = emptyState(
    "No requests yet",
    "What you ask for is listed here as it happens.",
    h("a.button", { href: "#/" }, "Go to the playground"),
  );
  fill(
    main,
    h("div.page-head", {}, heading),
    h(
      "div.stack",
      {},
      h("div.three-two", {}, card("Limits", null, bars, noBars), card("Your key", null, facts)),
      h("section.card.flush", {}, h("div.card-head", {}, h("h2", {}, "Last requests")), holder),
    ),
  );
  heading.focus({ preventScroll: true });

  const watch = poll(
    async (signal) => {
      const [me, { requests }] = await Promise.all([ask("/me", signal), ask("/me/requests", signal)]);
      const shown = levels(me.limits, me.usage);
      noBars.hidden = shown.length > 0;
      keyed(
        bars,
        shown,
        (level) => level.limit,
        () => bar({ full: true, note: (level) => resets(me.resetsAt[level.window], me.timezone) }),
      );
      keyed(
        facts,
        about(me, otherLimits(me.limits, shown)).flatMap(([term, value]) => [
          [`t${term}`, "dt", term],
          [`d${term}`, "dd", value],
        ]),
        (each) => each[0],
        ([, tag]) => {
          const part = h(tag);
          return { element: part, update: ([, , value]) => say(part, value) };
        },
      );
      const wanted = requests.length ? element : empty;
      if (!wanted.isConnected) fill(holder, wanted);
      keyed(rows, requests, (each) => each.id, requestRow);
    },
    EVERY_MS,
    holder,
  );

  /** A key that is no longer good ends the page, and says why. */
  async function ask(path, signal) {
    try {
      return await call("GET", path, { headers, signal });
    } catch (error) {
      if (error.status === 401 || error.status === 403) expired(error);
      throw error;
    }
  }

  return () => watch.stop();
}

function about(me, others) {
  const window = (each) =>
    `${money(each.costUsd)}, ${plural(each.requests, "request")}, ${plural(each.tokens, "token")}`;
  return [
    ["Name", me.name],
    ...Object.keys(me.resetsAt).map((each) => [inWords(each), window(me.usage[each])]),
    ["At most", others.length ? others.join(", ") : "no limit on pace"],
    [
      "May use",
      Object.entries(me.models)
        .filter(([, each]) => each.allowed.length)
        .map(([name, each]) => `${name}${Array.isArray(each.allowed) ? ` (${each.allowed.join(", ")})` : ""}`)
        .join(", ") || "nothing",
    ],
    ["Expires", me.expiresAt ? when(me.expiresAt) : "never"],
  ];
}

function requestRow(line) {
  const kind = line.status < 400 ? "good" : line.code === "cancelled" ? "" : line.status < 500 ? "warn" : "bad";
  const prompt = line.userPrompt === null ? "not kept" : visible(line.userPrompt);
  return {
    element: row(
      { class: "line" },
      cell(
        "When",
        h("time.nowrap", { datetime: line.timestamp, title: whenFull(line.timestamp) }, whenExact(line.timestamp)),
      ),
      cell("Model", h("bdi", {}, visible(line.model))),
      cell("Status", badge(line.status < 400 ? "ok" : visible(line.code ?? String(line.status)), kind)),
      cell("Tokens", count(line.inputTokens + line.outputTokens), "num"),
      cell("Cost", cost(line.costUsd), "num"),
      cell("Took", line.durationMs ? duration(line.durationMs) : "–", "num"),
      h("td.block.prompt", { role: "cell" }, h("bdi.truncate.small.muted", {}, prompt)),
    ),
  };
}
