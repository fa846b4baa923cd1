/** The answer as it comes: text, state, cost and time, or what went wrong. */

import { fill, h, say } from "../lib/dom.js";
import { cost, count, duration, when } from "../lib/format.js";
import { longText, longTextIn } from "../lib/longtext.js";
import { card, copyButton, errorBox, field } from "../lib/ui.js";

/** What an answer says that did not simply come to its end. */
const ENDS = {
  max_tokens: "Cut at the longest allowed",
  refusal: "Declined by the model",
  tool_use: "Waits for what its tools give",
};

/** Codes of limits that end at a midnight. */
const WINDOW = /_per_(day|month)$/;

/** {element, begin(), event(name, data), ask(goOn), fail(error), charged(request), stopped()}. */
export function answerBox(zone) {
  const text = h("div.answer-text", { tabindex: "0", role: "region", "aria-label": "Answer" });
  const state = h("span.muted.small", { role: "status" });
  const problem = h("div.problem");
  const calls = h("div.stack");
  const output = h("div.output");
  const meta = h("div.meta");
  const copy = copyButton(() => words);
  const intro = h("p.muted", {}, "The answer appears here as it is written, with its cost and how long it took.");
  let words = "";
  const written = longText(text);
  let waiting = "";
  let frame = 0;
  let began = 0;
  let ticker = 0;
  let doing = "";
  /** The tool calls so far: {id, result}, with the field for what the tool gave. */
  let called = [];

  fill(text, intro);
  copy.hidden = true;
  const element = card("Answer", h("div.row", {}, state, copy), problem, text, calls, output, meta);

  function begin() {
    words = waiting = "";
    written.clear();
    fill(problem);
    fill(calls);
    fill(output);
    fill(meta);
    called = [];
    copy.hidden = true;
    text.hidden = false;
    text.classList.add("waiting");
    text.setAttribute("aria-busy", "true");
    began = performance.now();
    doing = "Waiting";
    tick();
    ticker = setInterval(tick, 1000);
  }

  /** The seconds are not read out: only what is done changes the part that is. */
  function tick() {
    say(state, doing);
    fill(meta, h("span", {}, duration(1000 * Math.round((performance.now() - began) / 1000))));
  }

  function end(last) {
    clearInterval(ticker);
    cancelAnimationFrame(frame);
    flush();
    text.classList.remove("waiting");
    text.setAttribute("aria-busy", "false");
    copy.hidden = words === "";
    say(state, last);
  }

  /** Pieces are put on the page once a frame: an answer of a megabyte must not hold anything up. */
  function flush() {
    frame = 0;
    if (!waiting) return;
    const atEnd = text.scrollHeight - text.scrollTop - text.clientHeight < 40;
    written.append(waiting);
    waiting = "";
    if (atEnd) text.scrollTop = text.scrollHeight;
  }

  function event(name, data) {
    if (name === "queued") doing = `Waiting in the queue, place ${data.position}`;
    else if (name === "start") doing = "Answering";
    else if (name === "delta") {
      doing = "Answering";
      words += data.text;
      waiting += data.text;
      frame ||= requestAnimationFrame(flush);
    } else if (name === "tool_use") {
      doing = "Answering";
      call(data);
    }
    if (name !== "done") {
      say(state, doing);
      return;
    }
    end(ENDS[data.stop_reason] || "Done");
    const whole = data.content.map((part) => part.text ?? "").join("");
    if (whole !== words) {
      words = whole;
      written.clear();
      written.append(words);
    }
    copy.hidden = words === "";
    text.hidden = words === "" && called.length > 0;
    if (words === "") fill(text, h("p.muted", {}, "The answer is empty."));
    if (data.output !== undefined && data.output !== null) {
      fill(
        output,
        h("h3.label", {}, "As checked against the schema"),
        longTextIn(
          h("pre.text-block", { tabindex: "0", role: "region", "aria-label": "Structured answer" }),
          JSON.stringify(data.output, null, 2),
        ),
      );
    }
    const input =
      data.usage.input_tokens +
      (data.usage.cache_creation_input_tokens ?? 0) +
      (data.usage.cache_read_input_tokens ?? 0);
    fill(
      meta,
      item("Cost", cost(data.cost_usd)),
      item("Time", duration(data.duration_ms)),
      item("Tokens", `${count(input)} in, ${count(data.usage.output_tokens)} out`),
      item("Model", data.model),
    );
  }

  /** Show a call, with a field for what the tool gave: whoever tries the playground is the tool. */
  function call({ id, name, input }) {
    const result = h("textarea.mono", { rows: "2", placeholder: "What the tool would answer", dir: "auto" });
    called.push({ id, result });
    calls.append(
      h(
        "section.call",
        { "aria-label": `Call of ${name}` },
        h("h3.label", {}, "Calls ", h("bdi.mono", {}, name)),
        longTextIn(
          h("pre.text-block", { tabindex: "0", role: "region", "aria-label": `Input of ${name}` }),
          JSON.stringify(input, null, 2),
        ),
        field(`Result of ${name}`, result),
      ),
    );
  }

  /** Offer to go on with the results; `goOn` gets [{id, content}, …]. */
  function ask(goOn) {
    const button = h(
      "button.button.primary",
      { type: "button", onclick: () => goOn(called.map(({ id, result }) => ({ id, content: result.value }))) },
      called.length > 1 ? "Send the results" : "Send the result",
    );
    calls.append(h("div.send", {}, button));
    called[0]?.result.focus({ preventScroll: true });
  }

  function fail(error) {
    end("Failed");
    if (words === "" && error.body.text) {
      // What the model said all the same: it missed the schema, and was paid for.
      words = error.body.text;
      written.clear();
      written.append(words);
      copy.hidden = false;
    }
    text.hidden = words === "";
    fill(problem, errorBox(error));
    const { limit, used, remaining, resets_at: resetsAt } = error.body;
    const money = (error.code ?? "").startsWith("cost");
    const show = money ? cost : count;
    fill(
      meta,
      limit !== undefined && item("Limit", show(limit)),
      used !== undefined && item("Used", show(used)),
      remaining !== undefined && item("Left", show(remaining)),
      resetsAt && item("Resets", `${when(resetsAt)}${WINDOW.test(error.code) ? ` (midnight in ${zone})` : ""}`),
    );
  }

  /** What a request has cost that failed, where that is known by now. */
  function charged({ costUsd, durationMs }) {
    meta.append(item("Cost", cost(costUsd)), item("Time", duration(durationMs)));
  }

  function stopped() {
    end("Stopped");
    fill(meta, h("span", {}, "Stopped by you. What was used until then is charged; see My usage."));
  }

  return { element, begin, event, ask, fail, charged, stopped };
}

function item(label, value) {
  return h("span", {}, `${label} `, h("b", {}, h("bdi", {}, value)));
}
