/** The playground: a prompt, its options, the answer as it is written, and the same as code. */

import { ApiError, call, events, open } from "../lib/api.js";
import { copyAs } from "../lib/copyas.js";
import { fill, h, say } from "../lib/dom.js";
import { PROVIDERS } from "../lib/registry.js";
import { card, field, segmented } from "../lib/ui.js";
import { answerBox } from "./answer.js";
import { images } from "./images.js";

export const title = "Playground";

export function show(main, { me, headers, first, expired }) {
  const providers = Object.keys(me.models).filter((name) => me.models[name].available && me.models[name].default);
  let provider = providers[0] ?? Object.keys(PROVIDERS)[0];
  let controller = null;
  const prompt = h("textarea", { rows: "8", placeholder: "Ask something", dir: "auto" });
  const system = h("textarea", { rows: "3", placeholder: "How the model should answer", dir: "auto" });
  const model = h("input", { type: "text", list: "models", autocomplete: "off", spellcheck: "false" });
  const models = h("datalist", { id: "models" });
  const longest = h("input", { type: "number", min: "1", step: "1", placeholder: "the server's default" });
  const schema = h("textarea.mono", {
    rows: "6",
    spellcheck: "false",
    placeholder:
      '{"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"], "additionalProperties": false}',
  });
  const schemaHint = h("p.hint.wrong", { role: "status" });
  const tools = h("textarea.mono", {
    rows: "6",
    spellcheck: "false",
    placeholder:
      '[{"name": "get_weather", "description": "The weather in a city", "inputSchema": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}}]',
  });
  const toolsHint = h("p.hint.wrong", { role: "status" });
  const send = h("button.button.primary", { type: "submit" }, "Send");
  const stop = h("button.button.danger", { type: "button", hidden: true, onclick: () => controller?.abort() }, "Stop");
  const drop = h("div.drop", {}, field("Prompt", prompt));
  const pictures = images(drop, () => code?.update());
  const answer = answerBox(me.timezone);
  const form = h(
    "form",
    { onsubmit: submit, oninput: () => code.update() },
    drop,
    pictures.element,
    h(
      "details.more",
      {},
      h("summary", {}, "System prompt, model, schema, tools"),
      h(
        "div.stack",
        {},
        field("System prompt", system),
        h("div.fields", {}, h("div", {}, field("Model", model), models), field("Longest answer, in tokens", longest)),
        h("div", {}, field("JSON Schema that the answer must fit", schema), schemaHint),
        h(
          "div",
          {},
          field("Tools to offer, as JSON", tools, "You play the tools: type what they give, and go on."),
          toolsHint,
        ),
      ),
    ),
    h("div.send", {}, send, stop, h("span.hint", {}, "Ctrl+Enter sends")),
  );
  const code = copyAs(() => ({
    base: location.origin,
    provider,
    body: body(),
  }));

  const back = h("a", { href: "/admin/" }, "Back to the dashboard");
  // The last of the first steps, which lead here from the dashboard.
  if (first) prompt.value = `Say hello to ${me.name} in one sentence.`;
  prompt.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) form.requestSubmit();
  });
  choose(provider);
  fill(
    main,
    h("h1.hidden", {}, "Playground"),
    providers.length === 0 &&
      h("p.notice.warn", {}, "No provider is available to this key at the moment. Ask your admin."),
    first &&
      h(
        "p.notice",
        {},
        h("span", {}, `This is the playground, with the key of ${me.name}. Press Send for the first answer. `, back),
      ),
    h(
      "div.workbench",
      {},
      h(
        "div.stack",
        {},
        card(
          "Your request",
          providers.length > 1 &&
            segmented(
              "Provider",
              providers.map((name) => [name, PROVIDERS[name]?.title ?? name]),
              provider,
              choose,
            ),
          form,
        ),
      ),
      h("div.stack", {}, answer.element, card("Copy as code", null, code.element)),
    ),
  );
  prompt.focus({ preventScroll: true });

  function choose(name) {
    provider = name;
    const { allowed, default: usual } = me.models[name] ?? { allowed: [], default: null };
    model.placeholder = usual ?? "";
    const known = Array.isArray(allowed) ? allowed : [usual];
    fill(
      models,
      known.map((each) => h("option", { value: each })),
    );
    code?.update();
  }

  /** The request's body as far as it is filled in. A schema or tools that are no JSON are left out, and said. */
  function body() {
    const urls = pictures.urls();
    // Named even where nobody has chosen one: the server's own default may be one that this key may not use.
    const chosen = model.value.trim() || me.models[provider]?.default;
    const shape = jsonOf(schema, schemaHint, "The schema is not a JSON object yet.", (value) => !Array.isArray(value));
    const offers = jsonOf(tools, toolsHint, "The tools are not a JSON list yet.", Array.isArray);
    return {
      userPrompt: prompt.value,
      ...(system.value.trim() && { systemPrompt: system.value }),
      ...(urls.length && { images: urls }),
      ...(chosen && { model: chosen }),
      ...(longest.value && { maxOutputTokens: longest.valueAsNumber }),
      ...(shape && { schema: shape }),
      ...(offers?.length && { tools: offers }),
    };
  }

  /** What is written in a field as JSON, if it `fits`; null where there is nothing, or not yet. */
  function jsonOf(input, hint, problem, fits) {
    input.removeAttribute("aria-invalid");
    say(hint, "");
    if (!input.value.trim()) return null;
    try {
      const value = JSON.parse(input.value);
      if (value && typeof value === "object" && fits(value)) return value;
    } catch {
      // Said below.
    }
    input.setAttribute("aria-invalid", "true");
    say(hint, problem);
    return null;
  }

  async function submit(event) {
    event.preventDefault();
    if (controller) return;
    const request = body();
    const wrong = [schema, tools].find((input) => input.getAttribute("aria-invalid"));
    if (wrong) wrong.focus();
    else await run(request);
  }

  async function run(request) {
    if (controller) return;
    controller = new AbortController();
    send.disabled = true;
    stop.hidden = false;
    answer.begin();
    try {
      const { signal } = controller;
      const { path } = PROVIDERS[provider];
      const stream = await open("POST", path, { body: { ...request, stream: true }, headers, signal });
      await follow(stream, request);
    } catch (error) {
      if (error.name === "AbortError") answer.stopped();
      else if (error.status === 401) expired(error);
      else {
        answer.fail(error);
        charge(error.body.request_id);
      }
    } finally {
      controller = null;
      send.disabled = false;
      stop.hidden = true;
    }
  }

  /** Say what a failed request has cost: its error does not, but its line among one's own does. */
  async function charge(id) {
    if (!id) return;
    try {
      const { requests } = await call("GET", "/me/requests", { headers });
      const line = requests.find((each) => each.requestId === id);
      if (line?.costUsd && !controller) answer.charged(line);
    } catch {
      // My usage says it, too.
    }
  }

  async function follow(stream, request) {
    for await (const [name, data] of events(stream)) {
      if (name === "error") throw new ApiError(200, data);
      answer.event(name, data);
      if (name === "done" && data.stop_reason === "tool_use") {
        answer.ask((results) => run(continued(request, data.content, results)));
      }
      if (name === "done") return;
    }
    throw new ApiError(0, {
      error: "The answer broke off before its end.",
      hint: "Send it again; what was used is charged.",
    });
  }

  return () => controller?.abort();
}

/** The request that goes on after an answer's calls, with what the tools gave: [{id, content}, …]. */
function continued({ userPrompt, images = [], messages, ...rest }, content, results) {
  const pictures = images.map((url) => {
    const [, mediaType, data] = url.match(/^data:([^;,]*)[^,]*,(.*)$/s) ?? [null, "", ""];
    return { type: "image", mediaType, data };
  });
  const asked = messages ?? [{ role: "user", content: [...pictures, { type: "text", text: userPrompt }] }];
  const given = results.map(({ id, content: text }) => ({ type: "tool_result", toolUseId: id, content: text }));
  return { ...rest, messages: [...asked, { role: "assistant", content }, { role: "user", content: given }] };
}
