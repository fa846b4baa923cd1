/** The dialogs of a key: make one or several, change, rotate. */

import { ApiError } from "../lib/api.js";
import { h, refill, say } from "../lib/dom.js";
import { inWords, listOf, money } from "../lib/format.js";
import { LIMITS, PROVIDERS } from "../lib/registry.js";
import { attempt, button, dialog, field, nameIn, nameInput, select, submits, textInput } from "../lib/ui.js";
import { showSecret, showSecrets } from "./handover.js";
import { keyPath } from "./links.js";
import { call } from "./session.js";

const PRESETS = [
	["Designer: $5 a day", { maxCostPerDay: 5, maxRequestsPerMinute: 20, maxConcurrent: 2 }],
	["Prototype: $2 a day, $20 a month", { maxCostPerDay: 2, maxCostPerMonth: 20, maxConcurrent: 4 }],
	[
		"Script or sheet: $1 a day, one at a time",
		{ maxCostPerDay: 1, maxCostPerMonth: 10, maxRequestsPerMinute: 10, maxConcurrent: 1 },
	],
	[
		"Team tool: $25 a day, $250 a month",
		{ maxCostPerDay: 25, maxCostPerMonth: 250, maxRequestsPerMinute: 60, maxConcurrent: 8 },
	],
	["Guest: $1 a day, for a week", { maxCostPerDay: 1, maxRequestsPerDay: 100, maxConcurrent: 1, expiry: "7" }],
];
const EXPIRIES = [
	["", "Never"],
	["1", "In a day"],
	["7", "In a week"],
	["30", "In 30 days"],
	["90", "In 90 days"],
	["date", "On a date"],
];
const GRACES = [["0", "At once"], ["3600", "In an hour"], ["86400", "In a day"], ["604800", "In a week"]];

/** Ask for a new key, or several, and make them. Gives the name of the key where it is one, or undefined. */
export async function createKey(session) {
	const known = await knownNames();
	const made = await dialog((close) => form(session, null, known, close), { wide: true });
	if (made?.several) await showSecrets(made.several, made.failed);
	else if (made) await showSecret(made, session, "made");
	return made?.name;
}

/** Change a key. Gives whether it was. */
export async function editKey(session, key) {
	const known = await knownNames();
	return Boolean(await dialog((close) => form(session, key, known, close), { wide: true }));
}

/** What a key may be bound to, by names; a list that cannot be had only lacks in a hint. */
async function knownNames() {
	const ask = (path) => call("GET", path).catch(() => null);
	const [bound, named] = await Promise.all([ask("/admin/credentials"), ask("/admin/models")]);
	return { credentials: bound?.credentials.map((each) => each.name) ?? [], models: named?.models ?? [] };
}

/** Give a key a new secret, after asking how long the old one shall work. */
export async function rotateKey(session, key) {
	const grace = select(GRACES, "0");
	const problem = h("div");
	const path = keyPath(key.name, "/rotate");
	const rotated = await dialog((close) => ({
		title: `Rotate ${key.name}`,
		body: [
			h("p", "The key gets a new secret, which is shown once. Limits and usage stay."),
			field("The old secret stops working", grace),
			problem,
		],
		actions: [
			button("Cancel", () => close()),
			button(
				"Rotate",
				() =>
					attempt(problem, async () =>
						close(await call("POST", path, { body: { graceSeconds: Number(grace.value) } })),
					),
				".primary",
			),
		],
	}));
	if (rotated) await showSecret(rotated, session, "rotated");
	return Boolean(rotated);
}

function form(session, key, known, close) {
	const defaults = Object.fromEntries(session.limits.map((limit) => [limit.name, limit.default]));
	const inputs = Object.fromEntries(LIMITS.map((limit) => [limit.name, limitInput(limit, key, defaults[limit.name])]));
	const name = nameInput();
	const list = h("textarea", { rows: "6", spellcheck: "false", autocomplete: "off" });
	const one = field("Name", name, "It cannot be changed later. “Zoë Müller” becomes Zoe-Muller.");
	const many = field("People or things, one in each line", list, "Each gets a key of its own, with the limits below.");
	const several = checkbox(false);
	several.addEventListener("change", showNames);
	const note = h("input", { type: "text", maxlength: "500", autocomplete: "off" });
	const models = textInput({ placeholder: "any" });
	const bound = textInput({ placeholder: "any" });
	const providers = Object.fromEntries(Object.keys(PROVIDERS).map((each) => [each, checkbox(true)]));
	const searches = checkbox(false);
	const expiry = select(EXPIRIES, "", { onchange: showDate });
	const date = h("input", { type: "datetime-local" });
	const dateField = field("Expires at (your time)", date);
	const problem = h("div");
	const id = "key-form";
	const save = h("button.button.primary", { type: "submit", form: id });
	const preset = select(
		[["", "The server's defaults"], ...PRESETS.map(([label], place) => [String(place), label])],
		"",
		{ onchange: usePreset },
	);

	if (key) {
		note.value = key.note;
		models.value = (key.models ?? []).join(", ");
		bound.value = (key.credentials ?? []).join(", ");
		searches.checked = key.webSearch;
		for (const [each, input] of Object.entries(providers))
			input.checked = key.providers === null || key.providers.includes(each);
		if (key.expiresAt) {
			expiry.value = "date";
			date.value = local(new Date(key.expiresAt));
		}
	}
	showDate();
	showNames();

	function showNames() {
		one.hidden = name.disabled = several.checked;
		many.hidden = list.disabled = !several.checked;
		list.required = several.checked;
		say(save, key ? "Save" : several.checked ? "Make the keys" : "Make the key");
	}

	function showDate() {
		dateField.hidden = expiry.value !== "date";
		date.required = expiry.value === "date";
	}

	function usePreset() {
		const chosen = preset.value === "" ? {} : PRESETS[Number(preset.value)][1];
		for (const [limit, input] of Object.entries(inputs)) input.value = chosen[limit] ?? "";
		expiry.value = chosen.expiry ?? "";
		showDate();
	}

	async function submit() {
		const chosen = Object.keys(providers).filter((each) => providers[each].checked);
		const body = {
			...(key || several.checked ? {} : { name: nameIn(name.value) }),
			...limits(inputs),
			note: note.value.trim() || noteOf(name.value),
			models: listOf(models.value),
			credentials: listOf(bound.value),
			webSearch: searches.checked,
			providers: chosen.length === Object.keys(providers).length ? null : chosen,
			...(key && expiryIs(key) ? {} : { expiresAt: expiresAt() }),
		};
		const path = key ? keyPath(key.name) : "/admin/keys";
		if (several.checked) close(await makeAll(keysOf(list.value), body));
		else close(await call(key ? "PATCH" : "POST", path, { body }));
	}

	function expiresAt() {
		if (expiry.value === "") return null;
		if (expiry.value === "date") return new Date(date.value).toISOString();
		return new Date(Date.now() + Number(expiry.value) * 86400000).toISOString();
	}

	/** Whether the fields still say what the key has: its time may lie in the past, which cannot be sent. */
	function expiryIs(old) {
		return old.expiresAt
			? expiry.value === "date" && date.value === local(new Date(old.expiresAt))
			: expiry.value === "";
	}

	return {
		title: key ? `Change ${key.name}` : "New key",
		body: h(
			"form.stack",
			{ id, onsubmit: submits(problem, submit) },
			!key &&
				h(
					"div.fields",
					h("div.stack.tight", one, many, h("label.check.small", several, "Several keys at once")),
					field("Start from", preset, "Fills in the limits below; change what you like."),
				),
			h(
				"div.fields",
				field("Note", note, "For yourself: who it is for, what for."),
				field("Expires", expiry),
				dateField,
			),
			[...new Set(LIMITS.map((limit) => limit.group))].map((group) => {
				const rows = LIMITS.filter((limit) => limit.group === group);
				return h(
					"fieldset",
					h("legend", group),
					h(
						rows.length > 3 ? "div.fields.four" : "div.fields.three",
						rows.map((limit) => field(inWords(limit.label), inputs[limit.name])),
					),
				);
			}),
			h("p.hint", "Empty: the server's default, which is shown in grey. 0: no limit, on purpose."),
			h(
				"div.fields",
				h(
					"fieldset",
					h("legend", "May use"),
					h(
						"div.row",
						Object.entries(PROVIDERS).map(([each, { title }]) => h("label.check", providers[each], title)),
						h("label.check", searches, "Web search"),
					),
				),
				h(
					"div",
					field("Only these models", models, "Names with commas between them. Empty: any."),
					modelHint(models, known.models),
				),
				field("Only these credentials", bound, `Names with commas between them${such(known.credentials)}. Empty: any.`),
			),
			problem,
		),
		actions: [button("Cancel", () => close()), save],
	};
}

/**
 * Below the names of models: those of the list that go on with what is typed, to press; and which name is of no model
 * that is known, with the one that may have been meant.
 */
function modelHint(input, list) {
	const hint = h("p.hint.wrong", { role: "status" });
	const offers = h("div.row.offers", { role: "group", "aria-label": "Models to add" });
	const typed = () => input.value.split(",").map((each) => each.trim());

	function put(name) {
		const others = typed().slice(0, -1);
		input.value = [...others, name, ""].join(", ");
		input.focus();
		update();
	}

	function update() {
		const all = typed();
		const last = all.at(-1).toLowerCase();
		// What is still being typed is not wrong yet.
		const settled = document.activeElement === input ? all.slice(0, -1) : all;
		const wrong = list.length ? settled.filter((name) => name && !list.some((each) => each.id === name)) : [];
		const meant = wrong.map((name) => [name, closest(name, list)]);
		say(
			hint,
			meant.map(([name, other]) => `No known model is called ${name}${other ? `: ${other}, perhaps?` : "."}`).join(" "),
		);
		const offered = list
			.filter((each) => last && each.id.toLowerCase().includes(last) && !all.includes(each.id))
			.slice(0, 5);
		// A button that is being pressed stays where it is.
		refill(
			offers,
			offered.map((each) => each.id),
			offered.map((each) => button(each.id, () => put(each.id), ".small")),
		);
	}

	input.addEventListener("input", update);
	input.addEventListener("blur", update);
	update();
	return h("div.stack.tight", offers, hint);
}

/** The name of the list that is like another: at most a third of it has to be changed. */
function closest(name, list) {
	const [best] = list
		.map(({ id }) => [id, distance(name.toLowerCase(), id.toLowerCase())])
		.sort(([, one], [, other]) => one - other);
	return best && best[1] <= Math.ceil(name.length / 3) ? best[0] : null;
}

/** How many letters one has to add, drop or change to come from one name to the other. */
function distance(one, other) {
	let row = Array.from({ length: other.length + 1 }, (_, place) => place);
	for (let at = 1; at <= one.length; at++) {
		const next = [at];
		for (let to = 1; to <= other.length; to++) {
			next.push(Math.min(next[to - 1] + 1, row[to] + 1, row[to - 1] + (one[at - 1] === other[to - 1] ? 0 : 1)));
		}
		row = next;
	}
	return row.at(-1);
}

function such(credentials) {
	if (!credentials.length) return "";
	return `, ${credentials.length > 6 ? "such as" : "of"} ${credentials.slice(0, 6).join(", ")}`;
}

/** Names of people as names of keys: [name, who it is for], each once. */
function keysOf(text) {
	const found = new Map();
	for (const line of text.split(/[\n\t,;]+/).map((each) => each.trim())) {
		const name = nameIn(line);
		if (name && !found.has(name)) found.set(name, line);
	}
	return [...found];
}

/** The name of a person, where it says more than that of the key. */
export function noteOf(text) {
	return text.trim() === nameIn(text) ? "" : text.trim();
}

/** Make a key for each name. Those that cannot be made do not stop the others. Throws ApiError where none can. */
async function makeAll(names, body) {
	const several = [];
	const failed = [];
	for (const [name, line] of names) {
		try {
			several.push(await call("POST", "/admin/keys", { body: { ...body, name, note: body.note || noteOf(line) } }));
		} catch (error) {
			failed.push([name, error.message]);
			if (error.status === 401) break;
		}
	}
	if (!several.length) {
		const [name, reason] = failed[0] ?? ["", "There is no name in the list."];
		throw new ApiError(400, { error: name ? `${name}: ${reason}` : reason });
	}
	return { several, failed };
}

function limitInput(limit, key, byDefault) {
	const money_ = limit.unit === "dollars";
	const shown = byDefault === 0 ? "no limit" : money_ ? money(byDefault) : String(byDefault);
	const input = h("input", {
		type: "number",
		min: "0",
		step: money_ ? "any" : "1",
		inputmode: "decimal",
		placeholder: shown,
		name: limit.name,
	});
	const own = key?.ownLimits[limit.name];
	if (own !== undefined) {
		input.value = own;
		// A limit that was named once can be changed, not unnamed: an empty field would mean nothing.
		input.required = true;
	}
	return input;
}

function limits(inputs) {
	return Object.fromEntries(
		Object.entries(inputs)
			.filter(([, input]) => input.value !== "")
			.map(([limit, input]) => [limit, input.valueAsNumber]),
	);
}

function checkbox(checked) {
	const input = h("input", { type: "checkbox" });
	input.checked = checked;
	return input;
}

/** A moment as a datetime-local field wants it. */
function local(moment) {
	return new Date(moment.getTime() - moment.getTimezoneOffset() * 60000).toISOString().slice(0, 16);
}
