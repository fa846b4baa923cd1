/** One request of the log on a page of its own, whose address can be sent to somebody. */

import { fill, h } from "../lib/dom.js";
import { copyButton, skeleton } from "../lib/ui.js";
import { lineIn } from "./logtable.js";

export const title = () => "Request";

export function show({ head, body, detail: id }) {
	const copy = h("span");
	const card = h("section.card.stack", skeleton(6));
	head.querySelector("h1").before(h("a.quiet.crumb", { href: "#/logs" }, "Logs /"));
	head.append(h("div.row", copy, copyButton(() => location.href, "Copy link")));
	fill(body, card);
	const controller = new AbortController();
	lineIn(id, card, copy, controller.signal);
	return () => controller.abort();
}
