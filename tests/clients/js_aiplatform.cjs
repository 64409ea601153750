// Vertex AI's client for JavaScript over its REST fallback, as its users have it.
// Its arguments are the server's host, port and protocol, a key, and the endpoint's full name; its last line is JSON.

const { PredictionServiceClient, helpers } = require("@google-cloud/aiplatform");
const { GoogleAuth, OAuth2Client } = require("google-auth-library");

const [apiEndpoint, port, protocol, key, endpoint] = process.argv.slice(2);

async function refused(work) {
  try {
    await work();
  } catch (error) {
    return { code: error.code, message: error.message, reason: error.reason };
  }
  return null;
}

async function main() {
  const authClient = new OAuth2Client();
  authClient.setCredentials({ access_token: key });
  const auth = new GoogleAuth({ authClient });
  const client = new PredictionServiceClient({ fallback: true, apiEndpoint, port: Number(port), protocol, auth });
  const prompt = { prompt: "The capital of Japan is", max_tokens: 4 };
  const chat = { messages: [{ role: "user", content: "What is the capital of Japan?" }], max_tokens: 16 };
  const instances = [prompt, chat].map((instance) => helpers.toValue(instance));
  const parameters = helpers.toValue({ temperature: 0 });
  const [answer] = await client.predict({ endpoint, instances, parameters });
  const contents = [{ role: "user", parts: [{ text: "What is the capital of Japan?" }] }];
  const generationConfig = { temperature: 0, maxOutputTokens: 16 };
  const [generated] = await client.generateContent({ model: endpoint, contents, generationConfig });
  const responses = [];
  for await (const response of client.streamGenerateContent({ model: endpoint, contents, generationConfig })) {
    responses.push(response);
  }
  const said = (response) => response.candidates[0].content.parts.map((part) => part.text).join("");
  console.log(
    JSON.stringify({
      completion: answer.predictions[0].stringValue,
      chat: helpers.fromValue(answer.predictions[1]),
      deployed_model: answer.deployedModelId,
      text: said(generated),
      reason: generated.candidates[0].finishReason,
      usage: generated.usageMetadata,
      streamed: responses.map(said).join(""),
      responses: responses.length,
      instance: await refused(() => client.predict({ endpoint, instances: [helpers.toValue({})] })),
      endpoint: await refused(() => client.predict({ endpoint: endpoint.replace(/[^/]+$/, "12345"), instances })),
    }),
  );
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
