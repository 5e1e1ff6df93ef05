// What may go wrong between the sink and NATS servers of its own, which it kills, freezes and misconfigures.

import { getActiveResourcesInfo } from "node:process";
import { afterAll, beforeAll, beforeEach, describe, expect, onTestFinished, test } from "vitest";
import { toOffset } from "../../src/reading.ts";
import { nats } from "../../src/sinks/nats.ts";
import type { Sink, SinkContext } from "../../src/sinks/sink.ts";
import { makeBatch, makeEntry, openContext } from "../contract/sink.ts";
import { startNats } from "../servers/nats.ts";
import { findPort, isInstalled } from "../servers/server.ts";
import type { Server } from "../servers/server.ts";
import { addStream, manage, readOffsets } from "./nats-streams.ts";

const never = new AbortController().signal;
let server: Server;
let context: SinkContext;
let count = 0;
/** The name of the stream of a test, and the first token of its subjects. */
let stream: string;

const urlOf = ({ port }: Server): string => `nats://127.0.0.1:${port}`;

const openSink = (settings: Record<string, unknown> = {}, at = server): Promise<Sink> => {
  const { sink, given } = nats({ servers: [urlOf(at)], subject: `${stream}.{device}`, ...settings });
  return sink.open(sink.settings.parse(given), context);
};

const range = (from: number, to: number): readonly number[] => Array.from({ length: to - from }, (_, i) => from + i);
const countSockets = (): number => getActiveResourcesInfo().filter((name) => /TCPSocket/.test(name)).length;

describe.skipIf(!isInstalled("nats-server"))("the nats sink", () => {
  beforeAll(async () => {
    server = await startNats({ lines: ["max_payload: 100000"] });
  });
  afterAll(async () => {
    await server[Symbol.asyncDispose]();
  });
  beforeEach(async () => {
    context = await openContext();
    stream = `trouble-${count++}`;
  });

  test("says which servers are not there, and takes the first that is", async () => {
    const gone = [`nats://127.0.0.1:${await findPort()}`, `nats://127.0.0.1:${await findPort()}`];
    const opened = openSink({ servers: gone });
    await expect(opened).rejects.toMatchObject({ kind: "transient", message: /ECONNREFUSED.*ECONNREFUSED/ });
    for (const url of gone) await expect(opened).rejects.toThrow(url);
    await addStream(server, stream);
    await using sink = await openSink({ servers: [...gone, urlOf(server)] });
    expect(await sink.write(makeBatch([0]), never)).toEqual({ kind: "all" });
  });

  test("closes at once while the server is frozen, and leaves no socket open when it does not answer", async () => {
    await addStream(server, stream);
    const before = countSockets();
    const sink = await openSink();
    server.freeze();
    onTestFinished(() => server.thaw());
    await sink[Symbol.asyncDispose]();
    await expect(openSink()).rejects.toThrow(urlOf(server));
    await expect.poll(countSockets).toBe(before);
  });

  test("refuses what is larger than max_payload to the byte, and nothing else", async () => {
    await addStream(server, stream);
    await using sink = await openSink({ stream });
    const write = (bytes: number): ReturnType<Sink["write"]> => {
      const entries = [makeEntry(0), makeEntry(1, "x".repeat(bytes))];
      return sink.write({ gateway: "gateway-1", entries, next: toOffset(2) }, never);
    };
    const tooMuch = await write(100_000);
    const reason = tooMuch.kind === "except" ? tooMuch.refused[0].reason : "";
    const [most = 0] = /\d+/.exec(reason)?.map((found) => 200_000 - Number(found)) ?? [];
    expect(await write(most + 1)).toMatchObject({ kind: "except", refused: [{ offset: 1 }] });
    expect(await readOffsets(server, stream)).toEqual([]);
    expect(await write(most)).toEqual({ kind: "all" });
    expect(await readOffsets(server, stream)).toEqual([0, 1]);
  });

  test("refuses what is larger than the stream takes, and writes the others", async () => {
    await addStream(server, stream, { max_msg_size: 1_000 });
    await using sink = await openSink();
    const entries = [makeEntry(0), makeEntry(1, "x".repeat(2_000)), makeEntry(2), makeEntry(3, "x".repeat(2_000))];
    const reason = expect.stringContaining("max_msg_size") as string;
    expect(await sink.write({ gateway: "gateway-1", entries, next: toOffset(4) }, never)).toEqual({
      kind: "except",
      refused: [
        { offset: 1, reason },
        { offset: 3, reason },
      ],
    });
    expect(await readOffsets(server, stream)).toEqual([0, 2]);
  });

  test("refuses a device whose subject would be too long for the server, and takes one that is just not", async () => {
    await addStream(server, stream);
    await using sink = await openSink();
    const write = (bytes: number): ReturnType<Sink["write"]> => {
      const { offset, reading } = makeEntry(0);
      const deviceId = "x".repeat(bytes - `${stream}.`.length);
      const entries = [{ offset, reading: { ...reading, deviceId } }];
      return sink.write({ gateway: "gateway-1", entries, next: toOffset(1) }, never);
    };
    expect(await write(3_901)).toMatchObject({ kind: "except", refused: [{ reason: /3900 bytes/ }] });
    expect(await write(3_900)).toEqual({ kind: "all" });
  });

  test("calls it misconfigured when no stream takes the subject, and goes on when one does", async () => {
    await using sink = await openSink();
    const refused = sink.write(makeBatch(range(0, 600)), never);
    await expect(refused).rejects.toMatchObject({
      kind: "misconfigured",
      message: /\/\/127.*trouble-\d+\.device-0.*create/,
    });
    await addStream(server, stream);
    await sink.write(makeBatch(range(0, 600)), never);
    expect(await readOffsets(server, stream)).toEqual(range(0, 600));
  });

  test("calls it misconfigured when another stream takes the subject, or the one to make overlaps", async () => {
    await addStream(server, stream);
    await using sink = await openSink({ stream: "another" });
    await expect(sink.write(makeBatch([0]), never)).rejects.toMatchObject({
      kind: "misconfigured",
      message: /expected stream does not match.*settings stream/,
    });
    await expect(openSink({ stream: "another", create: { subjects: [`${stream}.>`] } })).rejects.toMatchObject({
      kind: "misconfigured",
      message: /subjects overlap/,
    });
    expect(await readOffsets(server, stream)).toEqual([]);
  });

  test("calls a server without JetStream misconfigured", async () => {
    await using plain = await startNats({ jetstream: false });
    await using sink = await openSink({}, plain);
    const misconfigured = { kind: "misconfigured", message: /JetStream is not enabled/i };
    await expect(sink.write(makeBatch([0]), never)).rejects.toMatchObject(misconfigured);
    await expect(openSink({ stream, create: {} }, plain)).rejects.toMatchObject(misconfigured);
  });

  test("waits for a stream that is full and discards what is new", async () => {
    await addStream(server, stream, { max_msgs: 2, discard: "new" });
    await using sink = await openSink();
    const full = sink.write(makeBatch([0, 1, 2, 3]), never);
    await expect(full).rejects.toThrow(/maximum messages exceeded.*raise its limits/);
    await expect(full).rejects.not.toMatchObject({ kind: "misconfigured" });
    const manager = await manage(server);
    await manager.streams.update(stream, { max_msgs: 10 });
    expect(await sink.write(makeBatch([0, 1, 2, 3]), never)).toEqual({ kind: "all" });
    expect(await readOffsets(server, stream)).toEqual([0, 1, 2, 3]);
  });

  test("publishes nothing behind a message that is not taken now, one at a time", async () => {
    await addStream(server, stream, { max_msgs_per_subject: 1, discard: "new", discard_new_per_subject: true });
    await using sink = await openSink({ inFlight: 1 });
    // The devices 0, 0 and 1.
    await expect(sink.write(makeBatch([0, 3, 4]), never)).rejects.toThrow(/maximum messages per subject exceeded/);
    expect(await readOffsets(server, stream)).toEqual([0]);
  });
});
