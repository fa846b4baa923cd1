/** Where a key and a request are found: in the API, and on a page of their own. */

import { h } from "../lib/dom.js";
import { named } from "../lib/ui.js";

/** The path of a key in the API. */
export function keyPath(name, tail = "") {
	return `/admin/keys/${encodeURIComponent(name)}${tail}`;
}

/** The address of a key's page. */
export function keyPage(name) {
	return `#/keys/${encodeURIComponent(name)}`;
}

/** The address of a request's page, by its id or its request id. */
export function requestPage(id) {
	return `#/logs/${encodeURIComponent(id)}`;
}

/** The name of a key, which leads to its page. */
export function keyLink(name) {
	return h("a.key-name", { href: keyPage(name) }, named(name));
}
