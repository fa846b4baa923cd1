/** Tables that fold into cards on a narrow screen. The roles keep them tables for screen readers all the same. */

import { h, redraw } from "./dom.js";
import { skeleton } from "./ui.js";

/**
 * {element, body, row, show}: `columns` are [label, kind?], `kind` being classes such as "num". On a narrow screen the
 * label stands before each cell, but for those of the kind "block", which take the whole width. `caption` is read out,
 * not shown. `row(attributes, ...contents)` makes a row of the contents of its cells; `show(rows, empty, below)` shows
 * some of them with what stands below, or in their place what says that there are none.
 */
export function table(caption, columns) {
	const body = h("tbody", { role: "rowgroup" });
	const head = columns.map(([label, kind]) =>
		h(kind ? `th.${kind}` : "th", { scope: "col", role: "columnheader" }, label || h("span.hidden", "Actions")),
	);
	const wrap = h(
		"div.table-wrap",
		h(
			"table.folding",
			{ role: "table" },
			h("caption.hidden", caption),
			h("thead", { role: "rowgroup" }, h("tr", { role: "row" }, head)),
			body,
		),
	);

	function row(attributes, ...contents) {
		const cells = columns.map(([label, kind = ""], place) => {
			const named = !kind.split(".").includes("block");
			return h(kind ? `td.${kind}` : "td", { role: "cell", "data-label": named && label }, contents[place]);
		});
		return h("tr", { role: "row", ...attributes }, cells);
	}

	const element = h("div", skeleton(6));

	function show(rows, empty, below = null) {
		redraw(body, rows);
		redraw(element, rows.length ? [wrap, below] : empty);
	}

	return { element, body, row, show };
}
