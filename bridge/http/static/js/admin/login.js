/** The log-in with the admin key. */

import { fill, h } from "../lib/dom.js";
import { brand, busy, errorBox, field } from "../lib/ui.js";
import { logIn } from "./session.js";

const NOT_IT = "Check that you have copied all of it; the key of a person (cb_…) opens the playground, and not this page.";

/** The form; `done()` is called when somebody is logged in. `error` is why Cloudflare Access did not do it. */
export function loginView(message, error, done) {
	const key = h("input", {
		type: "password",
		name: "password",
		autocomplete: "current-password",
		spellcheck: "false",
		required: true,
	});
	const problem = h("div", {}, error && errorBox(error));
	const button = h("button.button.primary", { type: "submit" }, "Log in");
	const form = h(
		"form",
		{ onsubmit: submit },
		// For password managers, which look for a name beside the password.
		h("input", {
			type: "text",
			name: "username",
			autocomplete: "username",
			value: "admin",
			hidden: true,
			"aria-label": "Name",
		}),
		field("Admin key", key, "The server printed it at its first start, or it is BRIDGE_ADMIN_KEY."),
		problem,
		button,
	);

	async function submit(event) {
		event.preventDefault();
		await busy(button, open);
	}

	async function open() {
		key.removeAttribute("aria-invalid");
		fill(problem);
		try {
			await logIn(key.value.trim());
			done();
		} catch (failure) {
			fill(problem, errorBox(failure.status === 401 ? { ...failure, message: failure.message, hint: NOT_IT } : failure));
			key.setAttribute("aria-invalid", "true");
			key.focus();
			key.select();
		}
	}

	return h(
		"div.gate",
		{},
		brand(),
		h(
			"div.card",
			{},
			h("h1", { tabindex: "-1" }, "Dashboard"),
			message && h("p.notice", { role: "status" }, message),
			!window.isSecureContext &&
				h("p.notice.warn", {}, "This page came without encryption: somebody on the way could read the key."),
			form,
		),
		h("p.small.muted", {}, "Do you have a key of your own? ", h("a", { href: "/" }, "Go to the playground")),
	);
}
