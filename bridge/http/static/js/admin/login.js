/** The log-in with the admin key. */

import { h } from "../lib/dom.js";
import { gate } from "../lib/gate.js";
import { brand } from "../lib/ui.js";
import { logIn } from "./session.js";

const NOT_IT =
	"Check that you have copied all of it; the key of a person (cb_…) opens the playground, and not this page.";

/** The form; `done()` is called when somebody is logged in. `error` is why Cloudflare Access did not do it. */
export function loginView(message, error, done) {
	return h(
		"div.gate",
		brand(),
		gate({
			title: "Dashboard",
			message,
			error,
			attributes: { name: "password", autocomplete: "current-password" },
			label: "Admin key",
			hint: "The server printed it at its first start, or it is BRIDGE_ADMIN_KEY.",
			action: "Log in",
			// For password managers, which look for a name beside the password.
			beside: h("input", {
				type: "text",
				name: "username",
				autocomplete: "username",
				value: "admin",
				hidden: true,
				"aria-label": "Name",
			}),
			async open(key) {
				await logIn(key.trim());
				done();
			},
			explain: (failure) => (failure.status === 401 ? { ...failure, message: failure.message, hint: NOT_IT } : failure),
		}),
		h("p.small.muted", "Do you have a key of your own? ", h("a", { href: "/" }, "Go to the playground")),
	);
}
