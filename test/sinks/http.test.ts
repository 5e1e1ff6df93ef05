import { afterAll, beforeAll, beforeEach, describe, expect, onTestFinished, test } from "vitest";
import { toOffset } from "../../src/reading.ts";
import type { Batch } from "../../src/reading.ts";
import { http } from "../../src/sinks/http.ts";
import type { Sink, SinkContext } from "../../src/sinks/sink.ts";
import { describeSink, makeBatch, makeEntry, openContext } from "../contract/sink.ts";
import type { WrittenRow } from "../contract/sink.ts";
import { startReceiver, status } from "../servers/receiver.ts";
import type { Receiver } from "../servers/receiver.ts";

const never = new AbortController().signal;

interface Document {
  readonly gateway: string;
  readonly offset: number;
  readonly device: string;
  readonly time: number;
  readonly data: unknown;
}

const { sink: type } = http({ url: "" });

const openSink = async (receiver: Receiver, settings: object = {}): Promise<Sink> =>
  type.open(type.settings.parse({ url: `${receiver.url}/readings`, ...settings }), await openContext());

const messageOf = (given: object): string | undefined =>
  type.settings.safeParse({ url: "http://h", ...given }).error?.message;

const toDocuments = (body: string): readonly Document[] =>
  body.startsWith("[")
    ? (JSON.parse(body) as readonly Document[])
    : body
        .split("\n")
        .slice(0, -1)
        .map((line) => JSON.parse(line) as Document);

/** Of a server that takes each (gateway, offset) once. */
function toRows(receiver: Receiver): readonly WrittenRow[] {
  const rows = new Map<string, WrittenRow>();
  for (const { gateway, offset, device, time, data } of [...receiver.taken.values()].flatMap(toDocuments)) {
    rows.set(`${gateway} ${offset}`, { gateway, offset, device, time, data });
  }
  return [...rows.values()].toSorted((a, b) => a.gateway.localeCompare(b.gateway));
}

for (const settings of [{ format: "ndjson" }, { format: "array", gzip: false, method: "PUT" }]) {
  const receivers = new Map<string, Receiver>();
  const receiverOf = async ({ dataDir }: SinkContext): Promise<Receiver> => {
    const found = receivers.get(dataDir) ?? (await startReceiver());
    if (!receivers.has(dataDir)) onTestFinished(() => found[Symbol.asyncDispose]());
    receivers.set(dataDir, found);
    return found;
  };
  const openAt = (context: SinkContext, { port }: { readonly port: number }): Promise<Sink> =>
    type.open(type.settings.parse({ url: `http://127.0.0.1:${port}`, ...settings }), context);
  describeSink(`http with ${JSON.stringify(settings)}`, {
    open: async (context) => openAt(context, await receiverOf(context)),
    rows: async (context) => toRows(await receiverOf(context)),
    once: "by key",
    server: async (context) => ({ host: "127.0.0.1", port: (await receiverOf(context)).port }),
    openAt,
  });
}

describe("the http sink", () => {
  let receiver: Receiver;
  beforeAll(async () => {
    receiver = await startReceiver();
  });
  afterAll(() => receiver[Symbol.asyncDispose]());
  let before = 0;
  beforeEach(() => {
    before = receiver.requests.length;
  });
  const requests = (): Receiver["requests"] => receiver.requests.slice(before);

  test("sends what its file describes", async () => {
    await using sink = await openSink(receiver, { url: `${receiver.url}/v1/readings?site=7` });
    await sink.write(makeBatch([7, 9]), never);
    expect(requests()).toMatchObject([
      {
        method: "POST",
        path: "/v1/readings?site=7",
        headers: {
          "content-type": "application/x-ndjson",
          "content-encoding": "gzip",
          "idempotency-key": expect.stringMatching(/^gateway-1-7-9-[0-9a-f]{16}$/) as string,
          "user-agent": "sluice",
        },
        body:
          `{"gateway":"gateway-1","offset":7,"stream":"climate","device":"device-1","topic":"devices/device-1/telemetry",` +
          `"time":1007,"receivedAt":2007,"data":{"ts":1007,"text":"ünï ' \\" 7"}}\n` +
          `{"gateway":"gateway-1","offset":9,"stream":"climate","device":"device-0","topic":"devices/device-0/telemetry",` +
          `"time":1009,"receivedAt":2009,"data":{"ts":1009,"text":"ünï ' \\" 9"}}\n`,
      },
    ]);
  });

  test("sends an array without compression when it is told to", async () => {
    await using sink = await openSink(receiver, { format: "array", gzip: false, method: "PUT" });
    await sink.write(makeBatch([7, 9]), never);
    const [request] = requests();
    expect(request).toMatchObject({ method: "PUT", headers: { "content-type": "application/json" } });
    expect(request?.headers).not.toHaveProperty("content-encoding");
    expect(toDocuments(request?.body ?? "").map(({ offset }) => offset)).toEqual([7, 9]);
  });

  test.for([
    [{ token: "t0ken" }, "Bearer t0ken"],
    [{ username: "ünï", password: "a:b" }, `Basic ${Buffer.from("ünï:a:b").toString("base64")}`],
    [{ headers: { Authorization: "ApiKey k3y" } }, "ApiKey k3y"],
  ] as const)("says who it is: %o", async ([settings, authorization]) => {
    await using sink = await openSink(receiver, settings);
    await sink.write(makeBatch([0]), never);
    expect(requests()[0]?.headers).toMatchObject({ authorization });
  });

  test("sends headers of the configuration, which come before its own content type", async () => {
    await using sink = await openSink(receiver, { headers: { "X-Site": "7", "Content-Type": "application/jsonl" } });
    await sink.write(makeBatch([0]), never);
    expect(requests()[0]?.headers).toMatchObject({ "x-site": "7", "content-type": "application/jsonl" });
  });

  test("has the same key for the same entries only", async () => {
    await using sink = await openSink(receiver);
    const keyOf = async (batch: Batch): Promise<unknown> => {
      await sink.write(batch, never);
      return receiver.requests.at(-1)?.headers["idempotency-key"];
    };
    const key = await keyOf(makeBatch([3, 4, 6]));
    expect(await keyOf(makeBatch([3, 4, 6], 20))).toBe(key);
    expect(await keyOf({ ...makeBatch([3, 4, 6]), replay: true })).toBe(key);
    expect(await keyOf(makeBatch([3, 5, 6]))).not.toBe(key);
    expect(await keyOf(makeBatch([3, 4, 6], 7, "gateway-2"))).not.toBe(key);
  });

  test("keeps its connection, and opens another one when the server has closed it", async () => {
    await using sink = await openSink(receiver);
    for (let offset = 0; offset < 3; offset += 1) await sink.write(makeBatch([offset]), never);
    expect(new Set(requests().map(({ connection }) => connection)).size).toBe(1);
    receiver.closeIdle();
    expect(await sink.write(makeBatch([3]), never)).toEqual({ kind: "all" });
    expect(new Set(requests().map(({ connection }) => connection)).size).toBe(2);
  });

  test("sends nothing for an empty batch", async () => {
    await using sink = await openSink(receiver);
    expect(await sink.write(makeBatch([], 5), never)).toEqual({ kind: "all" });
    expect(requests()).toEqual([]);
  });

  test("refuses only the entries whose data is not JSON, and sends none", async () => {
    await using sink = await openSink(receiver);
    const entries = [makeEntry(0), makeEntry(1, { big: 1n }), makeEntry(2)];
    expect(await sink.write({ gateway: "gateway-1", entries, next: toOffset(3) }, never)).toEqual({
      kind: "except",
      refused: [{ offset: 1, reason: expect.stringContaining("BigInt") as string }],
    });
    expect(requests()).toEqual([]);
  });

  test("keeps hostile text, 10,000 fields and a reading of megabytes", async () => {
    const hostile = "a\0b\r\n\u2028\u{1f600}\ud800 ']}";
    const fields = Object.fromEntries(Array.from({ length: 10_000 }, (_, index) => [`field-${index}`, index]));
    const data = [{ [hostile]: hostile }, fields, null, "x".repeat(8 * 1024 * 1024), { nan: null }];
    await using sink = await openSink(receiver);
    const entries = data.map((one, offset) => makeEntry(offset, offset === 4 ? { nan: Number.NaN } : one));
    expect(await sink.write({ gateway: "gateway-1", entries, next: toOffset(5) }, never)).toEqual({ kind: "all" });
    expect(toDocuments(requests()[0]?.body ?? "").map((document) => document.data)).toEqual(data);
  });

  test.for([
    [400, "the server refuses it: 400 Bad Request: no such field."],
    [413, "it is larger than the server takes: 413 Payload Too Large: no such field."],
    [422, "the server refuses it: 422 Unprocessable Entity: no such field."],
  ] as const)("takes %i for the content of the batch", async ([code, reason]) => {
    await using sink = await openSink(receiver);
    receiver.answerAll(status(code, `{"error":"no such field."}`));
    expect(await sink.write(makeBatch([0, 1]), never)).toEqual({ kind: "refused", reason });
    receiver.answerAll(undefined);
    expect(await sink.write(makeBatch([0]), never)).toEqual({ kind: "all" });
  });
});

describe("the settings of the http sink", () => {
  test.for([
    [{ url: "ftp://h" }, "http:// or https://"],
    [{ url: "http://user:s3cret@h/" }, "as username and password"],
    [{ token: "s3cret", username: "u", password: "p" }, "expected token, or"],
    [{ password: "s3cret" }, "expected token, or"],
    [{ token: "s3cret", headers: { authorization: "s3cret" } }, "expected token, or"],
    [{ token: "s3cret\n" }, "visible ASCII"],
    [{ username: "a:b", password: "s3cret" }, "without a colon"],
    [{ headers: { "X-A": "s3cret\r\nX-B: 1" } }, "HTTP does not allow"],
    [{ headers: { "Content-Length": "1" } }, "writes itself"],
    [{ headers: { "Idempotency-Key": "1" } }, "writes itself"],
  ] as const)("do not take %o", ([given, said]) => {
    expect(messageOf(given)).toContain(said);
    expect(messageOf(given)).not.toContain("s3cret");
  });

  test("are few", () => {
    expect(type.settings.parse({ url: "https://telemetry.example" })).toEqual({
      url: "https://telemetry.example",
      method: "POST",
      format: "ndjson",
      headers: {},
      gzip: true,
    });
  });
});
