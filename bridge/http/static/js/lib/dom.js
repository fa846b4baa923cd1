/** Building the page. Texts become text nodes, never HTML: nothing that somebody wrote is ever parsed. */

/** What `h` was told of an element; `redraw` leaves alone what has happened to it besides. */
const given = new WeakMap();

/**
 * An element: `h("p.muted", {title: "…"}, "text", child)`, where the attributes may be missing. Those that are null,
 * undefined or false are left out; `onclick` and the like are listeners, `style` is a table, `key` is for `redraw`.
 * Children may be nested lists; null, undefined and false are skipped. A button sends no form unless its type says so.
 */
export function h(tag, ...children) {
	const [name, ...classes] = tag.split(".");
	const element = document.createElement(name);
	if (classes.length) element.className = classes.join(" ");
	if (name === "button") element.type = "button";
	if (children[0]?.constructor === Object) set(element, children.shift());
	element.append(...listed(children));
	return element;
}

/** Set attributes and listeners, as `h` does, and take away those that were given before. */
function set(element, attributes) {
	const before = given.get(element) ?? {};
	for (const name of Object.keys({ ...before, ...attributes })) {
		const value = attributes[name] ?? null;
		if (name === "key" || value === before[name]) continue;
		if (name.startsWith("on")) element[name] = value;
		else if (name === "style") Object.assign(element.style, value);
		else if (value === null || value === false) element.removeAttribute(name);
		else element.setAttribute(name, value === true ? "" : String(value));
	}
	given.set(element, attributes);
	return element;
}

/** Replace what is in an element. */
export function fill(element, ...children) {
	element.replaceChildren(...listed(children));
	return element;
}

/**
 * Bring what is in an element in step with new children, and touch nothing that is as it was: so the focus, what is
 * unfolded or selected, and the place of everything stay, and a screen reader does not hear the same again. A child
 * goes on as the first one before it with the same tag, and the same key or else classes. Where the one that had the
 * focus is gone, the first button beside it gets it.
 */
export function redraw(element, ...children) {
	const next = listed(children).map((child) => (child instanceof Node ? child : document.createTextNode(child)));
	const old = [...element.childNodes];
	const focused = document.activeElement;
	const stays = new Set(next);
	const known = {};
	for (const node of old) if (!stays.has(node)) (known[kindOf(node)] ??= []).push(node);
	const wanted = next.map((node) => {
		const before = node.parentNode !== element && known[kindOf(node)]?.shift();
		return before ? become(before, node) : node;
	});
	const shown = new Set(wanted);
	for (const node of old) if (!shown.has(node)) node.remove();
	wanted.forEach((node, place) => {
		if (element.childNodes[place] !== node) element.insertBefore(node, element.childNodes[place] ?? null);
	});
	if (old.includes(focused) && !shown.has(focused)) element.querySelector("button")?.focus();
	// What is moved loses it.
	else if (focused !== document.activeElement && element.contains(focused)) focused.focus({ preventScroll: true });
	return element;
}

function kindOf(node) {
	return `${node.nodeName} ${given.get(node)?.key ?? node.getAttribute?.("class")}`;
}

/** Make a node what another of its kind is. */
function become(node, other) {
	if (node.nodeType === Node.TEXT_NODE) {
		if (node.data !== other.data) node.data = other.data;
		return node;
	}
	set(node, given.get(other) ?? {});
	return redraw(node, ...other.childNodes);
}

/** Change an element's text, and only then touch the page: a screen reader must not hear the same again. */
export function say(element, text) {
	if (element.textContent !== text) element.textContent = text;
	return element;
}

function listed(children) {
	return children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false);
}

const PATHS = {
	overview: "M4 13h6V4H4zm0 7h6v-4H4zm10 0h6v-9h-6zm0-16v4h6V4z",
	keys: "M14 10a4 4 0 1 0-3.7 2.5L4 18.8V21h3v-2h2v-2h2l2-2.5A4 4 0 0 0 18 10.5M15.5 8.5h.01",
	credentials: "M5 11h14v9H5zM8 11V8a4 4 0 0 1 8 0v3M12 14.5v2",
	live: "M3 12h4l3-8 4 16 3-8h4",
	logs: "M5 4h14v16H5zM8.5 8.5h7M8.5 12h7M8.5 15.5h4",
	usage: "M12 3v9h9M12 3a9 9 0 1 0 9 9M16 3.5a9 9 0 0 1 4.5 4.5",
	audit: "M12 3l7 3v5c0 4.5-3 8-7 10-4-2-7-5.5-7-10V6zM9 12l2 2 4-4",
	copy: "M9 9h11v11H9zM15 9V4H4v11h5",
	close: "M6 6l12 12M18 6L6 18",
	plus: "M12 5v14M5 12h14",
	search: "M10.5 4a6.5 6.5 0 1 0 0 13 6.5 6.5 0 0 0 0-13zM15.5 15.5L20 20",
	warning: "M12 4L2.5 20h19zM12 10v4.5M12 17.5v.01",
	check: "M5 12.5l4.5 4.5L19 7.5",
	save: "M12 4v10M8 10.5l4 4 4-4M5 19.5h14",
	image: "M4 5h16v14H4zM4 16l5-5 4 4 2.5-2.5L20 17M15.5 9h.01",
};

/** A small picture that says nothing which the text beside it does not say. */
export function icon(name) {
	return svg("svg", { viewBox: "0 0 24 24", class: "icon", "aria-hidden": "true" }, svg("path", { d: PATHS[name] }));
}

/** An element of a picture, as `h` makes those of the page. */
export function svg(name, attributes, ...children) {
	const element = set(document.createElementNS("http://www.w3.org/2000/svg", name), attributes);
	element.append(...children);
	return element;
}

/** The attributes of a box that scrolls, or may: the keyboard reaches it, and it says what it is. */
export function scrolls(label, role = "region") {
	return { tabindex: "0", role, "aria-label": label };
}
