/** The dialogs of a key: make one or several, change, rotate. */

import { ApiError } from "../lib/api.js";
import { nowMs } from "../lib/clock.js";
import { h, redraw, say } from "../lib/dom.js";
import { inWords, money } from "../lib/format.js";
import { LIMITS, PROVIDERS } from "../lib/registry.js";
import { button, field, formDialog, nameIn, nameInput, select } from "../lib/ui.js";
import { listField, numberField, textField, valuesOf } from "./fields.js";
import { showSecret, showSecrets } from "./handover.js";
import { keyPath } from "./links.js";
import { call, current } from "./session.js";

const PRESETS = [
	["Designer: $5 a day", { maxCostPerDay: 5, maxRequestsPerMinute: 20, maxConcurrent: 3 }],
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
export async function createKey() {
	const made = await form(null, await knownNames());
	if (made?.several) await showSecrets(made.several, made.failed);
	else if (made) await showSecret(made, "made");
	return made?.name;
}

/** Change a key. Gives whether it was. */
export async function editKey(key) {
	return Boolean(await form(key, await knownNames()));
}

/** What a key may be bound to, by names; a list that cannot be had only lacks in a hint. */
async function knownNames() {
	const ask = (path) => call("GET", path).catch(() => null);
	const [bound, named] = await Promise.all([ask("/admin/credentials"), ask("/admin/models")]);
	return { credentials: bound?.credentials.map((each) => each.name) ?? [], models: named?.models ?? [] };
}

/** Give a key a new secret, after asking how long the old one shall work. */
export async function rotateKey(key) {
	const grace = select(GRACES, "0");
	const question = [
		h("p", "The key gets a new secret, which is shown once. Limits and usage stay."),
		field("The old secret stops working", grace),
	];
	const send = () => call("POST", keyPath(key.name, "/rotate"), { body: { graceSeconds: Number(grace.value) } });
	const rotated = await formDialog(`Rotate ${key.name}`, question, "Rotate", send);
	if (rotated) await showSecret(rotated, "rotated");
	return Boolean(rotated);
}

function form(key, known) {
	const limits = Object.fromEntries(LIMITS.map(({ name }) => [name, limitField(name, key?.ownLimits)]));
	const name = nameInput();
	const list = h("textarea", { rows: "6", spellcheck: "false", autocomplete: "off" });
	const one = field("Name", name, "It cannot be changed later. “Zoë Müller” becomes Zoe-Muller.");
	const many = field("People or things, one in each line", list, "Each gets a key of its own, with the limits below.");
	const several = checkbox(false, { onchange: showNames });
	const note = textField("Note", "For yourself: who it is for, what for.", key?.note, { maxlength: "500" });
	const comma = "Names with commas between them";
	const models = listField("Only these models", `${comma}. Empty: any.`, key?.models);
	const credentials = listField(
		"Only these credentials",
		`${comma}${such(known.credentials)}. Empty: any.`,
		key?.credentials,
	);
	const allowed = key?.providers ?? Object.keys(PROVIDERS);
	const providers = Object.keys(PROVIDERS).map((each) => [each, checkbox(allowed.includes(each))]);
	const webSearch = checkbox(key?.webSearch);
	const ends = key?.expiresAt ? local(new Date(key.expiresAt)) : "";
	const expiry = select(EXPIRIES, ends && "date", { onchange: showDate });
	const date = h("input", { type: "datetime-local", value: ends });
	const dateField = field("Expires at (your time)", date);
	const label = h("span");
	const presets = PRESETS.map(([label], place) => [place, label]);
	const preset = select([["", "The server's defaults"], ...presets], "", { onchange: usePreset });
	showDate();
	showNames();

	function showNames() {
		one.hidden = name.disabled = several.checked;
		many.hidden = list.disabled = !several.checked;
		list.required = several.checked;
		say(label, key ? "Save" : several.checked ? "Make the keys" : "Make the key");
	}

	function showDate() {
		dateField.hidden = expiry.value !== "date";
		date.required = expiry.value === "date";
	}

	function usePreset() {
		const [, chosen] = PRESETS[preset.value] ?? ["", {}];
		for (const [limit, { input }] of Object.entries(limits)) input.value = chosen[limit] ?? "";
		expiry.value = chosen.expiry ?? "";
		showDate();
	}

	async function send() {
		const chosen = providers.filter(([, box]) => box.checked).map(([each]) => each);
		const body = {
			...valuesOf({ ...limits, note, models, credentials }),
			webSearch: webSearch.checked,
			providers: chosen.length === providers.length ? null : chosen,
			expiresAt: expiresAt(),
		};
		if (key) return call("PATCH", keyPath(key.name), { body });
		if (several.checked) return makeAll(keysOf(list.value), body);
		body.note ||= noteOf(name.value);
		return call("POST", "/admin/keys", { body: { ...body, name: nameIn(name.value) } });
	}

	/** When it ends; undefined where the fields say what the key has: that may lie in the past, which cannot be sent. */
	function expiresAt() {
		const chosen = expiry.value === "date" ? date.value : expiry.value;
		if (key && chosen === ends) return undefined;
		if (chosen === "") return null;
		const moment = expiry.value === "date" ? new Date(chosen) : new Date(nowMs() + Number(chosen) * 86400000);
		return moment.toISOString();
	}

	const body = [
		!key &&
			h(
				"div.fields",
				h("div.stack.tight", one, many, h("label.check.small", several, "Several keys at once")),
				field("Start from", preset, "Fills in the limits below; change what you like."),
			),
		h("div.fields", note.element, field("Expires", expiry), dateField),
		[...new Set(LIMITS.map((limit) => limit.group))].map((group) => {
			const rows = LIMITS.filter((limit) => limit.group === group).map((limit) => limits[limit.name].element);
			return h("fieldset", h("legend", group), h(rows.length > 3 ? "div.fields.four" : "div.fields.three", rows));
		}),
		h("p.hint", "Empty: the server's default, which is shown in grey. 0: no limit, on purpose."),
		h(
			"div.fields",
			h(
				"fieldset",
				h("legend", "May use"),
				h(
					"div.row",
					providers.map(([each, box]) => h("label.check", box, PROVIDERS[each].title)),
					h("label.check", webSearch, "Web search"),
				),
			),
			h("div", models.element, modelHint(models.input, known.models)),
			credentials.element,
		),
	];
	return formDialog(key ? `Change ${key.name}` : "New key", body, label, send, { wide: true });
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
		redraw(offers, offered.map(({ id }) => button(id, () => put(id), ".small", { key: id })));
	}

	input.addEventListener("input", update);
	input.addEventListener("blur", update);
	update();
	return h("div.stack.tight", offers, hint);
}

/** The name of the list that is most like another: most pairs of letters are in both. */
function closest(name, list) {
	const pairs = pairsOf(name);
	const likeness = (others) => (2 * [...others].filter((pair) => pairs.has(pair)).length) / (others.size + pairs.size);
	const [best] = list.map(({ id }) => [id, likeness(pairsOf(id))]).sort(([, one], [, other]) => other - one);
	return best && best[1] > 0.7 ? best[0] : null;
}

function pairsOf(text) {
	return new Set([...text.toLowerCase()].map((letter, at, all) => letter + (all[at + 1] ?? "")));
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

function limitField(name, own = {}) {
	const { label, unit } = LIMITS.find((limit) => limit.name === name);
	const byDefault = current().limits.find((limit) => limit.name === name).default;
	const [step, shown] = unit === "dollars" ? ["any", money(byDefault)] : ["1", byDefault];
	return numberField(inWords(label), "", own[name], undefined, {
		name,
		step,
		placeholder: byDefault === 0 ? "no limit" : shown,
		// A limit that was named once can be changed, not unnamed: an empty field would mean nothing.
		required: own[name] !== undefined,
	});
}

function checkbox(checked, attributes = {}) {
	return h("input", { type: "checkbox", checked, ...attributes });
}

/** A moment as a datetime-local field wants it. */
function local(moment) {
	return new Date(moment.getTime() - moment.getTimezoneOffset() * 60000).toISOString().slice(0, 16);
}
