/** Lines of the request log as a table. */

import { lineTable } from "../lib/line.js";
import { keyLink } from "./links.js";
import { openRequest } from "./request.js";

/**
 * {element, rows, show(lines, empty)}; a line that is chosen is shown in a dialog. Lines come in the order in which
 * they ended, and are shown by when they began; `empty` is shown where there are none.
 */
export function logTable(caption, { withKey = true } = {}) {
	const { element, body: rows, row, show } = lineTable(caption, { keys: withKey });
	/** Line -> its row: with a thousand of them, only what is new is made. */
	const made = new WeakMap();

	function lineRow(line) {
		const before = made.get(line);
		if (before?.parentNode === rows) return before;
		const key = withKey && keyLink(line.keyName);
		const now = row(line, () => openRequest(line), { key, tokens: tokens(line) });
		made.set(line, now);
		return now;
	}

	return {
		element,
		rows,
		show(lines, empty) {
			const byStart = [...lines].sort((one, other) => (one.timestamp < other.timestamp ? 1 : -1));
			show(byStart.map(lineRow), empty);
		},
	};
}

function tokens(line) {
	return line.inputTokens + line.cacheReadTokens + line.cacheWriteTokens + line.outputTokens;
}
