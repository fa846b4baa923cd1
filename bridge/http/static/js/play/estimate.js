/** Beside Send: what is left, and what the request may cost at most. Asking for it reserves nothing. */

import { call } from "../lib/api.js";
import { h, say } from "../lib/dom.js";
import { cost, inOwnTime, money } from "../lib/format.js";
import { PROVIDERS } from "../lib/registry.js";
import { paused } from "../lib/ui.js";

/** Typing asks only when it pauses, in milliseconds. */
const PAUSE_MS = 700;
/** What an image costs does not depend on what it shows: one of a pixel goes in the place of each. */
const PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==";

/**
 * {element, update()}: `requests()` gives what would be sent now, [[provider, body], …], none where nothing would be.
 * Where it cannot be known, nothing is said; a limit that would refuse the request says so.
 */
export function estimate(requests, headers) {
	const element = h("span.hint", { role: "status" });
	const soon = paused(ask, PAUSE_MS);
	let asking = new AbortController();
	let asked = "";

	/** Ask again; `anew`: also where the request is as it was. */
	function update(anew = false) {
		if (anew) asked = "";
		soon();
	}

	async function ask() {
		const wanted = requests().map(([provider, body]) => [`${PROVIDERS[provider].path}/estimate`, lighter(body)]);
		const now = JSON.stringify(wanted);
		if (now === asked || document.hidden) return;
		asked = now;
		asking.abort();
		asking = new AbortController();
		const { signal } = asking;
		try {
			const found = await Promise.all(wanted.map(([path, body]) => call("POST", path, { body, headers, signal })));
			say(element, found.length ? told(found) : "");
		} catch (error) {
			if (error.name !== "AbortError") say(element, error.code?.startsWith("cost_") ? inOwnTime(error.message) : "");
		}
	}

	return { element, update };
}

/** "$4.12 left today · up to $0.09 for this one". */
function told(found) {
	const most = found.reduce((sum, each) => sum + each.costUsd, 0);
	const price = `up to ${most < 0.01 ? cost(most) : money(most)} for ${found.length > 1 ? "all of them" : "this one"}`;
	const { today, thisMonth } = found[0].remaining;
	const [least] = [[today.costUsd, "today"], [thisMonth.costUsd, "this month"]]
		.filter(([usd]) => usd !== undefined)
		.sort(([one], [other]) => one - other);
	return least ? `${money(least[0])} left ${least[1]} · ${price}` : price;
}

function lighter({ messages, images, ...rest }) {
	const part = (each) => (each.type === "image" ? { ...each, mediaType: "image/png", data: PIXEL } : each);
	return {
		...rest,
		messages: messages?.map(({ role, content }) => ({ role, content: content.map(part) })),
		images: images?.map(() => `data:image/png;base64,${PIXEL}`),
	};
}
