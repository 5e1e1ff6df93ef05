// What may go wrong between the http sink and its server: it hangs, resets, refuses, cuts its answer.

import { createServer } from "node:net";
import type { AddressInfo, Socket } from "node:net";
import { once } from "node:events";
import { afterAll, beforeAll, beforeEach, describe, expect, onTestFinished, test } from "vitest";
import { deliver } from "../../src/dispatch/delivery.ts";
import type { Refusal } from "../../src/dispatch/delivery.ts";
import { toRetryAfterMs } from "../../src/sinks/http-answer.ts";
import { http } from "../../src/sinks/http.ts";
import type { Sink } from "../../src/sinks/sink.ts";
import { makeBatch, openContext } from "../contract/sink.ts";
import { startReceiver, status } from "../servers/receiver.ts";
import type { Answer, Receiver } from "../servers/receiver.ts";
import { findPort } from "../servers/server.ts";

const never = new AbortController().signal;
const { sink: type } = http({ url: "" });
let receiver: Receiver;

const openSink = async (settings: object = {}): Promise<Sink> =>
  type.open(type.settings.parse({ url: `${receiver.url}/readings?key=s3cret`, ...settings }), await openContext());

const reset: Answer = (response) => void response.socket?.resetAndDestroy();
const offsetsOf = (body: string): readonly number[] =>
  [...body.matchAll(/"offset":(\d+)/g)].map(([, offset]) => Number(offset));

const range = (from: number, to: number): readonly number[] => Array.from({ length: to - from }, (_, i) => from + i);

/** Takes connections, and does with them what a test says. */
async function startListener(onConnection: (socket: Socket) => void): Promise<string> {
  const sockets = new Set<Socket>();
  const server = createServer((socket) => {
    sockets.add(socket.on("error", () => {}));
    onConnection(socket);
  }).listen(0, "127.0.0.1");
  await once(server, "listening");
  onTestFinished(() => {
    for (const socket of sockets) socket.destroy();
    server.close();
  });
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
}

describe("the http sink", () => {
  beforeAll(async () => {
    receiver = await startReceiver();
  });
  beforeEach(() => receiver.answerAll(undefined));
  afterAll(() => receiver[Symbol.asyncDispose]());

  test("says which server is not there, without its query", async () => {
    const url = `http://127.0.0.1:${await findPort()}/readings`;
    await using sink = await openSink({ url: `${url}?key=s3cret` });
    const written = sink.write(makeBatch([0]), never);
    await expect(written).rejects.toMatchObject({ kind: "transient", message: /ECONNREFUSED/ });
    await expect(written).rejects.toThrow(`${url}: `);
    await expect(written).rejects.not.toThrow("s3cret");
  });

  test.for([408, 409, 425, 429, 500, 502, 503, 504])("waits when the server answers %i", async (code) => {
    await using sink = await openSink();
    receiver.answer(status(code, "later", { "retry-after": "7" }));
    await expect(sink.write(makeBatch([0]), never)).rejects.toMatchObject({
      kind: "transient",
      retryAfterMs: 7_000,
      message: new RegExp(`/readings: ${code} .*: later\\.`),
    });
    expect(await sink.write(makeBatch([0]), never)).toEqual({ kind: "all" });
  });

  test.for([
    [401, "check token, or username and password"],
    [403, "does not allow it"],
    [404, "check url"],
    [405, "check url and method"],
    [406, "406 Not Acceptable"],
    [501, "501 Not Implemented"],
  ] as const)("names what a person can mend when the server answers %i", async ([code, said]) => {
    await using sink = await openSink();
    receiver.answer(status(code));
    await expect(sink.write(makeBatch([0]), never)).rejects.toMatchObject({
      kind: code === 501 ? "transient" : "misconfigured",
      message: expect.stringContaining(said) as string,
    });
  });

  test.for([301, 302, 307, 308])("does not follow %i, and says where to", async (code) => {
    await using sink = await openSink();
    receiver.answer(status(code, "", { location: "/v2/readings?session=t1cket" }));
    const written = sink.write(makeBatch([0]), never);
    await expect(written).rejects.toMatchObject({ kind: "misconfigured" });
    await expect(written).rejects.toThrow(`${receiver.url}/v2/readings now`);
    await expect(written).rejects.not.toThrow("t1cket");
    receiver.answer(status(code));
    await expect(sink.write(makeBatch([0]), never)).rejects.toThrow("Redirects are not followed.");
  });

  test.for([
    "Client sent an HTTP request to an HTTPS server.\n",
    "<html><head><title>400 The plain HTTP request was sent to HTTPS port</title></head></html>",
  ])("parks nothing when it speaks plainly to a port for TLS: %s", async (body) => {
    await using sink = await openSink({ gzip: false });
    receiver.answer(status(400, body));
    await expect(sink.write(makeBatch([0]), never)).rejects.toMatchObject({
      kind: "misconfigured",
      message: /https:\/\//,
    });
  });

  test.for([400, 415])("parks nothing when the server answers %i to what is compressed", async (code) => {
    await using sink = await openSink();
    receiver.answerAll((response, request) => {
      response.writeHead(request.headers["content-encoding"] === undefined ? 200 : code).end("\\x1f?");
    });
    const written = sink.write(makeBatch([0]), never);
    await expect(written).rejects.toMatchObject({ kind: "misconfigured", message: /set gzip to false/ });
  });

  test("does not ask twice when it knows that the server can decompress", async () => {
    await using sink = await openSink();
    await sink.write(makeBatch([0]), never);
    const before = receiver.requests.length;
    receiver.answer(status(400));
    expect(await sink.write(makeBatch([1]), never)).toMatchObject({ kind: "refused" });
    expect(receiver.requests.length).toBe(before + 1);
  });

  test("does not tell its secrets, even when the server repeats them", async () => {
    await using sink = await openSink({ token: "t0ken-of-mine", headers: { "X-Key": "k3y-of-mine" } });
    receiver.answer((response) => {
      const { authorization, "x-key": key } = receiver.requests.at(-1)?.headers ?? {};
      response.writeHead(403).end(`not with ${authorization} and ${String(key)}`);
    });
    const written = sink.write(makeBatch([0]), never);
    await expect(written).rejects.toThrow("not with … and …");
    await expect(written).rejects.not.toThrow("of-mine");
  });

  test("puts what a server says into one short line", async () => {
    await using sink = await openSink();
    receiver.answer(status(500, `a\n\u001b[31mb\0${"c".repeat(1_000)}`));
    await expect(sink.write(makeBatch([0]), never)).rejects.toThrow(/: a \[31mb c{380,400}….$/);
    receiver.answer(status(500, "<html>a page</html>", { "content-type": "text/html" }));
    await expect(sink.write(makeBatch([0]), never)).rejects.toThrow(/500 Internal Server Error\.$/);
  });

  test("sends the same with the same key again after a reset", async () => {
    await using sink = await openSink();
    receiver.answer(reset);
    await expect(sink.write(makeBatch([100, 101]), never)).rejects.toMatchObject({ kind: "transient" });
    const [first] = receiver.requests.slice(-1);
    await using again = await openSink();
    expect(await again.write(makeBatch([100, 101]), never)).toEqual({ kind: "all" });
    const [second] = receiver.requests.slice(-1);
    expect(second).toMatchObject({ body: first?.body });
    expect(second?.headers["idempotency-key"]).toBe(first?.headers["idempotency-key"]);
  });

  test("tries once more when a kept connection is reset, and not when the new one is too", async () => {
    await using sink = await openSink();
    await sink.write(makeBatch([0]), never);
    receiver.answer(reset);
    expect(await sink.write(makeBatch([1]), never)).toEqual({ kind: "all" });
    receiver.answer(reset, reset);
    await expect(sink.write(makeBatch([2]), never)).rejects.toMatchObject({ kind: "transient" });
  });

  test("does not count a batch as delivered whose answer is cut", async () => {
    await using sink = await openSink();
    receiver.answer((response) => {
      response.writeHead(200, { "content-length": "100" }).write("ok", () => response.socket?.destroy());
    });
    await expect(sink.write(makeBatch([0]), never)).rejects.toMatchObject({ kind: "transient" });
  });

  test("takes an answer that is cut in its head for something that may pass", async () => {
    const url = await startListener((socket) => void socket.once("data", () => socket.end("HT")));
    await using sink = await openSink({ url });
    await expect(sink.write(makeBatch([0]), never)).rejects.toMatchObject({ kind: "transient" });
  });

  test("reads so much of an endless answer and no more", async () => {
    await using sink = await openSink();
    let written = 0;
    let closed: Promise<unknown> | undefined;
    receiver.answer((response) => {
      closed = once(response, "close");
      const chunk = "x".repeat(64 * 1024);
      const more = (): void => {
        while (!response.destroyed && response.write(chunk)) written += chunk.length;
      };
      more();
      response.on("drain", more);
    });
    expect(await sink.write(makeBatch([0]), never)).toEqual({ kind: "all" });
    await closed;
    expect(written).toBeLessThan(64 * 1024 * 1024);
  });

  test("sees an answer that comes before the body has been read", async () => {
    const url = await startListener((socket) => {
      socket.once("data", () => {
        socket.pause();
        socket.end("HTTP/1.1 413 Too Large\r\ncontent-length: 0\r\nconnection: close\r\n\r\n", () => socket.destroy());
      });
    });
    await using sink = await openSink({ url, gzip: false });
    const large = makeBatch(range(0, 20_000));
    expect(await sink.write(large, never)).toMatchObject({ kind: "refused", reason: /413 Too Large/ });
  });

  test("is told that what listens there is no HTTP server", async () => {
    const url = await startListener((socket) => socket.write("220 mail.example ESMTP\r\n"));
    await using sink = await openSink({ url });
    await expect(sink.write(makeBatch([0]), never)).rejects.toMatchObject({
      kind: "misconfigured",
      message: /does not speak HTTP/,
    });
  });

  test("leaves no connection behind", async () => {
    const closed = Promise.withResolvers<void>();
    const url = await startListener((socket) => {
      socket.on("data", () => socket.write("HTTP/1.1 204 No Content\r\n\r\n"));
      socket.on("close", () => closed.resolve());
    });
    const sink = await openSink({ url });
    await sink.write(makeBatch([0]), never);
    await sink[Symbol.asyncDispose]();
    await expect(closed.promise).resolves.toBeUndefined();
  });

  test("obeys its signal while the server hangs, and can be closed then", async () => {
    await using sink = await openSink();
    receiver.answerAll(() => {});
    const abort = new AbortController();
    const arrived = receiver.next();
    const written = sink.write(makeBatch([0]), abort.signal);
    await arrived;
    abort.abort(new Error("enough"));
    await expect(written).rejects.toThrow("enough");
    const other = await openSink();
    const coming = receiver.next();
    const hanging = other.write(makeBatch([0]), never);
    await coming;
    await other[Symbol.asyncDispose]();
    await expect(hanging).rejects.toMatchObject({ kind: "transient" });
  });

  test("obeys its signal while the server drips its answer", async () => {
    await using sink = await openSink();
    const abort = new AbortController();
    receiver.answer((response) => {
      response.writeHead(200).write("o", () => abort.abort(new Error("enough")));
    });
    await expect(sink.write(makeBatch([0]), abort.signal)).rejects.toThrow("enough");
  });

  test("parks exactly the readings that the server refuses, and sends the others", async () => {
    await using sink = await openSink();
    const bad = new Set([3, 4, 17]);
    const accepted: number[] = [];
    receiver.answerAll((response) => {
      const offsets = offsetsOf(receiver.requests.at(-1)?.body ?? "");
      const refused = offsets.filter((offset) => bad.has(offset));
      const code = offsets.length > 8 ? 413 : refused.length > 0 ? 422 : 200;
      if (code === 200) accepted.push(...offsets);
      response.writeHead(code).end(`bad: ${refused.join()}`);
    });
    const parked: Refusal[] = [];
    const limits = { timeoutMs: 10_000, abort: never, onRefused: () => {} };
    const delivered = await deliver(sink, makeBatch(range(0, 30)), {
      ...limits,
      park: (refusals) => void parked.push(...refusals),
    });
    expect(delivered).toEqual({ kind: "all", delivered: 27, parked: 3 });
    expect(accepted).toEqual(range(0, 30).filter((offset) => !bad.has(offset)));
    expect(parked.map(({ offset, reason }) => [offset, reason])).toEqual(
      [...bad].map((offset) => [offset, `the server refuses it: 422 Unprocessable Entity: bad: ${offset}.`]),
    );
  });
});

test.for([
  ["0", 0],
  ["120", 120_000],
  ["Thu, 01 Jan 1970 00:01:00 GMT", 50_000],
  ["Thu, 01 Jan 1970 00:00:00 GMT", 0],
  ["soon", undefined],
  ["-5x", undefined],
  [undefined, undefined],
] as const)("Retry-After: %s is %s ms", ([value, ms]) => {
  expect(toRetryAfterMs(value, 10_000)).toBe(ms);
});
