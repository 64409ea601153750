// OpenAI's client for JavaScript before an endpoint's address, as its users have it.
// Its arguments are a base URL and a key; its last line is JSON.

const { OpenAI, NotFoundError, BadRequestError, AuthenticationError } = require("openai");

const [baseURL, apiKey] = process.argv.slice(2);
const messages = [{ role: "user", content: "What is the capital of Japan?" }];
const asked = { model: "whatever", messages, temperature: 0, max_tokens: 16 };

async function refused(work, kind) {
  try {
    await work();
  } catch (error) {
    return { kind: error instanceof kind, status: error.status, code: error.code, message: error.message };
  }
  return null;
}

async function main() {
  const client = new OpenAI({ baseURL, apiKey, maxRetries: 0 });
  const whole = await client.chat.completions.create(asked);
  const stream = await client.chat.completions.create({
    ...asked,
    stream: true,
    stream_options: { include_usage: true },
  });
  const chunks = [];
  for await (const chunk of stream) chunks.push(chunk);
  const completion = await client.completions.create({
    model: "whatever",
    prompt: "The capital of Japan is",
    temperature: 0,
    max_tokens: 4,
  });
  const models = [];
  for await (const model of client.models.list()) models.push(model.id);
  const other = new OpenAI({ baseURL: baseURL.replace(/[^/]+$/, "12345"), apiKey, maxRetries: 0 });
  const stranger = new OpenAI({ baseURL, apiKey: "hr-unknown", maxRetries: 0 });
  console.log(
    JSON.stringify({
      text: whole.choices[0].message.content,
      usage: whole.usage,
      chunks: chunks.length,
      streamed: chunks.map((chunk) => chunk.choices[0]?.delta.content ?? "").join(""),
      streamed_usage: chunks.at(-1).usage,
      completion: completion.choices[0].text,
      models,
      endpoint: await refused(() => other.chat.completions.create(asked), NotFoundError),
      parameter: await refused(() => client.chat.completions.create({ ...asked, temperature: -3 }), BadRequestError),
      key: await refused(() => stranger.models.list(), AuthenticationError),
    }),
  );
}

main();
