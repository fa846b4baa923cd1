/** The page for key holders: paste a key, then try prompts and see one's own usage. */

import { call } from "../lib/api.js";
import { fill, h } from "../lib/dom.js";
import { gate } from "../lib/gate.js";
import { TAB_KEY, keyIn, keyInAddress } from "../lib/pasted.js";
import { button, errorBox, skeleton, toast } from "../lib/ui.js";
import * as memory from "./memory.js";
import * as playground from "./playground.js";
import * as usage from "./usage.js";

const main = document.getElementById("main");
const nav = document.getElementById("nav");
const holder = document.getElementById("holder");
/** Ends what the shown pages do by themselves. */
let leave = () => {};
/** A link that hands over a key has it in the address: it is taken out before anything else. */
let given = takeKey();

function takeKey() {
	const key = keyInAddress(location.hash);
	if (key) history.replaceState(null, "", `${location.pathname}#/`);
	return key;
}

function askForKey(message = "", error = null) {
	leave();
	leave = () => {};
	memory.write("sessionStorage", TAB_KEY, null);
	fill(nav);
	fill(holder);
	document.title = "Playground · cli-bridge";
	fill(
		main,
		h(
			"div.gate",
			gate(
				{
					title: "Playground",
					intro: "Try prompts, copy them as code, and see what you have used.",
					message,
					error,
					attributes: { placeholder: "cb_…" },
					label: "Your key",
					hint: "Kept in this tab only, and forgotten when you close it. Your admin makes keys.",
					action: "Go on",
					open: (text) => enter(keyIn(text)),
					explain: readable,
				},
				memory.keepsAnything() && forgetting(),
			),
		),
	);
	main.querySelector("input").focus();
}

/** What was written here before stays in this browser, until somebody says otherwise. */
function forgetting() {
	function forgetAll(event) {
		memory.forgetAll();
		event.target.remove();
		toast("This browser has forgotten what was written here.");
		main.querySelector("input").focus();
	}

	const label = "Forget the prompts and answers that this browser keeps";
	return h("button.link-button.small", { onclick: forgetAll }, label);
}

/** Why the gate did not open, where the key is of another kind. */
function readable(error, text) {
	if (error.status !== 401 || !keyIn(text).startsWith("cba_")) return error;
	return {
		...error,
		message: "This is an admin key.",
		hint: "It opens the dashboard, at /admin/. Here goes your own key.",
	};
}

/** Ask who the key belongs to, and show the page. Throws ApiError. */
async function enter(key) {
	// Whatever is no letter, digit or sign cannot be sent, and is no key.
	const plain = /^[\u0021-\u007e]+$/.test(key) ? key : "not-a-key";
	const headers = { Authorization: `Bearer ${plain}` };
	const me = await call("GET", "/me", { headers });
	memory.write("sessionStorage", TAB_KEY, key);
	const first = location.hash === "#/first";
	const context = { me, key, headers, first, expired };
	const toBench = h("a.nav-link", { href: "#/" }, playground.title);
	const toUsage = h("a.nav-link", { href: "#/usage" }, usage.title);
	fill(nav, toBench, toUsage);
	fill(
		holder,
		h("span.truncate.small", h("span.muted", "Key "), h("bdi", me.name)),
		button("Forget key", forget, ".small"),
	);
	// The playground stays as it is while somebody looks at the usage: half a prompt, or an answer under way.
	const bench = h("div");
	const figures = h("div");
	fill(main, bench, figures);
	const abort = playground.show(bench, context);
	let stopUsage = () => {};

	function show() {
		const onUsage = location.hash === "#/usage";
		const left = figures.contains(document.activeElement);
		toBench.ariaCurrent = onUsage ? null : "page";
		toUsage.ariaCurrent = onUsage ? "page" : null;
		document.title = `${onUsage ? usage.title : playground.title} · cli-bridge`;
		bench.hidden = onUsage;
		figures.hidden = !onUsage;
		stopUsage();
		stopUsage = onUsage ? usage.show(figures, context) : () => {};
		// Whoever goes back has it on nothing else.
		if (left && !onUsage) bench.querySelector("textarea").focus({ preventScroll: true });
	}

	leave();
	window.addEventListener("hashchange", show);
	leave = () => {
		window.removeEventListener("hashchange", show);
		stopUsage();
		abort();
	};
	show();
}

/** The key came to its end while somebody was at work. */
function expired(error) {
	leave();
	askForKey(memory.ended() ? "What you wrote is still there: go on with another key." : "", error);
}

function forget() {
	leave();
	memory.left();
	askForKey("The key is forgotten. What you wrote with it stays in this browser, for that key.");
}

async function begin() {
	const stored = given ?? memory.read("sessionStorage", TAB_KEY);
	if (!stored) {
		askForKey();
		return;
	}
	fill(main, skeleton(6));
	try {
		await enter(stored);
	} catch (error) {
		if (error.status === 401 || error.status === 403) expired(error);
		else fill(main, errorBox(error, begin));
	}
}

window.addEventListener("hashchange", () => {
	// The link was opened in a tab that has the page already.
	const key = takeKey();
	if (!key) return;
	given = key;
	begin();
});
document.getElementById("skip").addEventListener("click", (event) => {
	event.preventDefault();
	main.focus();
});
begin();
