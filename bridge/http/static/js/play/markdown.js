/**
 * Markdown as elements: headings, lists, tables, quotes, code, emphasis, links. Made of nodes one by one, never of HTML;
 * whatever is no Markdown stays text, and so does HTML. It takes linear time whatever the text is, and works in slices,
 * so that a long one does not hold the page up.
 */

import { h } from "../lib/dom.js";
import { longTextIn } from "../lib/longtext.js";
import { copyButton } from "../lib/ui.js";

/** How long it works at a time, in milliseconds. */
const SLICE_MS = 12;
/** How deep lists, quotes and emphasis go; what is deeper is text. */
const DEEPEST = 8;
/** Rows of a table and items of a list in one element: what is not seen is not laid out, but only as a whole. */
const ROWS = 100;
/** The most columns of a table; what has more is text. */
const MOST_COLUMNS = 100;
/** The most marks in one paragraph; what follows is text. */
const MOST_MARKS = 2000;

const BLANK = /^\s*$/;
const FENCE = /^ {0,3}(`{3,}|~{3,})([^`]*)$/;
const HEADING = /^ {0,3}(#{1,6})(?:[ \t]+|$)/;
const RULE = /^ {0,3}(?:(?:\*[ \t]*){3,}|(?:-[ \t]*){3,}|(?:_[ \t]*){3,})$/;
const QUOTE = /^ {0,3}> ?/;
const ITEM = /^( {0,3})([-*+]|\d{1,9}[.)])(?:( {1,4})(?=\S)|(?=\s*$)|( ))/;
const INDENTED = /^ {4}|^\t/;

/** Fill an element with a text's Markdown: {done, stop()}, where `done` is a promise of the end. */
export function markdown(element, text) {
	let stopped = false;
	const work = blocks(element, text.replaceAll("\r\n", "\n").split("\n"), 0);

	async function go() {
		for (;;) {
			const end = performance.now() + SLICE_MS;
			while (performance.now() < end) if (stopped || work.next().done) return;
			await new Promise((resolve) => {
				setTimeout(resolve);
			});
		}
	}

	element.replaceChildren();
	return {
		done: go(),
		stop() {
			stopped = true;
		},
	};
}

/** Append the blocks of some lines, and pause after each. */
function* blocks(parent, lines, depth) {
	let at = 0;
	while (at < lines.length) {
		const line = lines[at];
		if (BLANK.test(line)) at++;
		else if (FENCE.test(line)) at = fenced(parent, lines, at);
		else if (HEADING.test(line)) {
			const [before, marks] = line.match(HEADING);
			const words = line.slice(before.length).trim();
			parent.append(inline(h(`h${Math.min(6, marks.length + 2)}`), words.replace(/(?:^|[ \t])#+$/, "")));
			at++;
		} else if (RULE.test(line)) {
			parent.append(h("hr"));
			at++;
		} else if (QUOTE.test(line) && depth < DEEPEST) {
			const start = at;
			while (at < lines.length && (QUOTE.test(lines[at]) || (at > start && !starts(lines, at)))) at++;
			const quote = h("blockquote");
			parent.append(quote);
			yield* blocks(quote, lines.slice(start, at).map((each) => each.replace(QUOTE, "")), depth + 1);
		} else if (ITEM.test(line) && depth < DEEPEST) at = yield* list(parent, lines, at, depth);
		else if (isTable(lines, at)) at = yield* table(parent, lines, at);
		else if (INDENTED.test(line)) {
			const start = at;
			while (at < lines.length && (INDENTED.test(lines[at]) || BLANK.test(lines[at]))) at++;
			parent.append(code(lines.slice(start, at).map((each) => each.replace(INDENTED, "")).join("\n").trimEnd()));
		} else {
			const start = at++;
			while (at < lines.length && !starts(lines, at)) at++;
			parent.append(inline(h("p"), lines.slice(start, at).map((each) => each.trimStart()).join("\n")));
		}
		yield;
	}
}

/** Whether a line ends the paragraph before it. */
function starts(lines, at) {
	const line = lines[at];
	const item = line.match(ITEM);
	return (
		BLANK.test(line) ||
		FENCE.test(line) ||
		HEADING.test(line) ||
		RULE.test(line) ||
		QUOTE.test(line) ||
		(item !== null && item[0].length < line.length) ||
		isTable(lines, at)
	);
}

function fenced(parent, lines, at) {
	const [, fence, language] = lines[at].match(FENCE);
	const start = ++at;
	const closes = (line) => {
		const words = line.trim();
		return words.length >= fence.length && words === fence[0].repeat(words.length);
	};
	while (at < lines.length && !closes(lines[at])) at++;
	parent.append(code(lines.slice(start, at).join("\n"), language.trim().split(/\s/)[0]));
	return at + 1;
}

/** A block of code with its language and a button that copies it. */
function code(text, language = "") {
	const block = h("pre.code", { tabindex: "0", role: "group", "aria-label": language ? `Code: ${language}` : "Code" });
	return h(
		"div.code-block",
		{},
		h("div.code-head", h("span.small.muted", h("bdi", language)), copyButton(() => text)),
		longTextIn(block, text),
	);
}

function* list(parent, lines, at, depth) {
	const [, , first] = lines[at].match(ITEM);
	const numbered = /\d/.test(first);
	const kind = first.at(-1);
	let number = numbered ? Number.parseInt(first, 10) : 0;
	let holder = null;
	while (at < lines.length) {
		const found = lines[at].match(ITEM);
		if (!found || found[2].at(-1) !== kind || RULE.test(lines[at])) break;
		const inner = found[0].length + (found[3] || found[4] ? 0 : 1);
		const start = at++;
		for (; at < lines.length; at++) {
			const line = lines[at];
			// What is indented belongs to the item; so does a line that goes on with its paragraph.
			if (BLANK.test(line)) {
				if (at + 1 >= lines.length || indent(lines[at + 1]) < inner) break;
			} else if (indent(line) < inner && (starts(lines, at) || BLANK.test(lines[at - 1]))) break;
		}
		const own = lines
			.slice(start, at)
			.map((each, place) => (place ? dedent(each, inner) : each.slice(found[0].length)));
		const task = own[0].match(/^\[([ xX])\] /);
		if (task) own[0] = `${task[1] === " " ? "☐" : "☑"} ${own[0].slice(4)}`;
		if (!holder || holder.children.length >= ROWS) {
			holder = h(numbered ? "ol" : "ul", numbered ? { start: number } : {});
			parent.append(holder);
		}
		const item = h("li");
		holder.append(item);
		if (own.length === 1 && !starts(own, 0)) inline(item, own[0]);
		else yield* blocks(item, own, depth + 1);
		number++;
		yield;
		// A blank line between items is not the end of the list.
		if (BLANK.test(lines[at] ?? "x") && ITEM.test(lines[at + 1] ?? "")) at++;
	}
	return at;
}

function indent(line) {
	return line.search(/\S|$/);
}

function dedent(line, width) {
	return line.slice(Math.min(width, indent(line)));
}

// --- tables ---

function isTable(lines, at) {
	const below = lines[at + 1];
	if (!lines[at].includes("|") || !below?.includes("-") || below.length > 2000) return false;
	const rule = cells(below);
	return (
		rule.length <= MOST_COLUMNS &&
		rule.every((each) => /^:?-+:?$/.test(each)) &&
		rule.length === cells(lines[at]).length
	);
}

function cells(line) {
	const found = [];
	let cell = "";
	for (let at = 0; at < line.length; at++) {
		if (line[at] === "\\" && line[at + 1] === "|") cell += line[++at];
		else if (line[at] === "|") {
			found.push(cell.trim());
			cell = "";
		} else cell += line[at];
	}
	found.push(cell.trim());
	if (found.length > 1 && found[0] === "") found.shift();
	if (found.length > 1 && found.at(-1) === "") found.pop();
	return found;
}

function* table(parent, lines, at) {
	const head = cells(lines[at]);
	const kinds = cells(lines[at + 1]).map((rule) => (rule.endsWith(":") ? (rule[0] === ":" ? ".middle" : ".num") : ""));
	at += 2;
	let body = null;
	while (at < lines.length && lines[at].includes("|") && !BLANK.test(lines[at])) {
		if (!body || body.children.length >= ROWS) {
			body = h("tbody");
			parent.append(tableOf(head, kinds, body));
		}
		const row = cells(lines[at]);
		const line = h("tr", kinds.slice(0, row.length).map((kind, place) => inline(h(`td${kind}`), row[place])));
		// One cell for all that are missing: short rows below a long head must not become more than was written.
		const missing = kinds.length - row.length;
		if (missing > 0) line.append(h(`td${kinds[row.length]}`, { colspan: missing > 1 && missing }));
		body.append(line);
		at++;
		yield;
	}
	if (!body) parent.append(tableOf(head, kinds, h("tbody")));
	return at;
}

function tableOf(head, kinds, body) {
	const top = h("tr", head.map((words, place) => inline(h(`th${kinds[place]}`, { scope: "col" }), words)));
	return h(
		"div.table-wrap",
		{ tabindex: "0", role: "group", "aria-label": "Table" },
		h("table.plain", h("thead", top), body),
	);
}

// --- what stands in a line ---

const MARKS =
	/\\([!-/:-@[-`{-~])|(`+)|!?\[([^[\]]{0,1000})\]\(<?((?:https?:\/\/|mailto:)[^\s<>()]{1,2000}(?:\([^\s<>()]{0,200}\)[^\s<>()]{0,200})?)>?(?:\s+"[^"\n]{0,300}")?\)|<?(https?:\/\/[^\s<>"`\\]{1,2000})>?|(\*+|_+|~~)/g;

/** Append a line's text, with what is marked in it, to an element. */
function inline(element, text) {
	/** What is open: {mark, node}. */
	const open = [];
	let top = element;
	let from = 0;
	let made = 0;
	const runs = ticks(text);
	MARKS.lastIndex = 0;
	const write = (words) => words && top.append(words);

	for (let found = MARKS.exec(text); found && made < MOST_MARKS; made++, found = MARKS.exec(text)) {
		const [all, escaped, tick, label, target, address, mark] = found;
		const at = found.index;
		write(text.slice(from, at));
		from = at + all.length;
		if (escaped) write(escaped);
		else if (tick) {
			const end = runs(tick.length, from);
			if (end < 0) write(all);
			else {
				const inside = text.slice(from, end).replaceAll("\n", " ");
				top.append(h("code", /^ .*\S.* $/.test(inside) ? inside.slice(1, -1) : inside));
				from = MARKS.lastIndex = end + tick.length;
			}
		} else if (label !== undefined) {
			top.append(link(target, label || target));
		} else if (address) {
			// What ends a sentence is not the end of an address.
			const url = address.replace(/[.,:;!?'")\]*_]{1,9}$/, "");
			top.append(link(url, url));
			from = MARKS.lastIndex = text.indexOf(url, at) + url.length + (all.endsWith(">") && all[0] === "<" ? 1 : 0);
		} else marked(mark, text[at - 1] ?? " ", text[from] ?? " ");
	}
	MARKS.lastIndex = 0;
	write(text.slice(from));
	while (open.length) unwrap();
	return element;

	function marked(run, before, after) {
		const opens = !/\s/.test(after) && (run[0] !== "_" || !/[\p{L}\p{N}]/u.test(before));
		const closes = !/\s/.test(before) && (run[0] !== "_" || !/[\p{L}\p{N}]/u.test(after));
		if (run.length > 3) {
			write(run);
			return;
		}
		for (let rest = run; rest;) {
			const mark = closer(rest, closes) ?? (rest.length > 1 ? rest.slice(0, 2) : rest);
			rest = rest.slice(mark.length);
			const place = closes ? open.findLastIndex((each) => each.mark === mark) : -1;
			if (place >= 0 && open[place].node.childNodes.length) {
				while (open.length > place + 1) unwrap();
				top = open.pop().node.parentNode;
			} else if (opens && open.length < DEEPEST) {
				const node = h(mark === "~~" ? "s" : mark.length === 2 ? "strong" : "em");
				top.append(node);
				open.push({ mark, node });
				top = node;
			} else write(mark);
		}
	}

	/** The mark that is open and that a run begins with, innermost first. */
	function closer(run, closes) {
		if (!closes) return null;
		const mark = open.at(-1)?.mark;
		return mark && run.startsWith(mark) ? mark : null;
	}

	/** A mark that nothing closes is text. */
	function unwrap() {
		const { mark, node } = open.pop();
		const parent = node.parentNode;
		node.replaceWith(mark, ...node.childNodes);
		top = parent;
	}
}

/** Where the next run of so many back-ticks is, from a place on; -1 where there is none. Each run is looked at once. */
function ticks(text) {
	let places = null;
	return (length, from) => {
		if (!places) {
			places = new Map();
			for (const run of text.matchAll(/`+/g)) {
				if (!places.has(run[0].length)) places.set(run[0].length, { at: [], next: 0 });
				places.get(run[0].length).at.push(run.index);
			}
		}
		const known = places.get(length);
		if (!known) return -1;
		while (known.next < known.at.length && known.at[known.next] < from) known.next++;
		return known.at[known.next] ?? -1;
	};
}

/** A link out of the page, with where it leads to for who points at it. */
function link(target, label) {
	return h("a", { href: target, title: target, target: "_blank", rel: "noopener noreferrer" }, label);
}
