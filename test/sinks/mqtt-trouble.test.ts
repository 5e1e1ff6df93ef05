// What may go wrong between the sink and a mosquitto of its own, which it stops, kills, freezes and restricts.

import { beforeEach, describe, expect, onTestFinished, test } from "vitest";
import { toOffset } from "../../src/reading.ts";
import { mqtt } from "../../src/sinks/mqtt.ts";
import type { Sink, SinkContext } from "../../src/sinks/sink.ts";
import { makeBatch, makeEntry, openContext } from "../contract/sink.ts";
import { startMosquitto, type MosquittoOptions } from "../servers/mosquitto.ts";
import { openCollector } from "../servers/mqtt-collector.ts";
import { findPort, isInstalled } from "../servers/server.ts";
import type { Server } from "../servers/server.ts";

const never = new AbortController().signal;
const range = (from: number, to: number): readonly number[] => Array.from({ length: to - from }, (_, i) => from + i);
const versions = [4, 5] as const;
let context: SinkContext;

const openSink = ({ port }: { readonly port: number }, settings: Record<string, unknown> = {}): Promise<Sink> => {
  const { sink, given } = mqtt({ url: `mqtt://127.0.0.1:${port}`, ...settings });
  return sink.open(sink.settings.parse(given), context);
};

async function start(options?: MosquittoOptions): Promise<Server> {
  const server = await startMosquitto(options);
  onTestFinished(() => server[Symbol.asyncDispose]());
  return server;
}

async function offsets(collector: { collect(): Promise<readonly { payload: unknown }[]> }): Promise<readonly number[]> {
  const packets = await collector.collect();
  return packets.map(({ payload }) => (JSON.parse(String(payload)) as { readonly offset: number }).offset);
}

beforeEach(async () => {
  context = await openContext();
});

describe.skipIf(!isInstalled("mosquitto"))("the mqtt sink and a broker that", () => {
  test("is not there", async () => {
    const port = await findPort();
    await expect(openSink({ port })).rejects.toThrow(`mqtt://127.0.0.1:${port}: connect ECONNREFUSED`);
    await expect(openSink({ port }, { url: `mqtt://localhost:${port}` })).rejects.toThrow(/localhost.*ECONNREFUSED/);
  });

  test.for([0, 1, 2])("is frozen: a write with QoS %d obeys its signal", async (qos) => {
    const server = await start();
    await using sink = await openSink(server, { qos });
    await sink.write(makeBatch([0]), never);
    server.freeze();
    const abort = new AbortController();
    const entries = range(0, 500).map((offset) => makeEntry(offset, "x".repeat(50_000)));
    const written = sink.write({ gateway: "gateway-1", entries, next: toOffset(500) }, abort.signal);
    abort.abort(new Error("enough"));
    await expect(written).rejects.toThrow("enough");
    await expect(sink.write(makeBatch([1]), never)).rejects.toThrow("enough");
  });

  test.for(versions)(
    "wants a password: wrong credentials are misconfigured, with protocol version %d",
    async (protocolVersion) => {
      const server = await start({ users: { writer: "secret" } });
      await using _sink = await openSink(server, { protocolVersion, username: "writer", password: "secret" });
      for (const password of ["not-it", undefined]) {
        const refused = openSink(server, { protocolVersion, username: "writer", password });
        await expect(refused).rejects.toMatchObject({ kind: "misconfigured", message: /refuses.*check username and/ });
        await expect(refused).rejects.not.toThrow("not-it");
      }
    },
  );

  test("does not allow a topic: misconfigured with MQTT 5; with 3.1.1 mosquitto acknowledges and drops", async () => {
    const files = { acl: "topic write devices/device-0/#\ntopic read #\ntopic write collector/#\n" };
    const server = await start({ lines: ["acl_file acl"], files });
    await using collector = await openCollector(server.port);
    await using sink = await openSink(server, { payload: "document" });
    expect(await sink.write(makeBatch([0, 3]), never)).toEqual({ kind: "all" });
    await expect(sink.write(makeBatch([1]), never)).rejects.toMatchObject({
      kind: "misconfigured",
      message: /Not authorized.*may publish/,
    });
    await using old = await openSink(server, { payload: "document", protocolVersion: 4 });
    expect(await old.write(makeBatch([4, 6]), never)).toEqual({ kind: "all" });
    expect(await offsets(collector)).toEqual([0, 3, 6]);
  });

  test("takes packets up to a size: larger ones are parked before anything is sent, the largest is not", async () => {
    const server = await start({ lines: ["max_packet_size 1000"] });
    await using collector = await openCollector(server.port);
    await using sink = await openSink(server);
    const write = (bytes: number, ...others: readonly number[]): ReturnType<Sink["write"]> => {
      const entries = [...others.map((offset) => makeEntry(offset, "")), makeEntry(9, "x".repeat(bytes))];
      return sink.write({ gateway: "gateway-1", entries, next: toOffset(10) }, never);
    };
    const found = await write(1_000, 7, 8);
    expect(found).toMatchObject({ kind: "except", refused: [{ offset: 9 }] });
    const bytes = Number(/packet of (\d+) bytes/.exec(JSON.stringify(found))?.[1]);
    expect(await write(1_001 - (bytes - 1_000))).toMatchObject({ kind: "except" });
    expect(await write(1_000 - (bytes - 1_000))).toEqual({ kind: "all" });
    expect((await collector.collect()).length).toBe(1);
  });

  test("takes payloads up to a size: smaller batches find the larger ones, which are parked", async () => {
    const server = await start({ lines: ["message_size_limit 100"] });
    await using collector = await openCollector(server.port);
    await using sink = await openSink(server);
    const write = (offset: number, text: string): ReturnType<Sink["write"]> =>
      sink.write({ gateway: "gateway-1", entries: [makeEntry(offset, text)], next: toOffset(offset + 1) }, never);
    const refused = { kind: "refused", reason: expect.stringContaining("too large") as string };
    expect(await write(0, "x".repeat(200))).toEqual(refused);
    expect(await write(0, "x".repeat(200))).toEqual(refused);
    expect(await write(1, "small")).toEqual({ kind: "all" });
    expect((await collector.collect()).map(({ payload }) => payload.toString())).toEqual([`"small"`]);
  });

  test("takes no retained messages or a lower QoS only: misconfigured", async () => {
    const server = await start({ lines: ["retain_available false", "max_qos 1"] });
    await expect(openSink(server, { retain: true })).rejects.toMatchObject({
      kind: "misconfigured",
      message: /retain/,
    });
    await expect(openSink(server, { qos: 2 })).rejects.toMatchObject({ kind: "misconfigured", message: /QoS 1 at/ });
    await using _sink = await openSink(server);
  });

  test("has another client with the same id", async () => {
    const server = await start();
    await using first = await openSink(server, { clientId: "mine" });
    await using _second = await openSink(server, { clientId: "mine" });
    await expect(first.write(makeBatch([0]), never)).rejects.toThrow(`127.0.0.1:${server.port}`);
  });
});

test.for([
  [{ url: "redis://127.0.0.1" }, "mqtt://"],
  [{ url: "mqtt://user:secret@127.0.0.1" }, "username and password"],
  [{ url: "mqtt://a", topic: "a/#" }, "without + and #"],
  [{ url: "mqtt://a", topic: "{client}" }, "{topic} and {stream} and {device}"],
  [{ url: "mqtt://a", qos: 3 }, "qos"],
  [{}, "url"],
])("the mqtt sink does not take the settings %o", ([given, said]) => {
  const { error } = mqtt({ url: "mqtt://a" }).sink.settings.safeParse(given);
  expect(error?.message).toContain(said);
  expect(error?.message).not.toContain("secret");
});
