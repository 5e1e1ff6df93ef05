// Readings to an HTTP server: a request for each batch, with the documents of document.ts.
//
//   ndjson  Content-Type: application/x-ndjson; a line for each reading
//   array   Content-Type: application/json; one array, a line for each reading
//   Idempotency-Key: <gateway>-<first offset>-<last offset>-<first 16 hexadecimal digits of the body's SHA-256>

import { createHash } from "node:crypto";
import { z } from "zod";
import { unreachable } from "../errors.ts";
import type { Batch } from "../reading.ts";
import { toDocuments } from "./document.ts";
import { judge } from "./http-answer.ts";
import { clientSettings, hasOneIdentity, oneIdentity, openHttpClient, urlSetting } from "./http-client.ts";
import type { HttpClient } from "./http-client.ts";
import { defineSink } from "./sink.ts";
import type { Sink } from "./sink.ts";

const settings = z
  .strictObject({
    url: urlSetting.describe("Where requests go, http:// or https://, with path and query."),
    method: z.enum(["POST", "PUT"]).default("POST").describe("The method of the requests."),
    format: z
      .enum(["ndjson", "array"])
      .default("ndjson")
      .describe("ndjson: a line of JSON for each reading. array: one JSON array."),
    ...clientSettings,
  })
  .refine(hasOneIdentity, oneIdentity);

type HttpSettings = z.output<typeof settings>;

/** Readings to an HTTP server. */
export const http = defineSink({
  type: "http",
  settings,
  batch: { records: 1_000, bytes: 1024 * 1024 },
  reference: {
    writes:
      'Sends each batch to an HTTP server as one request, with a document for each reading: `{"gateway","offset","stream","device","topic","time","receivedAt","data"}`, times in milliseconds since 1970. Its header `Idempotency-Key` is the same when the same readings come again.',
    once: "At least once; exactly once when the server takes each (`gateway`, `offset`) once. A batch counts as delivered when the server has answered with a status of 200 to 299 and the whole answer has come; otherwise it comes again. The next attempt has the same readings and the same `Idempotency-Key`, but after a restart of the gateway, or when readings were refused, the readings are divided among requests in another way, so that a server which knows keys alone sees some of them twice. A replay has the keys of the requests that were divided in the same way.",
    notes: [
      "Parked are readings that cannot be written as JSON, and those that the server refuses alone with 400, 413 or 422: a request that is refused with one of these is divided until they are found. A server that answers 400 to everything has everything parked; `sluice parked retry` sends it once more.",
      "408, 409, 421, 423, 425, 429 and 500 to 599 are tried again, after `Retry-After` if it is there. All others, also redirects, which are not followed, need a person, and are tried again seldom.",
      "There is one connection and one request at a time, so the server sees the journal's order. A status is all that counts: a server that says in the body of a 200 which documents it did not take, such as `_bulk` of Elasticsearch, loses them.",
    ],
    example: `http({ url: "https://telemetry.example/v1/readings", token: env.TELEMETRY_TOKEN })`,
  },
  open: async (given) => createSink(await openHttpClient(given), given),
});

function createSink(client: HttpClient, { url: text, method, format }: HttpSettings): Sink {
  const url = new URL(text);
  return {
    async write(batch, signal) {
      signal.throwIfAborted();
      const made = toDocuments(batch);
      if (made.kind === "except") return made;
      if (batch.entries.length === 0) return { kind: "all" };
      const { body, contentType } = toBody(made.documents, format);
      const headers = { "content-type": contentType, "idempotency-key": toKey(batch, body) };
      return judge(await client.send({ method, url, headers, body }, signal), client.place);
    },
    [Symbol.asyncDispose]: () => client[Symbol.asyncDispose](),
  };
}

function toBody(
  documents: readonly string[],
  format: HttpSettings["format"],
): { readonly body: string; readonly contentType: string } {
  switch (format) {
    case "ndjson":
      return { body: `${documents.join("\n")}\n`, contentType: "application/x-ndjson" };
    case "array":
      return { body: `[${documents.join(",\n")}]`, contentType: "application/json" };
    default:
      return unreachable(format);
  }
}

/** The content is part of it: a key must not come with another body (draft-ietf-httpapi-idempotency-key-header, section 2.2). */
function toKey({ gateway, entries }: Batch, body: string): string {
  const content = createHash("sha256").update(body).digest("hex").slice(0, 16);
  return `${gateway}-${entries[0]?.offset}-${entries.at(-1)?.offset}-${content}`;
}
