/**
 * Markdown as elements: headings, lists, tables, quotes, code, emphasis, links. Made of nodes one by one, never of HTML;
 * whatever is no Markdown stays text, and so does HTML. It takes linear time whatever the text is, and works in slices,
 * so that a long one does not hold the page up.
 */

import { h, scrolls } from "../lib/dom.js";
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
const ITEM = /^ {0,3}([-*+]|\d{1,9}[.)])( {1,4}(?=\S)|(?=\s*$)| )/;
const INDENTED = /^ {4}|^\t/;
/** What ends the paragraph before it, besides items and tables. */
const STARTS = [BLANK, FENCE, HEADING, RULE, QUOTE];

/** Fill an element with a text's Markdown: {done, stop()}, where `done` is a promise of the end. */
export function markdown(element, text) {
	let stopped = false;
	const work = blocks(element, text.replaceAll("\r\n", "\n").split("\n"), 0);

	async function go() {
		for (;;) {
			const end = performance.now() + SLICE_MS;
			while (performance.now() < end) if (stopped || work.next().done) return;
			await new Promise((resolve) => setTimeout(resolve));
		}
	}

	element.replaceChildren();
	return { done: go(), stop: () => (stopped = true) };
}

/** Append the blocks of some lines, and pause after each. */
function* blocks(parent, lines, depth) {
	let at = 0;
	/** The lines from here on that belong together, without the marks at their beginning. */
	function take(goesOn, mark) {
		const start = at++;
		while (at < lines.length && goesOn(lines[at])) at++;
		return lines.slice(start, at).map((each) => each.replace(mark, ""));
	}
	const sameParagraph = () => !starts(lines, at);

	while (at < lines.length) {
		const line = lines[at];
		if (BLANK.test(line)) at++;
		else if (FENCE.test(line)) {
			const [, fence, language] = line.match(FENCE);
			const [, ...inside] = take((each) => !closes(each, fence), "");
			at++;
			parent.append(code(inside.join("\n"), language.trim().split(/\s/)[0]));
		} else if (HEADING.test(line)) {
			const [before, marks] = line.match(HEADING);
			const words = line.slice(before.length).trim();
			parent.append(inline(h(`h${Math.min(6, marks.length + 2)}`), words.replace(/(?:^|[ \t])#+$/, "")));
			at++;
		} else if (RULE.test(line)) {
			parent.append(h("hr"));
			at++;
		} else if (QUOTE.test(line) && depth < DEEPEST) {
			const quote = h("blockquote");
			parent.append(quote);
			yield* blocks(quote, take((each) => QUOTE.test(each) || sameParagraph(), QUOTE), depth + 1);
		} else if (ITEM.test(line) && depth < DEEPEST) at = yield* list(parent, lines, at, depth);
		else if (isTable(lines, at)) at = yield* table(parent, lines, at);
		else if (INDENTED.test(line)) {
			const inside = take((each) => INDENTED.test(each) || BLANK.test(each), INDENTED);
			parent.append(code(inside.join("\n").trimEnd()));
		} else parent.append(inline(h("p"), take(sameParagraph, /^\s+/).join("\n")));
		yield;
	}
}

/** Whether a line ends the paragraph before it. */
function starts(lines, at) {
	const line = lines[at];
	const item = line.match(ITEM);
	return (
		STARTS.some((pattern) => pattern.test(line)) || (item && item[0].length < line.length) || isTable(lines, at)
	);
}

/** Whether a line ends the code that began with a fence. */
function closes(line, fence) {
	const words = line.trim();
	return words.length >= fence.length && words === fence[0].repeat(words.length);
}

/** A block of code with its language and a button that copies it. */
function code(text, language = "") {
	const block = h("pre.code", scrolls(language ? `Code: ${language}` : "Code", "group"));
	return h(
		"div.code-block",
		h("div.code-head", h("span.small.muted", h("bdi", language)), copyButton(() => text)),
		longTextIn(block, text),
	);
}

function* list(parent, lines, at, depth) {
	const [, first] = lines[at].match(ITEM);
	const numbered = /\d/.test(first);
	let number = Number.parseInt(first, 10);
	let holder = null;
	while (at < lines.length) {
		const found = lines[at].match(ITEM);
		if (!found || found[1].at(-1) !== first.at(-1) || RULE.test(lines[at])) break;
		const inner = found[0].length + (found[2] ? 0 : 1);
		const start = at++;
		for (; at < lines.length; at++) {
			const line = lines[at];
			// What is indented belongs to the item; so does a line that goes on with its paragraph.
			if (BLANK.test(line)) {
				if (at + 1 >= lines.length || indent(lines[at + 1]) < inner) break;
			} else if (indent(line) < inner && (starts(lines, at) || BLANK.test(lines[at - 1]))) break;
		}
		const own = lines.slice(start, at).map((each) => each.slice(Math.min(inner, indent(each))));
		own[0] = lines[start]
			.slice(found[0].length)
			.replace(/^\[([ xX])\] /, (_, mark) => (mark === " " ? "☐ " : "☑ "));
		if (!holder || holder.children.length >= ROWS) {
			holder = h(numbered ? "ol" : "ul", { start: numbered && number });
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
	const found = line.split(/(?<!\\)\|/).map((cell) => cell.replaceAll("\\|", "|").trim());
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
		if (missing > 0) line.append(h(`td${kinds[row.length]}`, { colspan: missing }));
		body.append(line);
		at++;
		yield;
	}
	if (!body) parent.append(tableOf(head, kinds, h("tbody")));
	return at;
}

function tableOf(head, kinds, body) {
	const top = h("tr", head.map((words, place) => inline(h(`th${kinds[place]}`, { scope: "col" }), words)));
	return h("div.table-wrap", scrolls("Table", "group"), h("table.plain", h("thead", top), body));
}

// --- what stands in a line ---

const MARKS =
	/\\([!-/:-@[-`{-~])|(`+)|!?\[([^[\]]{0,1000})\]\(<?((?:https?:\/\/|mailto:)[^\s<>()]{1,2000}(?:\([^\s<>()]{0,200}\)[^\s<>()]{0,200})?)>?(?:\s+"[^"\n]{0,300}")?\)|<?(https?:\/\/[^\s<>"`\\]{1,2000})>?|(\*+|_+|~~)/g;

/** Append a line's text, with what is marked in it, to an element. */
function inline(element, text) {
	/** What is open: {mark, node}. */
	const open = [];
	/** Where the runs of so many back-ticks are, the next one last: each is looked at once. */
	const ticks = {};
	for (const { 0: run, index } of [...text.matchAll(/`+/g)].reverse()) (ticks[run.length] ??= []).push(index);
	let top = element;
	let from = 0;
	const write = (words) => words && top.append(words);

	for (let made = 0; made < MOST_MARKS; made++) {
		MARKS.lastIndex = from;
		const found = MARKS.exec(text);
		if (!found) break;
		const [all, escaped, tick, label, target, address, mark] = found;
		const at = found.index;
		write(text.slice(from, at));
		from = at + all.length;
		if (escaped) write(escaped);
		else if (tick) {
			const places = ticks[tick.length] ?? [];
			while (places.at(-1) < from) places.pop();
			const end = places.at(-1);
			if (end === undefined) write(all);
			else {
				const inside = text.slice(from, end).replaceAll("\n", " ");
				top.append(h("code", /^ .*\S.* $/.test(inside) ? inside.slice(1, -1) : inside));
				from = end + tick.length;
			}
		} else if (label !== undefined) top.append(link(target, label || target));
		else if (address) {
			// What ends a sentence is not the end of an address.
			const url = address.replace(/[.,:;!?'")\]*_]{1,9}$/, "");
			top.append(link(url, url));
			from = text.indexOf(url, at) + url.length + (/^<.*>$/.test(all) ? 1 : 0);
		} else marked(mark, text[at - 1] ?? " ", text[from] ?? " ");
	}
	write(text.slice(from));
	while (open.length) unwrap();
	return element;

	function marked(run, before, after) {
		if (run.length > 3) {
			write(run);
			return;
		}
		const opens = !/\s/.test(after) && (run[0] !== "_" || !/[\p{L}\p{N}]/u.test(before));
		const closes = !/\s/.test(before) && (run[0] !== "_" || !/[\p{L}\p{N}]/u.test(after));
		for (let rest = run; rest;) {
			// The innermost that is open is closed first.
			const inner = closes && open.at(-1)?.mark;
			const mark = inner && rest.startsWith(inner) ? inner : rest.slice(0, 2);
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

	/** A mark that nothing closes is text. */
	function unwrap() {
		const { mark, node } = open.pop();
		top = node.parentNode;
		node.replaceWith(mark, ...node.childNodes);
	}
}

/** A link out of the page, with where it leads to for who points at it. */
function link(target, label) {
	return h("a", { href: target, title: target, target: "_blank", rel: "noopener noreferrer" }, label);
}
