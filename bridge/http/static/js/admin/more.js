/** Lists of which a part is shown: more of what the page has, and older lines that the server has. */

import { fill, h } from "../lib/dom.js";
import { plural } from "../lib/format.js";
import { button, errorBox } from "../lib/ui.js";

/** Rows at once: more of them would hold the page up. */
export const PAGE = 50;

/** A button below a list, for the next of those that are not shown; nothing where all are. */
export function showMore(rest, noun, onclick) {
	return rest > 0 && h("div.pager", button(`Show ${plural(Math.min(PAGE, rest), `more ${noun}`)}`, onclick));
}

/** Put the focus on a row of a list, or on the first thing in it that can be pressed. */
export function focusRow(list, place) {
	const row = list.children[place];
	(row?.matches("[tabindex]") ? row : row?.querySelector("a, button"))?.focus();
}

/**
 * Lines that the server gives in pages, newest first: {error, pager, load(limit), add(lines), shown(), stop()}, the
 * first two being elements. `ask({limit, before})` gives a page as {lines, next}. `draw(lines, isLast)` shows them in `list`;
 * where they were loaded anew, `isLast()` says whether nothing else was asked for since then.
 */
export function pages(list, ask, draw) {
	const error = h("div");
	const pager = h("div.pager", { hidden: true }, button("Show older", () => get(next)));
	// Each look has a number: what an older one brings later is not shown.
	let turn = 0;
	let lines = [];
	let next = null;

	async function get(before, limit = PAGE) {
		const mine = ++turn;
		const isLast = () => mine === turn;
		try {
			const page = await ask({ limit, before });
			if (!isLast()) return;
			fill(error);
			const known = before ? lines : [];
			lines = [...known, ...page.lines];
			next = page.next;
			pager.hidden = !next;
			await draw(lines, before ? null : isLast);
			if (before) focusRow(list, known.length);
		} catch (failure) {
			if (isLast()) fill(error, errorBox(failure, () => get(before, limit)));
		}
	}

	/** Put lines on top, as far as they are new. */
	function add(newest) {
		const known = new Set(lines.map((line) => line.id));
		const fresh = newest.filter((line) => !known.has(line.id));
		if (!fresh.length) return;
		lines = [...fresh, ...lines];
		draw(lines, null);
	}

	return { error, pager, load: (limit) => get(null, limit), add, shown: () => lines.length, stop: () => (turn += 1) };
}
