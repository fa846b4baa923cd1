/** The state of the CLIs behind the bridge. */

import { h, keyed, refill, say } from "../lib/dom.js";
import { duration, plural, visible, whenFull } from "../lib/format.js";
import { PROVIDERS } from "../lib/registry.js";
import { badge, errorBox, listFacts } from "../lib/ui.js";

const CREDENTIALS = { login: "the CLI's own log-in (for yourself alone; see the terms)", demo: "simulated" };

/** Bring a list in step with the providers of an overview. */
export function renderProviders(list, { providers, activity }) {
	keyed(list, providers, "name", () => {
		const name = h("h3");
		const state = h("span");
		const facts = h("dl.facts");
		const trouble = h("div");
		const unpaid = h("div");
		return {
			element: h("li.provider", h("div.row", name, state), facts, trouble, unpaid),
			update(each) {
				say(name, PROVIDERS[each.name]?.program ?? each.name);
				const paid = each.credentials === "demo" || each.credentials_open > 0;
				refill(
					state,
					[each.available, paid].join(),
					!paid
						? each.credentials_known
						? badge("no usable credential", "bad")
						: badge("not set up")
						: each.available
							? badge("available", "good")
							: badge("not available", "bad"),
				);
				const times = activity.providers[each.name];
				const rows = [
					["Version", each.version ?? "unknown"],
					["Credentials", credentials(each)],
					["Now", `${each.busy} running, ${each.queued} waiting, ${each.warm} warm`],
					...(each.rate_limits
						? [["Rate limits", `${rateLimits(each.rate_limits.limits)} (${whenFull(each.rate_limits.at)})`]]
						: []),
					["First text", times ? pair(times.firstTokenMs) : "no answers in 24 h"],
				];
				listFacts(facts, rows.map(([term, text]) => [term, visible(text)]));
				refill(
					unpaid,
					paid,
					!paid &&
						h("a.button.small", { href: "#/credentials" }, each.credentials_known ? "See why" : "Add an API key"),
				);
				refill(
					trouble,
					`${each.problem} ${each.hint} ${each.said}`,
					// What nobody has set up is no trouble; and without a credential, the button says what to do.
					(paid || each.credentials_known > 0) && each.problem && [
						errorBox({ message: visible(each.problem), hint: paid && each.hint && visible(each.hint) }),
						each.said && h("p.hint", "It printed: ", h("code", visible(each.said))),
					],
				);
			},
		};
	});
}

function credentials({ credentials: kind, credentials_open: open, credentials_known: known }) {
	if (kind !== "api-key") return CREDENTIALS[kind] ?? kind;
	return known ? `${open} of ${plural(known, "API key")} usable` : "no API key yet";
}

/** What is left of the account's limits, as its provider named them last: the headers without what all share. */
function rateLimits(limits) {
	const left = Object.entries(limits).filter(([name]) => name.includes("remaining"));
	const shown = left.length ? left : Object.entries(limits);
	return shown.map(([name, value]) => `${name.replace(/^(anthropic|x)-ratelimit-/, "")} ${value}`).join(", ");
}

function pair({ p50, p95 }) {
	return p50 === null ? "–" : `${duration(p50)} (median), 95% within ${duration(p95)}`;
}
