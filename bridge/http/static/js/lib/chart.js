/** Charts as SVG: stacked bars and lines, with a box of figures at the pointer and a table for everybody. */

import { fill, h, say, svg } from "./dom.js";

/** Pixels: of the picture, and of what stands around the plot. */
const HEIGHT = 220;
const RIGHT = 8;
const TOP = 12;
const BOTTOM = 30;
/** Of a letter of a label, about; the least room of one below, and of a line of the grid. */
const LETTER = 6.8;
const LABEL_SPACE = 70;
const GRID_SPACE = 34;
/** Steps between labels below: days and hours that people count in. */
const STEPS = [1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 14, 15, 20, 24, 30, 60, 90];

/**
 * A chart of `data` = {labels: [texts], series: [{label, token, values}], show(value)}; `axisLabels` and `axis(value)`
 * are for the axes, where they differ, and `least` is the smallest step that they can tell, 1 unless said. `kind` is
 * "bars" (stacked) or "lines". Gives {element, update(data), destroy()}; `describe(data)` is the text for those who do not see it.
 */
export function chart(kind, { describe, unit = "Day" }) {
	const stage = h("div.chart", { role: "img", "aria-label": "Its figures are on their way" });
	const legend = h("ul.legend");
	const tip = h("div.chart-tip", { hidden: true, "aria-hidden": "true" });
	const table = h("div.table-wrap", { tabindex: "0", role: "group", "aria-label": "Figures of the chart" });
	const details = h("details.figures", h("summary", "Show as a table"), table);
	const element = h("div", h("div.chart-area", stage, tip), legend, details);
	let plot = null;
	let current = null;
	let touched = false;

	function update(data) {
		const same = current && seriesOf(current) === seriesOf(data);
		current = data;
		stage.setAttribute("aria-label", describe(data));
		draw();
		if (!same)
			fill(legend, data.series.map((each) => h("li", swatch(each.token), named(each), h("span.num"))));
		if (data.sums) [...legend.children].forEach((item, place) => say(item.lastChild, data.show(data.sums[place])));
		if (details.open) fillTable();
	}

	/** The name of a series, which leads to what it is about where that is known. */
	function named({ label, href }) {
		const name = h("bdi", label);
		return href ? h("a.quiet", { href }, name) : name;
	}

	function draw() {
		if (!current || !stage.clientWidth) return;
		plot = plotted(kind, current, stage.clientWidth);
		stage.replaceChildren(plot.picture);
	}

	/** Show the figures at a place of the page; null: none. */
	function point(x) {
		const at = plot && x !== null ? plot.placeAt(x - stage.getBoundingClientRect().left) : null;
		tip.hidden = at === null;
		plot?.mark(at);
		if (at === null) return;
		const rows = current.series.map((each) => [each, each.values[at]]).filter(([, value]) => value);
		const total = rows.reduce((sum, [, value]) => sum + value, 0);
		fill(
			tip,
			h("p.strong", current.labels[at]),
			kind === "bars" && h("p", `Total ${current.show(total)}`),
			rows.map(([each, value]) =>
				h("p.tip-row", swatch(each.token), h("bdi", each.label), h("span.num", current.show(value))),
			),
			rows.length === 0 && h("p.muted", "Nothing"),
		);
		const middle = plot.middleOf(at);
		const width = tip.offsetWidth;
		const room = stage.clientWidth;
		const left = middle + 12 + width > room ? middle - 12 - width : middle + 12;
		tip.style.left = `${Math.max(0, Math.min(room - width, left))}px`;
	}

	function fillTable() {
		const head = [unit, ...current.series.map((each) => each.label)];
		fill(
			table,
			h(
				"table.plain",
				h("thead", h("tr", head.map((text, place) => h(place ? "th.num" : "th", { scope: "col" }, h("bdi", text))))),
				h(
					"tbody",
					current.labels.map((label, place) =>
							h(
								"tr",
								h("th", { scope: "row" }, label),
								current.series.map((each) => h("td.num", each.values[place] ? current.show(each.values[place]) : "–")),
							),
						)
						.reverse(),
				),
				current.sums && h("tfoot", h("tr", h("th", { scope: "row" }, "Total"), current.sums.map(total))),
			),
		);
	}

	function total(sum) {
		return h("td.num", current.show(sum));
	}

	/** A finger has no pointer that stays: what it touched is shown until it touches something else. */
	function moved(event) {
		touched = event.pointerType !== "mouse";
		point(event.clientX);
	}

	function untouch(event) {
		if (!touched || stage.contains(event.target)) return;
		touched = false;
		point(null);
	}

	stage.addEventListener("pointerdown", moved);
	stage.addEventListener("pointermove", moved);
	stage.addEventListener("pointerleave", () => touched || point(null));
	document.addEventListener("pointerdown", untouch);
	details.addEventListener("toggle", () => details.open && current && fillTable());
	const resized = new ResizeObserver(() => plot?.width !== stage.clientWidth && draw());
	resized.observe(stage);
	return {
		element,
		update,
		destroy() {
			resized.disconnect();
			document.removeEventListener("pointerdown", untouch);
		},
	};
}

function swatch(token) {
	const mark = h("span.swatch", { "aria-hidden": "true" });
	mark.style.background = `var(${token})`;
	return mark;
}

/** By what the entries of a legend are told apart. */
function seriesOf(data) {
	return JSON.stringify(data.series.map((each) => [each.label, each.token]));
}

// --- the picture ---

/** {picture, width, placeAt(x), middleOf(place), mark(place)}, in pixels from the left. */
function plotted(kind, data, width) {
	const { labels, series } = data;
	const high = Math.max(highest(kind, data) * 1.05, data.least ?? 1);
	const floor = HEIGHT - BOTTOM;
	const marks = ticks(high, Math.floor((floor - TOP) / GRID_SPACE), data.least);
	const words = marks.map(data.axis ?? data.show);
	const left = 16 + LETTER * Math.max(4, ...words.map((each) => each.length));
	const step = (width - left - RIGHT) / Math.max(1, labels.length);
	const middleOf = (place) => left + step * (place + 0.5);
	const heightOf = (value) => floor - ((floor - TOP) * value) / high;
	const picture = svg("svg", { width, height: HEIGHT, viewBox: `0 0 ${width} ${HEIGHT}`, "aria-hidden": "true" });

	marks.forEach((value, at) => {
		const y = Math.round(heightOf(value)) + 0.5;
		picture.append(
			svg("path", { class: "chart-grid", d: `M${left} ${y}H${width - RIGHT}` }),
			svg("text", { class: "chart-label", x: left - 8, y: y + 4, "text-anchor": "end" }, words[at]),
		);
	});
	const each = STEPS.find((count) => count * step >= LABEL_SPACE) ?? labels.length;
	for (let place = 0; place < labels.length; place += each) {
		const text = (data.axisLabels ?? labels)[place];
		picture.append(
			svg("text", { class: "chart-label", x: middleOf(place), y: HEIGHT - 8, "text-anchor": "middle" }, text),
		);
	}

	if (kind === "bars") {
		const wide = Math.max(1, Math.min(36, 0.72 * step));
		const below = labels.map(() => 0);
		for (const { values, token } of series) {
			let path = "";
			values.forEach((value, place) => {
				if (!value) return;
				const top = heightOf(below[place] + value);
				path += `M${middleOf(place) - wide / 2} ${top}h${wide}V${heightOf(below[place])}h${-wide}z`;
				below[place] += value;
			});
			painted(picture.appendChild(svg("path", { d: path })), "fill", token);
		}
	} else {
		for (const { values, token } of series) {
			const points = values.flatMap((value, place) => (known(value) ? [`${middleOf(place)} ${heightOf(value)}`] : []));
			// A line of one point is a point: round ends make it one.
			const path = points.length ? `M${points.join("L")}${points.length === 1 ? "h0" : ""}` : "";
			const line = svg("path", { class: points.length === 1 ? "chart-line alone" : "chart-line", d: path });
			painted(picture.appendChild(line), "stroke", token);
		}
	}
	const pointer = picture.appendChild(svg("path", { class: "chart-pointer" }));

	return {
		picture,
		width,
		middleOf,
		placeAt(x) {
			if (x < left || x > width - RIGHT || !labels.length) return null;
			return Math.min(labels.length - 1, Math.floor((x - left) / step));
		},
		mark(place) {
			pointer.setAttribute("d", place === null ? "" : `M${Math.round(middleOf(place)) + 0.5} ${TOP}V${floor}`);
		},
	};
}

function highest(kind, { labels, series }) {
	const sums = labels.map((_, place) => series.map(({ values }) => values[place] ?? 0));
	return Math.max(
		0,
		...sums.map((values) => (kind === "bars" ? values.reduce((a, b) => a + b, 0) : Math.max(0, ...values))),
	);
}

/** Round values from 0 up to at most `high`, no more than so many steps, none smaller than `least`. */
function ticks(high, most, least = 1) {
	const wanted = Math.max(high / most, least);
	const power = 10 ** Math.floor(Math.log10(wanted));
	const step = [1, 2, 5, 10].map((factor) => factor * power).find((each) => each >= wanted * 0.999);
	return Array.from({ length: Math.floor(high / step + 0.001) + 1 }, (_, place) => place * step);
}

function known(value) {
	return value !== null && value !== undefined;
}

function painted(element, property, token) {
	element.style[property] = `var(${token})`;
}

/** The tokens of app.css for up to eight series; what is left over is grey. */
export function seriesToken(place) {
	return `--series-${place + 1}`;
}
export const REST_TOKEN = "--series-rest";
