/** The dashboard: log-in, navigation, and which view is shown. */

import { fill, h, icon, say } from "../lib/dom.js";
import { confirm, errorBox, skeleton, toast } from "../lib/ui.js";
import * as audit from "./audit.js";
import * as credentials from "./credentials.js";
import * as guide from "./guide.js";
import * as key from "./key.js";
import * as keys from "./keys.js";
import * as live from "./live.js";
import { loginView } from "./login.js";
import * as logs from "./logs.js";
import * as overview from "./overview.js";
import * as request from "./request.js";
import * as session from "./session.js";
import * as usage from "./usage.js";

const VIEWS = { "": overview, start: guide, usage, keys, credentials, live, logs, audit };
/** Views of one thing, whose name follows: `#/keys/ada`. */
const DETAILS = { keys: key, logs: request };
const NAV = [
	["", "Overview", "overview"],
	["usage", "Usage", "usage"],
	["keys", "Keys", "keys"],
	["credentials", "Credentials", "credentials"],
	["live", "Live", "live"],
	["logs", "Logs", "logs"],
	["audit", "Audit", "audit"],
];

const main = document.getElementById("main");
const side = document.getElementById("side");
const nav = document.getElementById("nav");
let leave = () => {};
let shown = null;

/** `#/keys/ada?x=1` as {name, detail, query}. */
function place() {
	const [path, search] = location.hash.replace(/^#\/?/, "").split("?");
	const [name, ...rest] = path.split("/");
	return { name, detail: decode(rest.join("/")), query: new URLSearchParams(search ?? "") };
}

function decode(text) {
	try {
		return decodeURIComponent(text);
	} catch {
		return text;
	}
}

/** The token of a link that logs in once. It leaves the address, and with it the history, before anything else. */
function takeLink() {
	const [, token] = location.hash.match(/^#\/link\/(.+)$/) ?? [];
	if (token) history.replaceState(null, "", "#/");
	return token;
}

function show() {
	if (location.hash.startsWith("#/link/")) {
		begin();
		return;
	}
	if (!session.current()) return;
	const { name, detail, query } = place();
	const view = (detail && DETAILS[name]) || (VIEWS[name] ?? overview);
	leave();
	for (const link of nav.querySelectorAll("a")) {
		if (link.dataset.name === name) {
			link.setAttribute("aria-current", "page");
			// On a narrow screen the links are a row that is wider than the screen.
			const [row, own] = [nav.getBoundingClientRect(), link.getBoundingClientRect()];
			nav.scrollLeft += own.left + own.width / 2 - row.left - row.width / 2;
		} else link.removeAttribute("aria-current");
	}
	const heading = h("h1", { tabindex: "-1" }, view.title(detail));
	const head = h("div.page-head", heading);
	const body = h("div.stack");
	fill(main, head, body);
	document.title = `${view.title(detail)} · cli-bridge`;
	leave = view.show({ head, body, detail, query, session: session.current() }) ?? (() => {});
	const path = `${name}/${detail}`;
	// Where somebody has gone to another page, its title is what is read out; filters are no other page.
	if (shown !== null && shown !== path) {
		heading.focus({ preventScroll: true });
		window.scrollTo(0, 0);
	}
	shown = path;
}

function start() {
	side.hidden = false;
	say(document.getElementById("actor"), session.current().byAccess ? `Logged in as ${session.current().actor}` : "");
	show();
}

function askForKey(message = "", error = null) {
	leave();
	leave = () => {};
	shown = null;
	side.hidden = true;
	document.title = "Log in · cli-bridge";
	document.querySelectorAll("dialog[open]").forEach((dialog) => dialog.close());
	fill(
		main,
		loginView(message, error, () => {
			start();
			main.querySelector("h1").focus();
		}),
	);
	main.querySelector("input[type=password]").focus();
}

async function logOut(everywhere) {
	if (everywhere) {
		const sure = await confirm(
			"Log out everywhere?",
			"Every session on every device and of every admin ends at once.",
			"Log out everywhere",
		);
		if (!sure) return;
	}
	try {
		await session.logOut({ everywhere });
		askForKey(everywhere ? "Every session on every device is ended." : "You are logged out.");
	} catch (error) {
		toast(error.message);
	}
}

async function begin() {
	leave();
	leave = () => {};
	fill(main, skeleton(6));
	const token = takeLink();
	if (token) {
		try {
			await session.logIn(token);
			history.replaceState(null, "", "#/start");
			start();
		} catch (error) {
			askForKey("", error);
		}
		return;
	}
	try {
		const { session: found, error } = await session.resume();
		if (found) start();
		else askForKey("", error);
	} catch (error) {
		fill(main, errorBox(error, begin));
	}
}

nav.append(
	...NAV.map(([name, label, picture]) =>
		h("a.nav-link", { href: `#/${name}`, "data-name": name }, icon(picture), label),
	),
);
document.getElementById("log-out").addEventListener("click", () => logOut(false));
document.getElementById("log-out-everywhere").addEventListener("click", () => logOut(true));
document.getElementById("skip").addEventListener("click", (event) => {
	event.preventDefault();
	main.focus();
});
window.addEventListener("hashchange", show);
session.whenOver(() => askForKey("Your session has ended. Log in again to go on."));
begin();
