/** Charts on uPlot: stacked bars and lines, with a box of figures at the pointer and a table for everybody. */

import { fill, h, say } from "./dom.js";

const HEIGHT = 220;
const STYLE = () => getComputedStyle(document.documentElement);
const dark = window.matchMedia("(prefers-color-scheme: dark)");

/** The colour of a token of app.css, as it is now. */
function colour(token) {
  return STYLE().getPropertyValue(token).trim();
}

/**
 * A chart of `data` = {labels: [texts], series: [{label, token, values}], show(value)}.
 * `kind` is "bars" (stacked) or "lines". Gives {element, update(data)}; `describe(data)` is the text for
 * those who do not see it.
 */
export function chart(kind, { describe, unit = "Day" }) {
  const stage = h("div.chart", { role: "img", "aria-label": "Its figures are on their way" });
  const legend = h("ul.legend");
  const tip = h("div.chart-tip", { hidden: true, "aria-hidden": "true" });
  const table = h("div.table-wrap", { tabindex: "0", role: "region", "aria-label": "Figures of the chart" });
  const details = h("details.figures", {}, h("summary", {}, "Show as a table"), table);
  const element = h("div", {}, h("div.chart-area", {}, stage, tip), legend, details);
  let plot = null;
  let current = null;
  let touched = false;

  function update(data) {
    const same = current && plot && shapeOf(current) === shapeOf(data);
    current = data;
    stage.setAttribute("aria-label", describe(data));
    if (same) plot.setData(columns(kind, data));
    else draw();
    if (!same)
      fill(
        legend,
        data.series.map((each) => h("li", {}, swatch(each.token), named(each), h("span.num"))),
      );
    if (data.sums) [...legend.children].forEach((item, place) => say(item.lastChild, data.show(data.sums[place])));
    if (details.open) fillTable();
  }

  /** The name of a series, which leads to what it is about where that is known. */
  function named({ label, href }) {
    const name = h("bdi", {}, label);
    return href ? h("a.quiet", { href }, name) : name;
  }

  function draw() {
    plot?.destroy();
    plot = null;
    if (!current || !stage.clientWidth) return;
    plot = new uPlot(options(kind, current, stage.clientWidth, point), columns(kind, current), stage);
  }

  /** A finger has no pointer that stays: what it touched is shown until it touches something else. */
  function touch(event) {
    if (event.pointerType === "mouse" || !plot) return;
    const { left, width } = plot.over.getBoundingClientRect();
    const at = event.clientX - left;
    touched = at >= 0 && at <= width;
    if (touched) plot.setCursor({ left: at, top: 10 });
    else point(plot);
  }

  function point(self) {
    const { left, idx } = self.cursor;
    if (touched && left < 0) return;
    tip.hidden = idx === null || idx === undefined || left < 0;
    if (tip.hidden) return;
    const rows = current.series.map((each) => [each, each.values[idx]]).filter(([, value]) => value);
    const total = rows.reduce((sum, [, value]) => sum + value, 0);
    fill(
      tip,
      h("p.strong", {}, current.labels[idx]),
      kind === "bars" && h("p", {}, `Total ${current.show(total)}`),
      rows.map(([each, value]) =>
        h("p.tip-row", {}, swatch(each.token), h("bdi", {}, each.label), h("span.num", {}, current.show(value))),
      ),
      rows.length === 0 && h("p.muted", {}, "Nothing"),
    );
    const middle = self.valToPos(idx, "x") + self.over.offsetLeft;
    const width = tip.offsetWidth;
    const room = stage.clientWidth;
    const at = middle + 12 + width > room ? middle - 12 - width : middle + 12;
    tip.style.left = `${Math.max(0, Math.min(room - width, at))}px`;
  }

  function fillTable() {
    const head = [unit, ...current.series.map((each) => each.label)];
    fill(
      table,
      h(
        "table.plain",
        {},
        h(
          "thead",
          {},
          h(
            "tr",
            {},
            head.map((text, place) => h(place ? "th.num" : "th", { scope: "col" }, h("bdi", {}, text))),
          ),
        ),
        h(
          "tbody",
          {},
          current.labels
            .map((label, place) =>
              h(
                "tr",
                {},
                h("th", { scope: "row" }, label),
                current.series.map((each) =>
                  h("td.num", {}, each.values[place] ? current.show(each.values[place]) : "–"),
                ),
              ),
            )
            .reverse(),
        ),
        current.sums && h("tfoot", {}, h("tr", {}, h("th", { scope: "row" }, "Total"), current.sums.map(total))),
      ),
    );
  }

  function total(sum) {
    return h("td.num", {}, current.show(sum));
  }

  function untouch(event) {
    if (!touched || stage.contains(event.target)) return;
    touched = false;
    tip.hidden = true;
  }

  stage.addEventListener("pointerdown", touch);
  stage.addEventListener("pointermove", touch);
  document.addEventListener("pointerdown", untouch);
  details.addEventListener("toggle", () => details.open && current && fillTable());
  const resized = new ResizeObserver(() => {
    if (plot && plot.width === stage.clientWidth) return;
    draw();
  });
  resized.observe(stage);
  const recolour = () => draw();
  dark.addEventListener("change", recolour);
  return {
    element,
    update,
    destroy() {
      resized.disconnect();
      document.removeEventListener("pointerdown", untouch);
      dark.removeEventListener("change", recolour);
      plot?.destroy();
    },
  };
}

function swatch(token) {
  const mark = h("span.swatch", { "aria-hidden": "true" });
  mark.style.background = `var(${token})`;
  return mark;
}

/** What has to be equal for new figures to go into an existing plot. */
function shapeOf(data) {
  return JSON.stringify([data.labels, data.series.map((each) => [each.label, each.token])]);
}

/** uPlot's columns. Stacked bars are sums drawn over each other, the tallest first. */
function columns(kind, { labels, series }) {
  const x = labels.map((_, place) => place);
  if (kind === "lines") return [x, ...series.map((each) => each.values)];
  const sums = [];
  let below = labels.map(() => 0);
  for (const each of series) {
    below = below.map((sum, place) => sum + (each.values[place] ?? 0));
    sums.unshift(below);
  }
  return [x, ...sums];
}

function options(kind, data, width, point) {
  const inOrder = kind === "bars" ? [...data.series].reverse() : data.series;
  const muted = colour("--muted");
  const axis = { stroke: muted, font: `12px ${STYLE().fontFamily}`, ticks: { show: false } };
  return {
    width,
    height: HEIGHT,
    padding: [12, 8, 0, 0],
    legend: { show: false },
    cursor: { y: false, drag: { x: false, y: false }, points: { show: kind === "lines" } },
    scales: {
      x: { time: false, range: () => [-0.6, data.labels.length - 0.4] },
      y: { range: (_, low, high) => [0, high > 0 ? high * 1.05 : 1] },
    },
    axes: [
      {
        ...axis,
        grid: { show: false },
        size: 30,
        gap: 8,
        space: 70,
        incrs: [1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 14, 15, 20, 24, 30, 60, 90],
        values: (_, splits) => splits.map((place) => data.axisLabels?.[place] ?? data.labels[place] ?? ""),
      },
      {
        ...axis,
        size: 58,
        grid: { stroke: colour("--line"), width: 1 },
        values: (_, splits) => told(splits.map((value) => (data.axis ?? data.show)(value))),
      },
    ],
    series: [
      {},
      ...inOrder.map((each) => {
        const paint = colour(each.token);
        return kind === "bars"
          ? { fill: paint, width: 0, points: { show: false }, paths: uPlot.paths.bars({ size: [0.72, 36], gap: 1 }) }
          : { stroke: paint, width: 2, spanGaps: true, points: { show: alone(each.values), size: 7, fill: paint } };
      }),
    ],
    hooks: { setCursor: [point] },
  };
}

/** Labels of an axis: one that says the same as the one below it says nothing. */
export function told(labels) {
  return labels.map((label, place) => (place > 0 && label === labels[place - 1] ? "" : label));
}

/** Whether a line has but one point: no line would be drawn for it. */
function alone(values) {
  return values.filter((value) => value !== null && value !== undefined).length === 1;
}

/** The tokens of app.css for up to eight series; what is left over is grey. */
export function seriesToken(place) {
  return `--series-${place + 1}`;
}
export const REST_TOKEN = "--series-rest";
