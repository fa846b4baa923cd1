// Anthropic's SDK for JavaScript against the bridge; prints what it saw as one JSON object.
import Anthropic from "@anthropic-ai/sdk";
import { zodOutputFormat } from "@anthropic-ai/sdk/helpers/zod";
import { z } from "zod";

const { BASE, KEY, SLOW, SLOW_KEY, PIXEL } = process.env;
const client = new Anthropic({ baseURL: BASE, apiKey: KEY, maxRetries: 0 });
const ask = { model: "claude-sonnet-5-5", max_tokens: 500, messages: [{ role: "user", content: "hello" }] };
const City = z.object({ city: z.string(), country: z.string() });
const seen = {};

const caught = async (call) => {
  try {
    await call();
    return null;
  } catch (error) {
    return { name: error.constructor.name, status: error.status, message: error.message };
  }
};

const message = await client.messages.create({ ...ask, system: "Be brief." });
seen.message = { text: message.content[0].text, reason: message.stop_reason, usage: message.usage };

const events = [];
const stream = client.messages.stream({ ...ask, model: "gpt-6-sol" }).on("streamEvent", (event) => events.push(event.type));
const final = await stream.finalMessage();
seen.stream = { events, text: final.content[0].text, reason: final.stop_reason, usage: final.usage };

const parsed = await client.messages.parse({ ...ask, output_config: { format: zodOutputFormat(City) } });
seen.parsed = parsed.parsed_output;

const stopped = await client.messages.create({ ...ask, stop_sequences: ["simulated"] });
seen.stopped = { text: stopped.content[0].text, reason: stopped.stop_reason, sequence: stopped.stop_sequence };

const image = await client.messages.create({
  ...ask,
  messages: [{
    role: "user",
    content: [
      { type: "image", source: { type: "base64", media_type: "image/png", data: PIXEL } },
      { type: "image", source: { type: "url", url: "https://images.example.com/boardwalk.jpg" } },
      { type: "text", text: "look" },
    ],
  }],
});
seen.image = image.content[0].text;

seen.tokens = (await client.messages.countTokens({ model: ask.model, messages: ask.messages })).input_tokens;
seen.models = (await client.models.list()).data.map((model) => model.id);

seen.errors = {
  authentication: await caught(() =>
    new Anthropic({ baseURL: BASE, apiKey: "wrong", maxRetries: 0 }).messages.create(ask)),
  badRequest: await caught(() => client.messages.create({ ...ask, speed: "fast" })),
  notFound: await caught(() => client.messages.create({ ...ask, model: "gemini-9" })),
  server: await caught(() => client.messages.create({
    ...ask,
    output_config: { format: { type: "json_schema", schema: {
      type: "object", properties: { a: { type: "string", pattern: "^[0-9]{40}$" } }, required: ["a"] } } },
  }, { maxRetries: 3 })),
};

const slow = new Anthropic({ baseURL: SLOW, apiKey: SLOW_KEY, maxRetries: 0 });
seen.errors.timeout = await caught(() => slow.messages.create(ask, { timeout: 1000 }));
const endless = await slow.messages.create({ ...ask, stream: true });
for await (const event of endless) if (event.type === "content_block_delta") break;
endless.controller.abort();

console.log(JSON.stringify(seen));
