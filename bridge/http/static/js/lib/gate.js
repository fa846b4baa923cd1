/** What asks for a key: the field on the page of everybody with one, and on the admin's. */

import { h } from "./dom.js";
import { button, errorBox, field, submits, textInput } from "./ui.js";

/**
 * A card with one field for a key. `open(text)` lets in whoever has it, or throws what `explain(error, text)` makes
 * plain; `message` and `error` say why somebody is asked, `beside` stands beside the field and `children` below.
 */
export function gate(
	{ title, intro, message, error, attributes, label, hint, action, beside, open, explain },
	...children
) {
	const key = textInput({ type: "password", required: true, ...attributes });
	const problem = h("div", error && errorBox(error));

	async function enter() {
		key.removeAttribute("aria-invalid");
		try {
			await open(key.value);
		} catch (failure) {
			key.setAttribute("aria-invalid", "true");
			key.focus();
			key.select();
			throw explain(failure, key.value);
		}
	}

	return h(
		"div.card",
		h("h1", { tabindex: "-1" }, title),
		intro && h("p.muted", intro),
		message && h("p.notice", { role: "status" }, message),
		!window.isSecureContext &&
			h("p.notice.warn", "This page came without encryption: somebody on the way could read your key."),
		h(
			"form",
			{ onsubmit: submits(problem, enter) },
			beside,
			field(label, key, hint),
			problem,
			button(action, null, ".primary"),
		),
		children,
	);
}
