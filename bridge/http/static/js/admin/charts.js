/** The charts of the overview. */

import { REST_TOKEN, chart, seriesToken } from "../lib/chart.js";
import { fill, h, say } from "../lib/dom.js";
import { cost, day, hour, money, when } from "../lib/format.js";
import { poll } from "../lib/poll.js";
import { card, segmented } from "../lib/ui.js";
import { keyPage } from "./links.js";
import { look } from "./session.js";

const EVERY_MS = 60000;
/** Where the tallest day costs less, the axis needs more than whole cents. */
const FINE_USD = 0.1;

/** Cost per day, stacked by key: {element, stop()}. Asks for its figures by itself. */
export function costChart() {
	let days = 30;
	const total = h("span.muted.small");
	const plot = chart("bars", {
		describe: (data) => `Cost per day and key over ${data.labels.length} days, ${money(data.total)} in total`,
	});
	const error = h("div");
	const asking = poll(
		async (signal) => {
			const usage = await look(`/admin/usage/daily?days=${days}`, signal);
			const sums = usage.series.map((each) => each.costUsd.reduce((a, b) => a + b, 0));
			const sum = sums.reduce((a, b) => a + b, 0);
			const tallest = Math.max(
				...usage.days.map((_, at) => usage.series.reduce((all, each) => all + each.costUsd[at], 0)),
			);
			fill(error);
			say(total, `${money(sum)} in ${usage.days.length} days`);
			plot.update({
				labels: usage.days.map(day),
				total: sum,
				sums,
				show: money,
				axis: tallest < FINE_USD ? cost : money,
				least: tallest < FINE_USD ? 0.0001 : 0.01,
				series: usage.series.map((each, place) => ({
					label: each.key ?? "all other keys",
					href: each.key === null ? "#/usage" : keyPage(each.key),
					token: each.key === null ? REST_TOKEN : seriesToken(place),
					values: each.costUsd,
				})),
			});
		},
		EVERY_MS,
		error,
	);
	const choice = segmented(
		"Days",
		[[7, "7 days"], [30, "30 days"], [90, "90 days"]],
		days,
		(chosen) => {
			days = chosen;
			asking.now();
		},
	);
	return {
		element: card(
			"Cost per day",
			[total, choice, h("a.quiet", { href: "#/usage" }, "Usage in detail")],
			error,
			plot.element,
		),
		stop() {
			asking.stop();
			plot.destroy();
		},
	};
}

/** Bars or lines by the hour: {element, note, update(hours), destroy()}. `series`: [name, colour token, value(hour)]. */
export function hourChart(label, kind, series, showValue) {
	const note = h("span.muted.small", "last 48 hours");
	const plot = chart(kind, { describe: () => `${label} over the last 48 hours`, unit: "Hour" });
	return {
		element: card(label, note, plot.element),
		note,
		update(hours) {
			plot.update({
				labels: hours.map((each) => when(each.at)),
				axisLabels: hours.map((each) => hour(each.at)),
				show: showValue,
				series: series.map(([name, token, value]) => ({ label: name, token, values: hours.map(value) })),
			});
		},
		destroy: plot.destroy,
	};
}
