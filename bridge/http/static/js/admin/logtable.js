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

	function lineRow(line) {
		return row(line, () => openRequest(line), { key: withKey && keyLink(line.keyName), tokens: tokens(line) });
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
