/** Parts that every page uses: notices, dialogs, copying, empty and error states. */

import { readable } from "./api.js";
import { fill, h, icon, say } from "./dom.js";
import { inOwnTime, visible } from "./format.js";
import { hintOf } from "./hints.js";

const TOAST_MS = 8000;
/** How long a button says that it has copied. */
const COPIED_MS = 2000;
/** Typing changes a list only when it pauses. */
const SEARCH_MS = 120;

/**
 * A short message that goes away by itself, but not under a pointer or the focus. `action` is {label, run}; a message
 * about the same `subject` takes the place of the one before it.
 */
export function toast(text, action = null, subject = text) {
	const from = document.activeElement;
	const act = () => {
		box.remove();
		focusOn(from);
		action.run();
	};
	const box = h(
		"div.toast",
		{ "data-subject": subject },
		h("span", text),
		action && h("button.quiet.nowrap", { onclick: act }, action.label),
	);
	const leave = paused(() => (box.matches(":hover, :focus-within") ? leave() : box.remove()), TOAST_MS);
	const place = document.getElementById("toasts");
	for (const older of [...place.children]) if (older.dataset.subject === subject) older.remove();
	place.append(box);
	leave();
}

/** Put the focus on an element, or on the title of the page where that is gone: never on nothing. */
export function focusOn(element) {
	const target = element?.isConnected && element !== document.body ? element : document.querySelector("main h1");
	target?.focus({ preventScroll: true });
}

/** Do something for a button, once at a time. It keeps the focus: a disabled one would lose it. */
async function busy(button, task) {
	if (button.getAttribute("aria-disabled") === "true") return;
	button.setAttribute("aria-disabled", "true");
	try {
		await task();
	} finally {
		button.removeAttribute("aria-disabled");
	}
}

/**
 * For a form's `onsubmit`: do something when it is sent, once at a time; what goes wrong is shown in `place`, or at the
 * edge of the page where that is gone.
 */
export function submits(place, task) {
	async function attempt() {
		fill(place);
		try {
			await task();
		} catch (error) {
			fill(place, errorBox(error));
			if (place.isConnected) place.scrollIntoView({ block: "nearest" });
			else trouble(error);
		}
	}

	return (event) => {
		event.preventDefault();
		return busy(event.submitter ?? event.target, attempt);
	};
}

/** A task that waits until nobody has asked for it for so many milliseconds, such as while somebody types. */
export function paused(task, pauseMs) {
	let timer = 0;
	return () => {
		clearTimeout(timer);
		timer = setTimeout(task, pauseMs);
	};
}

/** Say at the edge of the page that something does not work at the moment, or with null that it does again. */
export function trouble(error) {
	const box = document.getElementById("trouble");
	box.hidden = error === null;
	if (error === null) return;
	const failure = readable(error);
	say(box, `${inOwnTime(failure.message)} ${failure.status === 0 ? "Trying again." : hintOf(failure)}`);
}

/** What went wrong and what to do, in a box; `retry` adds a button. */
export function errorBox(failure, retry = null) {
	const error = readable(failure);

	async function again() {
		await retry();
		if (document.activeElement === document.body) focusOn();
	}

	const marks = [error.code, error.body?.request_id].filter(Boolean).join(" · ");
	return h(
		"div.notice.bad",
		{ role: "alert" },
		icon("warning"),
		h(
			"div",
			h("p.strong", h("bdi", inOwnTime(error.message))),
			error.hint && h("p", h("bdi", hintOf(error))),
			marks && h("p.small.muted", marks),
			retry && button("Try again", again, ".small"),
		),
	);
}

/** Where there is nothing yet: what would be here, and how it gets here. */
export function emptyState(title, text, ...actions) {
	return h("div.empty", h("p.strong", title), h("p.muted", text), ...actions);
}

/** Grey lines in the place of what is still coming. */
export function skeleton(lines) {
	return h(
		"div.skeleton",
		{ role: "status" },
		h("span.hidden", "Loading"),
		Array.from({ length: lines }, () => h("div.bone", { "aria-hidden": "true" })),
	);
}

/** A box with a title; `extra` stands at the end of its head. */
export function card(title, extra, ...children) {
	return h("section.card", h("div.card-head", h("h2", title), extra), ...children);
}

/** A name or another text that somebody wrote, in a line of the page. */
export function named(text) {
	return h("bdi", visible(text));
}

/** A small label of a state, which its colour only repeats. */
export function badge(text, kind = "") {
	return h(`span.badge${kind && `.${kind}`}`, text);
}

/** How a request ended, as a label. */
export function statusBadge({ status, code }) {
	if (status < 400) return badge("ok", "good");
	const kind = code === "cancelled" ? "" : status < 500 ? "warn" : "bad";
	return badge(visible(code ?? status), kind);
}

/** A list of [[term, text or element, the element to show in place of the text], …]; what is false is left out. */
export function factList(facts) {
	const rows = facts.filter(Boolean).map(([key, text, element]) => {
		const shown = element || (text instanceof Node ? text : visible(text));
		return [h("dt", { key }, key), h("dd", { key }, shown)];
	});
	return h("dl.facts", rows);
}

/** Save a text, in parts, as a file. */
export function download(name, type, parts) {
	const url = URL.createObjectURL(new Blob(parts, { type }));
	h("a", { href: url, download: name }).click();
	setTimeout(() => URL.revokeObjectURL(url), 1000);
}

/** Put a text on the clipboard; also where the page came without encryption. */
async function copy(text) {
	if (navigator.clipboard && window.isSecureContext) {
		await navigator.clipboard.writeText(text);
		return;
	}
	const area = h("textarea.hidden", { "aria-hidden": "true", tabindex: "-1" });
	area.value = text;
	(document.querySelector("dialog[open]") ?? document.body).append(area);
	area.select();
	document.execCommand("copy");
	area.remove();
}

/**
 * A button that does something, once at a time, or that sends its form where it has no `onclick(event)`. `kind`: its
 * further classes.
 */
export function button(label, onclick = null, kind = "", attributes = {}) {
	const pressed = onclick && ((event) => busy(event.currentTarget, () => onclick(event)));
	return h(`button.button${kind}`, { type: onclick ? "button" : "submit", onclick: pressed, ...attributes }, label);
}

/** A button that copies what `text()` gives, and says so. */
export function copyButton(text, label = "Copy") {
	const caption = h("span", { "aria-live": "polite" }, label);
	const back = paused(() => say(caption, label), COPIED_MS);

	async function press() {
		try {
			await copy(text());
			say(caption, "Copied");
		} catch {
			say(caption, "Press Ctrl+C");
		}
		back();
	}

	return h("button.button.small", { onclick: press }, icon("copy"), caption);
}

/**
 * A dialog. `build(close)` gives {title, body, actions}; gives a promise of what `close(value)` was called
 * with, undefined where it was left. The focus is on its first field, or else on its first button. Escape leaves what
 * was filled in only at the second time.
 */
export function dialog(build, { wide = false, closable = true } = {}) {
	return new Promise((resolve) => {
		let result;
		const element = h(`dialog.dialog${wide ? ".wide" : ""}`, { "aria-labelledby": "dialog-title" });
		const close = (value) => {
			result = value;
			element.close();
		};
		const { title, body, actions = [] } = build(close);
		fill(
			element,
			h(
				"div.dialog-head",
				h("h2", { id: "dialog-title" }, title),
				closable && h("button.icon-button", { "aria-label": "Close", onclick: () => close() }, icon("close")),
			),
			h("div.dialog-body", body),
			actions.length > 0 && h("div.dialog-foot", actions),
		);
		let filled = false;
		const unsaved = h("p.notice.warn", { role: "alert" }, "Nothing of this is saved yet. Press Escape again to leave.");
		element.addEventListener("input", () => (filled = true));
		element.addEventListener("cancel", (event) => {
			if (closable && (!filled || unsaved.isConnected)) return;
			event.preventDefault();
			if (closable) element.querySelector(".dialog-body").append(unsaved);
			unsaved.scrollIntoView({ block: "nearest" });
		});
		element.addEventListener("close", () => {
			element.remove();
			resolve(result);
		});
		document.body.append(element);
		element.showModal();
		const first = ".dialog-body :is(input, select, textarea):not([hidden], [type=hidden]), .dialog-foot button";
		element.querySelector(first)?.focus();
	});
}

/**
 * A dialog with a form, which `task(button)` sends; what goes wrong is shown below it. Gives what the task gives, or
 * true, also where the dialog was left meanwhile: a key that was made must be shown. Undefined where nothing was sent.
 */
export async function formDialog(title, body, label, task = () => true, { kind = ".primary", wide = false } = {}) {
	const problem = h("div");
	const id = "dialog-form";
	const send = button(label, null, kind, { form: id });
	let sent;
	const done = await dialog(
		(close) => {
			const onsubmit = submits(problem, async () => {
				sent = (async () => (await task(send)) ?? true)();
				close(await sent);
			});
			return {
				title,
				body: h("form.stack", { id, onsubmit }, body, problem),
				actions: [button("Cancel", () => close()), send],
			};
		},
		{ wide },
	);
	return done ?? sent?.catch(() => undefined);
}

/** Ask before something, such as what cannot be taken back, and do it: as `formDialog` does. */
export function confirm(title, text, label, task) {
	return formDialog(title, h("p", text), label, task, { kind: ".danger" });
}

/** A labelled field. `input` gets its id and the hint for screen readers. */
export function field(label, input, hint = "") {
	input.id ||= `field-${(field.number = (field.number ?? 0) + 1)}`;
	if (hint) input.setAttribute("aria-describedby", `${input.id}-hint`);
	return h(
		"div.field",
		h("label", { for: input.id }, label),
		input,
		hint && h("p.hint", { id: `${input.id}-hint` }, hint),
	);
}

/** A field for a name or an address, which no browser knows better. */
export function textInput(attributes = {}) {
	return h("input", { type: "text", autocomplete: "off", spellcheck: "false", ...attributes });
}

/** A field for the name of a new key or credential. */
export function nameInput(attributes = {}) {
	return textInput({ required: true, maxlength: "50", ...attributes });
}

/** What was typed there as the API takes it: "Zoë Müller" is Zoe-Muller. What nothing would be left of stays. */
export function nameIn(text) {
	const plain = text.normalize("NFKD").replace(/\p{M}/gu, "").replaceAll("ß", "ss");
	return plain.replace(/[^A-Za-z0-9_-]+/g, "-").replace(/^-+|-+$/g, "").slice(0, 50) || text.trim();
}

/**
 * A field to search with: {element, text(), finds(...texts)}, the last saying whether it stands in any of some texts.
 * `oninput()` is called when the typing pauses.
 */
export function searchBox(label, placeholder, oninput, value = "") {
	const input = h("input", {
		type: "search",
		"aria-label": label,
		placeholder,
		value,
		oninput: paused(oninput, SEARCH_MS),
	});
	const text = () => input.value.trim();
	const finds = (...texts) => texts.join("\n").toLowerCase().includes(text().toLowerCase());
	return { element: h("div.searchbox", icon("search"), input), text, finds };
}

/** A choice of values: [[value, text], …]; in place of a text, more of the same: a group, with `value` above it. */
export function select(options, value = "", attributes = {}) {
	const element = h("select", attributes, options.map(option));
	element.value = value;
	return element;
}

function option([value, text]) {
	return Array.isArray(text) ? h("optgroup", { label: value }, text.map(option)) : h("option", { value }, text);
}

/** Buttons of which one is pressed: [[value, text], …]; `press(value)` of the element presses another, and tells nobody. */
export function segmented(label, options, value, onchange) {
	const buttons = options.map(([each, text]) => h("button", { onclick: () => (press(each), onchange(each)) }, text));
	function press(next) {
		options.forEach(([each], place) => buttons[place].setAttribute("aria-pressed", String(each === next)));
	}
	press(value);
	return Object.assign(h("div.segmented", { role: "group", "aria-label": label }, buttons), { press });
}

/** The name of the product with its picture, where no head of the page shows it. */
export function brand() {
	const picture = document.querySelector(".brand img").cloneNode();
	return h("span.brand", picture, "cli-bridge");
}
