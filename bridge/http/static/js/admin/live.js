/** Live: what waits and runs now, what was asked, and the button that stops it. */

import { fill, h, say } from "../lib/dom.js";
import { cost, count, duration, visible } from "../lib/format.js";
import { poll } from "../lib/poll.js";
import { table } from "../lib/table.js";
import { badge, button, emptyState, searchBox } from "../lib/ui.js";
import { keyLink } from "./links.js";
import { act, look } from "./session.js";

const EVERY_MS = 1500;
/** How long a request that has ended is still shown. */
const LINGER_MS = 12000;
/** After a touch, rows keep their places for so long: a finger does not hover. */
const TOUCHED_MS = 3000;
/** A press so soon after rows have moved was meant for another row. */
const SETTLE_MS = 400;

export function show({ head, body }) {
	const summary = h("span.muted", { role: "status" });
	head.append(summary);
	const search = searchBox("Search what runs", "Key, model, prompt or id", () => arrange());
	const list = table("Requests that wait or run", [
		["Key", "block"],
		["Model"],
		["State"],
		["Age", "num"],
		["Tokens so far", "num"],
		["Cost so far", "num"],
		["", "num.block"],
	]);
	fill(body, h("div", h("div.toolbar", search.element), h("section.card.flush", list.element)));
	/** Id -> run, also those that ended a moment ago, which have an `endedAt`. */
	let known = new Map();
	let order = [];
	let hovered = false;
	let touchedAt = 0;
	let movedAt = 0;

	list.body.addEventListener("pointerenter", (event) => (hovered = event.pointerType === "mouse"));
	list.body.addEventListener("pointerleave", () => (hovered = false));
	list.body.addEventListener("pointerdown", () => (touchedAt = Date.now()));

	const watch = poll(async (signal) => take((await look("/admin/runs", signal)).runs), EVERY_MS, list.element);

	/** Whether somebody is about to press something: then no row may slip under pointer, finger or focus. */
	function held() {
		return hovered || list.body.contains(document.activeElement) || Date.now() - touchedAt < TOUCHED_MS;
	}

	function take(runs) {
		const now = Date.now();
		const current = new Map(runs.map((run) => [run.id, run]));
		for (const [id, run] of known) {
			const endedAt = run.endedAt ?? now;
			const seen = now - endedAt < LINGER_MS || (held() && document.activeElement?.dataset.run === id);
			if (!current.has(id) && seen) current.set(id, { ...run, endedAt });
		}
		known = current;
		const waiting = runs.filter((run) => run.state === "queued").length;
		say(summary, `${runs.length - waiting} running, ${waiting} waiting`);
		arrange();
	}

	/** Those that run first, then those that wait, by their places, then those that have ended. */
	function arrange() {
		const before = order;
		const rank = ({ state, queuePosition, endedAt }) => {
			if (endedAt) return Infinity;
			return state === "queued" ? queuePosition : 0;
		};
		const wanted = [...known]
			.sort(([one, first], [other, second]) => Math.sign(rank(first) - rank(second)) || (one < other ? -1 : 1))
			.map(([id]) => id);
		const stay = held() ? before.filter((id) => known.has(id)) : [];
		order = [...stay, ...wanted.filter((id) => !stay.includes(id))];
		if (before.some((id, place) => order[place] !== id)) movedAt = Date.now();
		const sought = order.map((id) => known.get(id)).filter(isSought);
		list.show(sought.map(runRow), nothing());
	}

	function isSought({ keyName, model, provider, credential, userPrompt, id, requestId, node }) {
		return search.finds(keyName, model, provider, credential, userPrompt, id, requestId, node);
	}

	function nothing() {
		return known.size
			? emptyState("Nothing that runs matches", "Try a part of a key, a model, a credential, a prompt or an id.")
			: emptyState("Nothing is running", "Requests appear here by themselves while they wait or run.");
	}

	function runRow(run) {
		const { id, keyName, credential, node, ageMs } = run;
		const over = Boolean(run.endedAt);
		const [state, kind] = stateOf(run);
		const stop = {
			"data-run": id,
			"aria-label": `${over ? "Ended:" : "Stop"} the request of ${keyName}`,
			"aria-disabled": over && "true",
		};
		return list.row(
			{ class: over ? "run over" : "run", key: id },
			[
				keyLink(keyName),
				h("div.small.muted.truncate", visible(run.userPrompt ?? "")),
				h("div.small.muted.mono", id, node && ` on ${visible(node)}`),
			],
			[`${visible(run.model)} (${run.provider})`, credential && h("div.small.muted", `with ${visible(credential)}`)],
			badge(state, kind),
			duration(ageMs < 1000 ? ageMs : 1000 * Math.round(ageMs / 1000)),
			count(run.outputTokensSoFar),
			cost(run.costUsdSoFar),
			button(over ? "Ended" : "Stop", (event) => over || press(event, id), ".small.danger", stop),
		);
	}

	async function press(event, id) {
		// A key press is for the button that has the focus, wherever it has moved.
		if (event.detail > 0 && Date.now() - movedAt <= SETTLE_MS) return;
		if (await act("DELETE", `/admin/runs/${encodeURIComponent(id)}`)) watch.now();
	}

	return watch.stop;
}

function stateOf({ state, queuePosition, endedAt }) {
	if (endedAt) return ["ended"];
	return state === "queued" ? [`waiting, place ${queuePosition}`, "warn"] : ["running", "good"];
}
