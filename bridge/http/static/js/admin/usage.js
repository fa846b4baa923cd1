/** Usage: who spent what, on what, in which days. */

import { query } from "../lib/api.js";
import { breakdownTable, dayRange, rangeText } from "../lib/breakdown.js";
import { fill, h, say } from "../lib/dom.js";
import { plural } from "../lib/format.js";
import { poll } from "../lib/poll.js";
import { errorBox, segmented } from "../lib/ui.js";
import { keyPage } from "./links.js";
import { look } from "./session.js";

const EVERY_MS = 15000;
/** By what: its heading, and by what a row of it is broken down further. */
const BY = {
	key: ["Key", "model"],
	model: ["Model", "key"],
	provider: ["Provider", "model"],
	credential: ["Credential", "model"],
};

export function show({ head, body, query: given, session }) {
	let by = BY[given.get("by")] ? given.get("by") : "key";
	let days = { range: given.get("range"), from: given.get("from"), to: given.get("to") };
	const note = h("p.muted.sub", { role: "status" });
	head.append(note);
	const range = dayRange(session.timezone, days, (values) => {
		days = values;
		ask();
	});
	const choices = Object.entries(BY).map(([name, [label]]) => [name, `By ${label.toLowerCase()}`]);
	const choice = segmented("By", choices, by, (chosen) => {
		by = chosen;
		ask();
	});
	const tables = Object.fromEntries(Object.entries(BY).map(([name, [label]]) => [name, tableOf(name, label)]));
	const holder = h("section.card.flush");
	const error = h("div");
	fill(body, h("div.row.choices", range.element, choice), error, holder);

	const watch = poll(
		async (signal) => {
			const asked = by;
			const answer = await look(`/admin/usage/breakdown${query({ ...range.range(), by: asked })}`, signal);
			if (asked !== by) return;
			fill(error);
			tables[by].update(answer, by);
			if (!tables[by].element.isConnected) fill(holder, tables[by].element);
			say(note, `${rangeText(answer, session.timezone)}: ${plural(answer.rows.length, BY[by][0].toLowerCase())}`);
		},
		EVERY_MS,
		error,
	);

	function tableOf(name, label) {
		return breakdownTable(`Usage by ${label.toLowerCase()}`, label, {
			link: (share) => addressOf(name, share),
			open: (share) => below(name, share),
		});
	}

	/** Where a name leads: the page of a key, or the lines of the log with it. */
	function addressOf(name, share) {
		if (name === "key") return keyPage(share.key);
		const { from, to } = range.range();
		if (name === "provider") return `#/logs${query({ provider: share.provider, from, to })}`;
		return `#/logs${query({ text: share[name], from, to })}`;
	}

	async function below(name, share) {
		const further = BY[name][1];
		const only = { ...(share.provider && { provider: share.provider }), [name]: share[name] };
		try {
			const answer = await look(`/admin/usage/breakdown${query({ ...range.range(), by: further, ...only })}`);
			return { ...answer, by: further };
		} catch (failure) {
			fill(error, errorBox(failure));
			return null;
		}
	}

	function ask() {
		history.replaceState(null, "", `#/usage${query({ by, ...days })}`);
		watch.now();
	}

	return watch.stop;
}
