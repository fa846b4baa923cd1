/** Charts as SVG: stacked bars and lines, with a box of figures at the pointer and a table for everybody. */

import { fill, h, redraw, scrolls, svg } from "./dom.js";
import { sumOf } from "./format.js";

/** Pixels: of the picture, and of what stands around the plot. */
const HEIGHT = 220;
const RIGHT = 8;
const TOP = 12;
const BOTTOM = 30;
const FLOOR = HEIGHT - BOTTOM;
/** Of a letter of a label, about; the least room of one below, and of a line of the grid. */
const LETTER = 6.8;
const LABEL_SPACE = 70;
const GRID_SPACE = 34;
/** Steps between labels below: days and hours that people count in. */
const STEPS = [1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 14, 15, 20, 24, 30, 60, 90];
/** Where no pointer is. */
const NOWHERE = -Infinity;

/**
 * A chart of `data` = {labels: [texts], series: [{label, token, values}], show(value)}; `axisLabels` and `axis(value)`
 * are for the axes, where they differ, and `least` is the smallest step that they can tell, 1 unless said. `kind` is
 * "bars" (stacked) or "lines". Gives {element, update(data), destroy()}; `describe(data)` is the text for those who do
 * not see it.
 */
export function chart(kind, { describe, unit = "Day" }) {
	const stage = h("div.chart", { role: "img", "aria-label": "Its figures are on their way" });
	const legend = h("ul.legend");
	const tip = h("div.chart-tip", { hidden: true, "aria-hidden": "true" });
	const table = h("div.table-wrap", scrolls("Figures of the chart", "group"));
	const details = h("details.figures", { ontoggle: fillTable }, h("summary", "Show as a table"), table);
	let plot = null;
	let current = null;
	let touched = false;

	function update(data) {
		current = data;
		stage.setAttribute("aria-label", describe(data));
		draw();
		redraw(legend, data.series.map((each, place) => h("li", swatch(each), named(each), sumAt(place))));
		fillTable();
	}

	function sumAt(place) {
		return current.sums && h("span.num", current.show(current.sums[place]));
	}

	function draw() {
		if (!current || !stage.clientWidth) return;
		plot = plotted(kind, current, stage.clientWidth);
		fill(stage, plot.picture);
	}

	/** Show the figures at a place of the page. */
	function point(x) {
		const at = plot?.mark(x - stage.getBoundingClientRect().left) ?? null;
		tip.hidden = at === null;
		if (at === null) return;
		const rows = current.series.map((each) => [each, each.values[at]]).filter(([, value]) => value);
		fill(
			tip,
			h("p.strong", current.labels[at]),
			kind === "bars" && h("p", `Total ${current.show(sumOf(rows.map(([, value]) => value)))}`),
			rows.map(([each, value]) =>
				h("p.tip-row", swatch(each), h("bdi", each.label), h("span.num", current.show(value))),
			),
			rows.length === 0 && h("p.muted", "Nothing"),
		);
		const middle = plot.middleOf(at);
		const room = stage.clientWidth - tip.offsetWidth;
		const left = middle + 12 > room ? middle - 12 - tip.offsetWidth : middle + 12;
		tip.style.left = `${Math.max(0, Math.min(room, left))}px`;
	}

	function fillTable() {
		if (!details.open || !current) return;
		const { labels, series, show, sums } = current;
		const line = (name, values) =>
			h("tr", h("th", { scope: "row" }, name), values.map((value) => h("td.num", value ? show(value) : "–")));
		const heads = series.map(({ label }) => h("th.num", { scope: "col" }, h("bdi", label)));
		const lines = labels.map((label, place) => line(label, series.map(({ values }) => values[place])));
		redraw(
			table,
			h(
				"table.plain",
				h("thead", h("tr", h("th", { scope: "col" }, unit), heads)),
				h("tbody", lines.reverse()),
				sums && h("tfoot", line("Total", sums)),
			),
		);
	}

	/** A finger has no pointer that stays: what it touched is shown until it touches something else. */
	function moved(event) {
		touched = event.pointerType !== "mouse";
		point(event.clientX);
	}

	function untouch(event) {
		if (touched && !stage.contains(event.target)) point(NOWHERE);
	}

	stage.addEventListener("pointerdown", moved);
	stage.addEventListener("pointermove", moved);
	stage.addEventListener("pointerleave", () => touched || point(NOWHERE));
	document.addEventListener("pointerdown", untouch);
	const resized = new ResizeObserver(() => plot?.width !== stage.clientWidth && draw());
	resized.observe(stage);
	return {
		element: h("div", h("div.chart-area", stage, tip), legend, details),
		update,
		destroy() {
			resized.disconnect();
			document.removeEventListener("pointerdown", untouch);
		},
	};
}

function swatch({ token }) {
	return h("span.swatch", { "aria-hidden": "true", style: { background: `var(${token})` } });
}

/** The name of a series, which leads to what it is about where that is known. */
function named({ label, href }) {
	const name = h("bdi", label);
	return href ? h("a.quiet", { href }, name) : name;
}

// --- the picture ---

/** {picture, width, middleOf(place), mark(x)}, in pixels from the left; `mark` gives the place at `x`, or null. */
function plotted(kind, data, width) {
	const { labels, series, least = 1, axis = data.show, axisLabels = labels } = data;
	const bars = kind === "bars";
	const heights = labels.map((_, place) => {
		const values = series.map((each) => each.values[place] ?? 0);
		return bars ? sumOf(values) : Math.max(...values);
	});
	const high = Math.max(1.05 * Math.max(0, ...heights), least);
	const marks = ticks(high, Math.floor((FLOOR - TOP) / GRID_SPACE), least).map((value) => [value, axis(value)]);
	const left = 16 + LETTER * Math.max(4, ...marks.map(([, words]) => words.length));
	const step = (width - left - RIGHT) / Math.max(1, labels.length);
	const middleOf = (place) => left + step * (place + 0.5);
	const heightOf = (value) => FLOOR - ((FLOOR - TOP) * value) / high;
	const picture = svg("svg", { width, height: HEIGHT, viewBox: `0 0 ${width} ${HEIGHT}`, "aria-hidden": "true" });
	const line = (name, d, attributes) => picture.appendChild(svg("path", { class: name, d, ...attributes }));
	const label = (text, x, y, anchor) =>
		picture.append(svg("text", { class: "chart-label", x, y, "text-anchor": anchor }, text));

	for (const [value, words] of marks) {
		const y = Math.round(heightOf(value)) + 0.5;
		line("chart-grid", `M${left} ${y}H${width - RIGHT}`);
		label(words, left - 8, y + 4, "end");
	}
	const each = STEPS.find((count) => count * step >= LABEL_SPACE) ?? labels.length;
	for (let place = 0; place < labels.length; place += each) {
		label(axisLabels[place], middleOf(place), HEIGHT - 8, "middle");
	}

	const wide = Math.max(1, Math.min(36, 0.72 * step));
	/** How high the bars are that stand at each place already. */
	const below = labels.map(() => 0);
	for (const { values, token } of series) {
		const colour = `var(${token})`;
		if (bars) {
			const path = values.map((value, place) => {
				const foot = heightOf(below[place]);
				below[place] += value;
				return value ? `M${middleOf(place) - wide / 2} ${foot}h${wide}V${heightOf(below[place])}h${-wide}z` : "";
			});
			line(null, path.join(""), { fill: colour });
		} else {
			const points = values.flatMap((value, place) =>
				typeof value === "number" ? [`${middleOf(place)} ${heightOf(value)}`] : [],
			);
			// A line of one point is a point: round ends make it one.
			line(`chart-line${points.length === 1 ? " alone" : ""}`, points.length ? `M${points.join("L")}h0` : "", {
				stroke: colour,
			});
		}
	}
	const pointer = line("chart-pointer", "");

	return {
		picture,
		width,
		middleOf,
		mark(x) {
			const inside = x >= left && x <= width - RIGHT && labels.length > 0;
			const place = inside ? Math.min(labels.length - 1, Math.floor((x - left) / step)) : null;
			pointer.setAttribute("d", inside ? `M${Math.round(middleOf(place)) + 0.5} ${TOP}V${FLOOR}` : "");
			return place;
		},
	};
}

/** Round values from 0 up to at most `high`, no more than so many steps, none smaller than `least`. */
function ticks(high, most, least) {
	const wanted = Math.max(high / most, least);
	const power = 10 ** Math.floor(Math.log10(wanted));
	const step = [1, 2, 5, 10].map((factor) => factor * power).find((each) => each >= wanted * 0.999);
	return Array.from({ length: Math.floor(high / step + 0.001) + 1 }, (_, place) => place * step);
}

/** The tokens of app.css for up to eight series; what is left over is grey. */
export function seriesToken(place) {
	return `--series-${place + 1}`;
}
export const REST_TOKEN = "--series-rest";
