/** Live: what waits and runs now, what was asked, and the button that stops it. */

import { fill, h, keyed, refill, say } from "../lib/dom.js";
import { cost, count, duration, visible } from "../lib/format.js";
import { poll } from "../lib/poll.js";
import { cell, row, table } from "../lib/table.js";
import { badge, busy, button, emptyState, searchBox, skeleton, toast } from "../lib/ui.js";
import { keyPage } from "./links.js";
import { call, look } from "./session.js";

const EVERY_MS = 1500;
/** How long a request that has ended is still shown. */
const LINGER_MS = 12000;
/** After a touch, rows keep their places for so long: a finger does not hover. */
const TOUCHED_MS = 3000;
/** A press so soon after rows have moved was meant for another row. */
const SETTLE_MS = 400;

export const title = () => "Live";

export function show({ head, body }) {
	const summary = h("span.muted", { role: "status" });
	head.append(summary);
	const search = searchBox("Search what runs", "Key, model, prompt or id", () => arrange());
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
	const none = emptyState(
		"Nothing that runs matches",
		"Try a part of a key, a model, a credential, a prompt or an id.",
	);
	const box = h("section.card.flush", skeleton(4));
	fill(body, h("div", h("div.toolbar", search.element), box));
	let entries = new Map();
	let order = [];
	let hovered = false;
	let touchedAt = 0;
	let movedAt = 0;

	element.addEventListener("pointerenter", (event) => (hovered = event.pointerType === "mouse"));
	element.addEventListener("pointerleave", () => (hovered = false));
	element.addEventListener("pointerdown", () => (touchedAt = Date.now()));

	const watch = poll(
		async (signal) => {
			take((await look("/admin/runs", signal)).runs);
		},
		EVERY_MS,
		box,
	);

	/** Whether somebody is about to press something: then no row may slip under pointer, finger or focus. */
	function held() {
		return hovered || rows.contains(document.activeElement) || Date.now() - touchedAt < TOUCHED_MS;
	}

	function take(runs) {
		const now = Date.now();
		const current = new Map(runs.map((run) => [run.id, { run, endedAt: null }]));
		for (const [id, entry] of entries) {
			const endedAt = entry.endedAt ?? now;
			const seen = now - endedAt < LINGER_MS || (held() && document.activeElement?.dataset.run === id);
			if (!current.has(id) && seen) current.set(id, { run: entry.run, endedAt });
		}
		entries = current;
		const waiting = runs.filter((run) => run.state === "queued").length;
		say(summary, `${runs.length - waiting} running, ${waiting} waiting`);
		arrange();
	}

	/** Those that run first, then those that wait, by their places, then those that have ended. */
	function arrange() {
		const before = order;
		const rank = ({ run, endedAt }) => (endedAt ? Infinity : run.state === "queued" ? run.queuePosition : 0);
		const wanted = [...entries]
			.sort(([one, first], [other, second]) => Math.sign(rank(first) - rank(second)) || (one < other ? -1 : 1))
			.map(([id]) => id);
		const stay = held() ? before.filter((id) => entries.has(id)) : [];
		order = [...stay, ...wanted.filter((id) => !stay.includes(id))];
		if (before.some((id, place) => order[place] !== id)) movedAt = Date.now();
		const text = search.text().toLowerCase();
		const shown = order.map((id) => entries.get(id)).filter(({ run }) => !text || saysOf(run).includes(text));
		const content = shown.length ? element : entries.size ? none : empty;
		if (!content.isConnected) fill(box, content);
		keyed(
			rows,
			shown,
			(entry) => entry.run.id,
			(entry) => runRow(entry.run.id, watch, () => Date.now() - movedAt > SETTLE_MS),
		);
	}

	return watch.stop;
}

function saysOf(run) {
	const { keyName, model, provider, credential, userPrompt, id, requestId, node } = run;
	return [keyName, model, provider, credential, userPrompt, id, requestId, node].join("\n").toLowerCase();
}

function runRow(id, watch, settled) {
	const name = h("a.key-name");
	const model = h("span");
	const credential = h("div.small.muted");
	const state = h("span");
	const asked = h("div.small.muted.truncate");
	const [age, tokens, spent] = [h("span"), h("span"), h("span")];
	const where = h("span");
	const stop = button("Stop", press, ".small.danger", { "data-run": id });
	let over = false;
	const element = row(
		{ class: "run" },
		cell("", [name, asked, h("div.small.muted.mono", id, where)]),
		cell("Model", [model, credential]),
		cell("State", state),
		cell("Age", age, "num"),
		cell("Tokens so far", tokens, "num"),
		cell("Cost so far", spent, "num"),
		cell("", stop, "num"),
	);

	function press(event) {
		// A key press is for the button that has the focus, wherever it has moved.
		if (over || (event.detail > 0 && !settled())) return;
		busy(stop, end);
	}

	async function end() {
		say(stop, "Stopping");
		try {
			await call("DELETE", `/admin/runs/${encodeURIComponent(id)}`);
			watch.now();
		} catch (error) {
			toast(error.message);
			say(stop, "Stop");
		}
	}

	return {
		element,
		update({ run, endedAt }) {
			const text = endedAt ? "ended" : run.state === "queued" ? `waiting, place ${run.queuePosition}` : "running";
			if (name.textContent !== run.keyName) {
				name.href = keyPage(run.keyName);
				fill(name, h("bdi", run.keyName));
				stop.setAttribute("aria-label", `Stop the request of ${run.keyName}`);
			}
			say(model, `${visible(run.model)} (${run.provider})`);
			say(credential, run.credential ? `with ${visible(run.credential)}` : "");
			say(where, run.node ? ` on ${visible(run.node)}` : "");
			say(asked, run.userPrompt ? visible(run.userPrompt) : "");
			refill(state, text, badge(text, endedAt ? "" : run.state === "queued" ? "warn" : "good"));
			if (endedAt) {
				if (over) return;
				over = true;
				element.classList.add("over");
				stop.setAttribute("aria-disabled", "true");
				stop.setAttribute("aria-label", `Ended: the request of ${run.keyName}`);
				say(stop, "Ended");
				return;
			}
			say(age, duration(run.ageMs < 1000 ? run.ageMs : 1000 * Math.round(run.ageMs / 1000)));
			say(tokens, count(run.outputTokensSoFar));
			say(spent, cost(run.costUsdSoFar));
		},
	};
}
