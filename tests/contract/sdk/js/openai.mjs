// OpenAI's SDK for JavaScript against the bridge; prints what it saw as one JSON object.
import OpenAI from "openai";
import { zodResponseFormat, zodTextFormat } from "openai/helpers/zod";
import { z } from "zod";

const { BASE, KEY, SLOW, SLOW_KEY, PIXEL } = process.env;
const client = new OpenAI({ baseURL: `${BASE}/v1`, apiKey: KEY, maxRetries: 0 });
const messages = [{ role: "user", content: "hello" }];
const City = z.object({ city: z.string(), country: z.string() });
const seen = {};

const caught = async (call) => {
  try {
    await call();
    return null;
  } catch (error) {
    return { name: error.constructor.name, status: error.status, code: error.code, message: error.message };
  }
};

const chat = await client.chat.completions.create({ model: "gpt-6-sol", messages });
seen.chat = { text: chat.choices[0].message.content, reason: chat.choices[0].finish_reason, usage: chat.usage };

seen.chatStream = { text: "", usage: null };
const stream = await client.chat.completions.create({
  model: "claude-sonnet-5-5", messages, stream: true, stream_options: { include_usage: true },
});
for await (const chunk of stream) {
  seen.chatStream.text += chunk.choices[0]?.delta.content ?? "";
  seen.chatStream.usage = chunk.usage ?? seen.chatStream.usage;
}

const parsed = await client.chat.completions.parse({
  model: "gpt-6-sol", messages, response_format: zodResponseFormat(City, "city"),
});
seen.chatParsed = parsed.choices[0].message.parsed;

const image = await client.chat.completions.create({
  model: "gpt-6-sol",
  messages: [{
    role: "user",
    content: [
      { type: "text", text: "look" },
      { type: "image_url", image_url: { url: `data:image/png;base64,${PIXEL}` } },
      { type: "image_url", image_url: { url: "https://images.example.com/boardwalk.jpg" } },
    ],
  }],
});
seen.image = image.choices[0].message.content;

const response = await client.responses.create({ model: "gpt-6-sol", input: "hello", instructions: "Be brief." });
seen.response = { text: response.output_text, status: response.status, usage: response.usage };

const events = [];
for await (const event of client.responses.stream({ model: "gpt-6-sol", input: "hello" })) events.push(event.type);
seen.responseEvents = events;

const structured = await client.responses.parse({
  model: "claude-sonnet-5-5", input: "hello", text: { format: zodTextFormat(City, "city") },
});
seen.responseParsed = structured.output_parsed;

seen.models = (await client.models.list()).data.map((model) => model.id);

seen.errors = {
  authentication: await caught(() =>
    new OpenAI({ baseURL: `${BASE}/v1`, apiKey: "wrong", maxRetries: 0 }).models.list()),
  badRequest: await caught(() => client.chat.completions.create({ model: "gpt-6-sol", messages, n: 2 })),
  notFound: await caught(() => client.chat.completions.create({ model: "gemini-9", messages })),
  server: await caught(() => client.chat.completions.create({
    model: "gpt-6-sol", messages,
    response_format: { type: "json_schema", json_schema: { name: "a", schema: {
      type: "object", properties: { a: { type: "string", pattern: "^[0-9]{40}$" } }, required: ["a"] } } },
  }, { maxRetries: 3 })),
};

const slow = new OpenAI({ baseURL: `${SLOW}/v1`, apiKey: SLOW_KEY, maxRetries: 0 });
seen.errors.timeout = await caught(() =>
  slow.chat.completions.create({ model: "gpt-6-sol", messages }, { timeout: 1000 }));
const endless = await slow.chat.completions.create({ model: "gpt-6-sol", messages, stream: true });
for await (const chunk of endless) if (chunk.choices[0].delta.content) break;
endless.controller.abort();

console.log(JSON.stringify(seen));
