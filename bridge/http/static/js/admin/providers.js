/** The state of the CLIs behind the bridge. */

import { h } from "../lib/dom.js";
import { duration, plural, visible } from "../lib/format.js";
import { PROVIDERS } from "../lib/registry.js";
import { badge, errorBox, factList } from "../lib/ui.js";

const CREDENTIALS = { login: "the CLI's own log-in (for yourself alone; see the terms)", demo: "simulated" };

/** The providers of an overview, as a list. */
export function providerList({ providers, activity }) {
	return h("ul.dot-list", providers.map((each) => item(each, activity.providers[each.name])));
}

function item(provider, times) {
	const { name, available, problem, said } = provider;
	const known = provider.credentials_known > 0;
	const paid = provider.credentials === "demo" || provider.credentials_open > 0;
	const rows = [
		["Version", provider.version ?? "unknown"],
		["Credentials", credentials(provider)],
		["Now", `${provider.busy} running, ${provider.queued} waiting, ${provider.warm} warm`],
		["First text", times ? pair(times.firstTokenMs) : "no answers in 24 h"],
	];
	return h(
		"li.provider",
		h("div.row", h("h3", PROVIDERS[name]?.program ?? name), paid ? works(available) : unpaid(known)),
		factList(rows),
		// What nobody has set up is no trouble; and without a credential, the button says what to do.
		(paid || known) && problem && [
			errorBox({ message: visible(problem), hint: paid && provider.hint && visible(provider.hint) }),
			said && h("p.hint", "It printed: ", h("code", visible(said))),
		],
		!paid && h("a.button.small", { href: "#/credentials" }, known ? "See why" : "Add an API key"),
	);
}

function works(available) {
	return available ? badge("available", "good") : badge("not available", "bad");
}

function unpaid(known) {
	return known ? badge("no usable credential", "bad") : badge("not set up");
}

function credentials({ credentials: kind, credentials_open: open, credentials_known: known }) {
	if (kind !== "api-key") return CREDENTIALS[kind] ?? kind;
	return known ? `${open} of ${plural(known, "API key")} usable` : "no API key yet";
}

function pair({ p50, p95 }) {
	return p50 === null ? "–" : `${duration(p50)} (median), 95% within ${duration(p95)}`;
}
