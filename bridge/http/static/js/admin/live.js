/** Live: what waits and runs now, and the button that stops it. */

import { fill, h, keyed, refill, say } from "../lib/dom.js";
import { cost, count, duration, visible } from "../lib/format.js";
import { poll } from "../lib/poll.js";
import { cell, row, table } from "../lib/table.js";
import { badge, emptyState, skeleton, toast } from "../lib/ui.js";
import { call, look } from "./session.js";

const EVERY_MS = 1500;
/** How long a request that has ended stays in its place: nothing may slip under a finger that wants to stop it. */
const LINGER_MS = 12000;

export const title = () => "Live";

export function show({ head, body }) {
  const summary = h("span.muted", { role: "status" });
  head.append(summary);
  const { element, body: rows } = table("Requests that wait or run", [
    ["Key"],
    ["Model"],
    ["State"],
    ["Age", "num"],
    ["Tokens so far", "num"],
    ["Cost so far", "num"],
    [""],
  ]);
  const empty = emptyState("Nothing is running", "Requests appear here by themselves while they wait or run.");
  const box = h("section.card.flush", {}, skeleton(4));
  fill(body, box);
  let shown = new Map();

  const watch = poll(
    async (signal) => {
      render((await look("/admin/runs", signal)).runs);
    },
    EVERY_MS,
    box,
  );

  function render(runs) {
    const now = Date.now();
    const current = new Map(runs.map((run) => [run.id, { run, endedAt: null }]));
    for (const [id, entry] of shown) {
      const endedAt = entry.endedAt ?? now;
      if (!current.has(id) && now - endedAt < LINGER_MS) current.set(id, { run: entry.run, endedAt });
    }
    shown = new Map([...current].sort(([one], [other]) => (one < other ? -1 : 1)));
    const waiting = runs.filter((run) => run.state === "queued").length;
    say(summary, `${runs.length - waiting} running, ${waiting} waiting`);
    if (shown.size) {
      if (!element.isConnected) fill(box, element);
    } else if (!empty.isConnected) fill(box, empty);
    keyed(
      rows,
      [...shown.values()],
      (entry) => entry.run.id,
      (entry) => runRow(entry.run.id, watch),
    );
  }

  return () => watch.stop();
}

function runRow(id, watch) {
  const name = h("a.key-name");
  const model = h("span");
  const state = h("span", {});
  const [age, tokens, spent] = [h("span"), h("span"), h("span")];
  const stop = h("button.button.small.danger", { type: "button", onclick: end }, "Stop");
  const element = row(
    { class: "run" },
    cell("", [name, h("div.small.muted.mono", {}, id)]),
    cell("Model", model),
    cell("State", state),
    cell("Age", age, "num"),
    cell("Tokens so far", tokens, "num"),
    cell("Cost so far", spent, "num"),
    cell("", stop, "num"),
  );

  async function end() {
    stop.disabled = true;
    say(stop, "Stopping");
    try {
      await call("DELETE", `/admin/runs/${encodeURIComponent(id)}`);
      watch.now();
    } catch (error) {
      toast(error.message);
      stop.disabled = false;
      say(stop, "Stop");
    }
  }

  return {
    element,
    update({ run, endedAt }) {
      const text = endedAt ? "ended" : run.state === "queued" ? `waiting, place ${run.queuePosition}` : "running";
      if (name.textContent !== run.keyName) {
        name.href = `#/keys/${encodeURIComponent(run.keyName)}`;
        fill(name, h("bdi", {}, run.keyName));
        stop.setAttribute("aria-label", `Stop the request of ${run.keyName}`);
      }
      say(model, `${visible(run.model)} (${run.provider})`);
      refill(state, text, badge(text, endedAt ? "" : run.state === "queued" ? "warn" : "good"));
      if (endedAt) {
        element.classList.add("over");
        stop.disabled = true;
        say(stop, "Ended");
        return;
      }
      say(age, duration(run.ageMs < 1000 ? run.ageMs : 1000 * Math.round(run.ageMs / 1000)));
      say(tokens, count(run.outputTokensSoFar));
      say(spent, cost(run.costUsdSoFar));
    },
  };
}
