/** Lines of the request log as a table, and one of them in full. */

import { fill, h } from "../lib/dom.js";
import { cost, count, duration, plural, visible, whenExact, whenFull } from "../lib/format.js";
import { longTextIn } from "../lib/longtext.js";
import { cell, row, table } from "../lib/table.js";
import { badge, dialog, errorBox, skeleton } from "../lib/ui.js";
import { call } from "./session.js";

/** {element, update(lines, open, empty), append(lines, open)}: `open(line)` is called for the line that is chosen. */
export function logTable(caption, { withKey = true } = {}) {
  const columns = [
    ["When"],
    ...(withKey ? [["Key"]] : []),
    ["Model"],
    ["Status"],
    ["Tokens", "num"],
    ["Cost", "num"],
    ["Took", "num"],
    ["Prompt"],
  ];
  const { element, body } = table(caption, columns);
  const holder = h("div", {}, skeleton(6));
  let ids = null;

  function append(lines, open) {
    body.append(...lines.map((line) => lineRow(line, withKey, open)));
  }

  return {
    element: holder,
    append,
    /** Show these lines and no others; nothing is touched where they are the same as before. */
    update(lines, open, empty) {
      const now = lines.map((line) => line.id).join();
      if (now === ids && body.childElementCount === lines.length) return;
      ids = now;
      body.replaceChildren();
      append(lines, open);
      fill(holder, lines.length ? element : empty);
    },
  };
}

function lineRow(line, withKey, open) {
  const asked = line.userPrompt === null ? h("span.muted", {}, "not kept") : visible(line.userPrompt);
  return row(
    {
      class: "line log-row",
      onclick: (event) => {
        if (!event.target.closest("a, button") && !String(getSelection())) open(line);
      },
    },
    cell(
      "When",
      h(
        "button.link-button.nowrap",
        { type: "button", title: whenFull(line.timestamp), onclick: () => open(line) },
        whenExact(line.timestamp),
      ),
    ),
    withKey &&
      cell(
        "Key",
        h("a.key-name", { href: `#/keys/${encodeURIComponent(line.keyName)}` }, h("bdi", {}, visible(line.keyName))),
      ),
    cell("Model", h("bdi.nowrap", {}, visible(line.model))),
    cell("Status", statusBadge(line)),
    cell("Tokens", count(tokens(line)), "num"),
    cell("Cost", cost(line.costUsd), "num"),
    cell("Took", line.durationMs ? duration(line.durationMs) : "–", "num"),
    h("td.block.prompt", { role: "cell" }, h("bdi.truncate.small.muted", {}, asked)),
  );
}

function tokens(line) {
  return line.inputTokens + line.cacheReadTokens + line.cacheWriteTokens + line.outputTokens;
}

function statusBadge(line) {
  if (line.status < 400) return badge("ok", "good");
  const kind = line.code === "cancelled" ? "" : line.status < 500 ? "warn" : "bad";
  return badge(visible(line.code ?? String(line.status)), kind);
}

/** A line in a dialog, with its prompts as far as the log has them. */
export function openLine(line) {
  const body = h("div.stack", {}, skeleton(5));
  fillIn(body, line);
  return dialog(
    (close) => ({
      title: "Request",
      body,
      actions: [h("button.button", { type: "button", onclick: () => close() }, "Close")],
    }),
    { wide: true },
  );
}

async function fillIn(body, { id }) {
  try {
    const line = await call("GET", `/admin/logs/${encodeURIComponent(id)}`);
    fill(body, details(line));
  } catch (error) {
    fill(body, errorBox(error));
  }
}

function details(line) {
  const times = [
    ["Waited for a slot", line.queuedMs],
    ["To the first text", line.firstTokenMs],
    ["The model", line.modelMs],
    ["Added by CLI and bridge", line.overheadMs],
    ["Altogether", line.durationMs],
  ].filter(([, value]) => value !== null && value !== undefined);
  const usage = [
    ["Input", line.inputTokens],
    ["Read from cache", line.cacheReadTokens],
    ["Written to cache", line.cacheWriteTokens],
    ["Output", line.outputTokens],
    ["Of it reasoning", line.reasoningTokens],
  ].filter(([, value]) => value);
  return [
    line.error &&
      errorBox({ message: visible(line.error), hint: line.hint, code: `${line.status} ${visible(line.code ?? "")}` }),
    h(
      "dl.facts",
      {},
      facts([
        ["Id", h("span.mono", {}, visible(line.id))],
        ...(line.requestId ? [["Request id", h("span.mono", {}, visible(line.requestId))]] : []),
        ["When", whenFull(line.timestamp)],
        [
          "Key",
          h(
            "a",
            {
              href: `#/keys/${encodeURIComponent(line.keyName)}`,
              onclick: (event) => event.target.closest("dialog").close(),
            },
            h("bdi", {}, visible(line.keyName)),
          ),
        ],
        [
          "Model",
          `${visible(line.model)} (${visible(line.provider)})${line.alias ? `, asked for as ${visible(line.alias)}` : ""}`,
        ],
        ["Asked by", `${visible(line.api)} API${line.stream ? ", as a stream" : ""}`],
        ["Status", statusBadge(line)],
        ...(line.stopReason ? [["Ended with", visible(line.stopReason)]] : []),
        ...(line.calls ? [["Calls", h("span.mono", {}, visible(line.calls))]] : []),
        ...(line.repairs > 0
          ? [["Asked again", `${plural(line.repairs, "time")}, because the answer missed its schema`]]
          : []),
        [
          "Cost",
          `${cost(line.costUsd)}${line.assumed ? " (assumed: it broke off without a bill)" : ""}${line.reservedUsd ? `, of ${cost(line.reservedUsd)} reserved` : ""}`,
        ],
        ["Tokens", usage.map(([name, value]) => `${name} ${count(value)}`).join(", ") || "none"],
        ["Times", times.map(([name, value]) => `${name} ${duration(value)}`).join(", ") || "none"],
        ...(line.upstreamStatus ? [["Provider's status", String(line.upstreamStatus)]] : []),
        ...(line.upstreamMessage ? [["Provider said", visible(line.upstreamMessage)]] : []),
        ...(line.upstreamRequestId
          ? [["Provider's id", h("span.mono", {}, visible(line.upstreamRequestId))]]
          : []),
        ["Process", line.warm === null ? "none was used" : line.warm ? "stood ready" : "was started for it"],
      ]),
    ),
    prompt("System prompt", line.systemPrompt),
    prompt("Prompt", line.userPrompt),
    h("p.hint", {}, "Answers are not kept. How much of a prompt is kept is set by BRIDGE_LOG_PROMPTS."),
  ];
}

function facts(rows) {
  return rows.flatMap(([term, value]) => [h("dt", {}, term), h("dd", {}, value)]);
}

function prompt(label, text) {
  return (
    text &&
    h(
      "div",
      {},
      h("h3.label", {}, label),
      longTextIn(h("pre.text-block", { tabindex: "0", role: "region", "aria-label": label }), visible(text)),
    )
  );
}
