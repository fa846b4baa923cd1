/** Tables that fold into cards on a narrow screen. The roles keep them tables for screen readers all the same. */

import { h } from "./dom.js";

/** {element, body}: `columns` are [label, kind?], `kind` being classes such as "num"; `caption` is read out, not shown. */
export function table(caption, columns) {
	const body = h("tbody", { role: "rowgroup" });
	const head = columns.map(([label, kind]) =>
		h(kind ? `th.${kind}` : "th", { scope: "col", role: "columnheader" }, label || h("span.hidden", "Actions")),
	);
	const element = h(
		"div.table-wrap",
		h(
			"table.folding",
			{ role: "table" },
			h("caption.hidden", caption),
			h("thead", { role: "rowgroup" }, h("tr", { role: "row" }, head)),
			body,
		),
	);
	return { element, body };
}

/** A row of cells. */
export function row(attributes, ...cells) {
	return h("tr", { role: "row", ...attributes }, ...cells);
}

/** A cell. `label` stands before it on a narrow screen; without one it takes the whole width there. */
export function cell(label, content, kind = "") {
	const tag = ["td", kind, label ? "" : "block"].filter(Boolean).join(".");
	return h(tag, { role: "cell", "data-label": label || null }, content);
}
