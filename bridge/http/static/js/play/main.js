/** The page for key holders: paste a key, then try prompts and see one's own usage. */

import { call } from "../lib/api.js";
import { fill, h } from "../lib/dom.js";
import { keyIn, keyInAddress } from "../lib/pasted.js";
import { TAB_KEY } from "../lib/tabkey.js";
import { busy, errorBox, field, skeleton, toast } from "../lib/ui.js";
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

function gate(message = "", error = null) {
	leave();
	leave = () => {};
	memory.write("sessionStorage", TAB_KEY, null);
	fill(nav);
	fill(holder);
	document.title = "Playground · cli-bridge";
	const key = h("input", {
		type: "password",
		autocomplete: "off",
		spellcheck: "false",
		required: true,
		placeholder: "cb_…",
	});
	const problem = h("div", {}, error && errorBox(error));
	const button = h("button.button.primary", { type: "submit" }, "Go on");

	async function submit(event) {
		event.preventDefault();
		await busy(button, open);
	}

	async function open() {
		fill(problem);
		try {
			await enter(keyIn(key.value));
		} catch (failure) {
			fill(problem, errorBox(readable(failure, keyIn(key.value))));
			key.setAttribute("aria-invalid", "true");
			key.focus();
			key.select();
		}
	}

	fill(
		main,
		h(
			"div.gate",
			{},
			h(
				"div.card",
				{},
				h("h1", {}, "Playground"),
				h("p.muted", {}, "Try prompts, copy them as code, and see what you have used."),
				message && h("p.notice", { role: "status" }, message),
				!window.isSecureContext &&
					h("p.notice.warn", {}, "This page came without encryption: somebody on the way could read your key."),
				h(
					"form",
					{ onsubmit: submit },
					field("Your key", key, "Kept in this tab only, and forgotten when you close it. Your admin makes keys."),
					problem,
					button,
				),
				memory.keepsAnything() && forgetting(),
			),
		),
	);
	key.focus();
}

/** What was written here before stays in this browser, until somebody says otherwise. */
function forgetting() {
	const button = h(
		"button.link-button.small",
		{
			type: "button",
			onclick: () => {
				memory.forgetAll();
				button.remove();
				toast("This browser has forgotten what was written here.");
				main.querySelector("input").focus();
			},
		},
		"Forget the prompts and answers that this browser keeps",
	);
	return button;
}

/** Why the gate did not open, where the key is of another kind. */
function readable(error, key) {
	if (error.status !== 401 || !key.startsWith("cba_")) return error;
	return { ...error, message: "This is an admin key.", hint: "It opens the dashboard, at /admin/. Here goes your own key." };
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
	fill(
		nav,
		[
			["", "Playground"],
			["usage", "My usage"],
		].map(([name, label]) => h("a.nav-link", { href: `#/${name}`, "data-name": name }, label)),
	);
	fill(
		holder,
		h("span.truncate.small", {}, h("span.muted", {}, "Key "), h("bdi", {}, me.name)),
		h("button.button.small", { type: "button", onclick: forget }, "Forget key"),
	);
	// The playground stays as it is while somebody looks at the usage: half a prompt, or an answer under way.
	const bench = h("div");
	const figures = h("div");
	fill(main, bench, figures);
	const abort = playground.show(bench, context);
	let stopUsage = () => {};

	function show() {
		const onUsage = location.hash === "#/usage";
		for (const link of nav.querySelectorAll("a")) {
			if ((link.dataset.name === "usage") === onUsage) link.setAttribute("aria-current", "page");
			else link.removeAttribute("aria-current");
		}
		document.title = `${onUsage ? usage.title : playground.title} · cli-bridge`;
		bench.hidden = onUsage;
		figures.hidden = !onUsage;
		stopUsage();
		stopUsage = onUsage ? usage.show(figures, context) : () => {};
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
	gate(memory.ended() ? "What you wrote is still there: go on with another key." : "", error);
}

function forget() {
	leave();
	memory.left();
	gate("The key is forgotten. What you wrote with it stays in this browser, for that key.");
}

async function begin() {
	const stored = given ?? memory.read("sessionStorage", TAB_KEY);
	if (!stored) {
		gate();
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
