/** The dashboard: log-in, navigation, and which view is shown. */

import { fill, h, icon, redraw, say } from "../lib/dom.js";
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

/** What the navigation leads to: the name in the address, the title, and the page. */
const VIEWS = [
	["", "Overview", overview],
	["usage", "Usage", usage],
	["keys", "Keys", keys],
	["credentials", "Credentials", credentials],
	["live", "Live", live],
	["logs", "Logs", logs],
	["audit", "Audit", audit],
];
const START = ["start", "First steps", guide];
/** Pages of one thing, whose name follows: `#/keys/ada`. */
const DETAILS = { keys: (name) => [name, key], logs: () => ["Request", request] };

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
	const [, label, page] = [...VIEWS, START].find(([each]) => each === name) ?? VIEWS[0];
	const crumb = detail && DETAILS[name] ? h("a.quiet.crumb", { href: `#/${name}` }, `${label} /`) : null;
	const [title, view] = crumb ? DETAILS[name](detail) : [label, page];
	leave();
	redraw(
		nav,
		VIEWS.map(([view, text]) => {
			const link = { href: `#/${view}`, "aria-current": view === name && "page" };
			return h("a.nav-link", link, icon(view || "overview"), text);
		}),
	);
	const heading = h("h1", { tabindex: "-1" }, title);
	const head = h("div.page-head", crumb, heading);
	const body = h("div.stack");
	fill(main, head, body);
	document.title = `${title} · cli-bridge`;
	leave = view.show({ head, body, detail, query, session: session.current() });
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

async function logOut() {
	try {
		await session.logOut();
		askForKey("You are logged out.");
	} catch (error) {
		toast(error.message);
	}
}

async function logOutEverywhere() {
	const label = "Log out everywhere";
	const text = "Every session on every device and of every admin ends at once.";
	if (await confirm(`${label}?`, text, label, () => session.logOut("/admin/sessions")))
		askForKey("Every session on every device is ended.");
}

/** Log in with a link, or go on with the session that is there; else ask for the key. */
async function begin() {
	leave();
	leave = () => {};
	fill(main, skeleton(6));
	const token = takeLink();
	try {
		const found = token ? await session.logIn(token) : await session.resume();
		if (token) history.replaceState(null, "", "#/start");
		if (found.session) start();
		else askForKey("", found.error);
	} catch (error) {
		if (token) askForKey("", error);
		else fill(main, errorBox(error, begin));
	}
}

document.getElementById("log-out").addEventListener("click", logOut);
document.getElementById("log-out-everywhere").addEventListener("click", logOutEverywhere);
document.getElementById("skip").addEventListener("click", (event) => {
	event.preventDefault();
	main.focus();
});
window.addEventListener("hashchange", show);
session.whenOver(() => askForKey("Your session has ended. Log in again to go on."));
begin();
