/** Handing over a key: what it opens and allows in plain words, a link, and the one moment in which it is shown. */

import { otherLimits } from "../lib/bars.js";
import { copyAs } from "../lib/copyas.js";
import { h } from "../lib/dom.js";
import { when } from "../lib/format.js";
import { textBlock } from "../lib/longtext.js";
import { linkWith } from "../lib/pasted.js";
import { PROVIDERS } from "../lib/registry.js";
import { button, copyButton, dialog, named } from "../lib/ui.js";
import { table } from "../lib/table.js";
import { keyPath } from "./links.js";
import { call, current } from "./session.js";

const [FIRST] = Object.keys(PROVIDERS);

/** The secret of a key, this once, with a message to send and code that uses it. `what`: made or rotated. */
export async function showSecret(made, what) {
	const about = await factsOf(made);
	// A key that may use nothing yet has no example.
	const { provider, model } = made.example ?? { provider: FIRST, model: current().defaultModels[FIRST] };
	const body = { userPrompt: "Three names for a tea shop", model };
	const request = () => ({ base: location.origin, provider, body });
	const text = message(about);
	return dialog(
		(close) => ({
			title: `Key ${made.name} ${what}`,
			body: [
				onlyOnce("Copy the key now. It is stored as a hash and "),
				secretBox(made.key),
				onlyHere(),
				h(
					"div",
					h(
						"div.card-head",
						h("h3", "To send to whoever gets it"),
						h("div.row.end", copyButton(() => linkWith(made.key), "Copy link"), copyButton(() => text, "Copy message")),
					),
					textBlock("Message", text),
					h("p.hint.spaced", "The link opens the playground with the key. Send it where only they can read it."),
				),
				h("div", h("h3", "Ready to use, with this key in it"), h("div.spaced", copyAs(request, made.key).element)),
			],
			actions: [button("I have copied the key", () => close(), ".primary")],
		}),
		{ wide: true, closable: false },
	);
}

/** That a secret is seen this once. */
export function onlyOnce(text) {
	return h("p", text, h("strong", "cannot be shown again"), ".");
}

/** A new secret, with a button that copies it. */
export function secretBox(key) {
	return h("div.secret", h("code", { id: "new-key" }, key), copyButton(() => key, "Copy key"));
}

/** Several new keys, this once. `failed` has the names that got none, and why. */
export async function showSecrets(several, failed) {
	const all = await Promise.all(several.map(factsOf));
	const { element, row, show } = table("New keys", [["Name", "block"], ["Key", "block"], ["", "num.block"]]);
	const keyRow = (about) =>
		row({}, h("strong", named(about.name)), h("code.mono", about.key), copyButton(() => message(about), "Copy message"));
	show(all.map(keyRow));
	const cells = () => all.map(({ name, key }) => `${name}\t${key}\t${linkWith(key)}`);
	return dialog(
		(close) => ({
			title: `${all.length} keys made`,
			body: [
				onlyOnce("Copy them now. They are stored as hashes and "),
				failed.length > 0 &&
					h(
						"div.notice.bad",
						{ role: "alert" },
						h("ul", failed.map(([name, error]) => h("li", h("strong", named(name)), ": ", error))),
					),
				onlyHere(),
				element,
			],
			actions: [
				copyButton(() => cells().join("\n"), "Copy as table"),
				copyButton(() => all.map((about) => message(about)).join("\n\n---\n\n"), "Copy all messages"),
				button("I have copied the keys", () => close(), ".primary"),
			],
		}),
		{ wide: true, closable: false },
	);
}

/** What is known of a new key, and its secret: its expiry and models are not in the answer that has the secret. */
async function factsOf(made) {
	try {
		return { ...(await call("GET", keyPath(made.name))), key: made.key };
	} catch {
		return made;
	}
}

/** The providers that a key may use, in words; null stands for all. */
export function titlesOf(providers) {
	return (providers ?? Object.keys(PROVIDERS)).map((name) => PROVIDERS[name]?.title ?? name).join(" and ");
}

/** Where the dashboard was opened on its own host, its address leads nobody else there. */
function onlyHere() {
	const text = `${location.origin} works on this computer only. Open the dashboard by the address that others use, or change it in the message.`;
	return /^(localhost|127\.|\[::1\])/.test(location.hostname) && h("p.notice.warn", text);
}

/** The message for whoever gets a key: where, with what, how much. */
function message({ key, limits, providers, models, expiresAt, rotatingUntil }) {
	const most = otherLimits(limits, []);
	return [
		`Your key for ${titlesOf(providers)}:`,
		key,
		"",
		`Try it in the playground: ${linkWith(key)}`,
		`For your own code: ${location.origin}/docs`,
		"",
		most.length ? `It may use at most ${most.join(", ")}.` : "It has no limits.",
		models && `Models: ${models.join(", ") || "none"}.`,
		expiresAt && `It ends ${when(expiresAt)}.`,
		rotatingUntil && `Your old key works until ${when(rotatingUntil)}.`,
		"What you have used and what is left: My usage, on the same page.",
		"Keep it to yourself: whoever has it spends in your name.",
	].filter((line) => line || line === "").join("\n");
}
