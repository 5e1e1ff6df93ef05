import { createClient } from "@redis/client";
import { afterAll, beforeAll, beforeEach, describe, expect, onTestFinished, test } from "vitest";
import { toOffset } from "../../src/reading.ts";
import type { Batch } from "../../src/reading.ts";
import { redis } from "../../src/sinks/redis.ts";
import type { Sink, SinkContext } from "../../src/sinks/sink.ts";
import { describeSink, makeBatch, makeEntry, openContext } from "../contract/sink.ts";
import type { WrittenRow } from "../contract/sink.ts";
import { startRedis } from "../servers/redis.ts";
import { isInstalled } from "../servers/server.ts";
import type { Server } from "../servers/server.ts";

type Settings = Record<string, unknown>;

const never = new AbortController().signal;
let server: Server;
/** A database of its own for each test: the destination must be new. */
const databases = new Map<string, number>();

const databaseOf = ({ dataDir }: SinkContext): number => {
  const found = databases.get(dataDir) ?? databases.size + 1;
  databases.set(dataDir, found);
  return found;
};

const openSink = (context: SinkContext, settings: Settings = {}, port = server.port): Promise<Sink> => {
  const { sink, given } = redis({ url: `redis://127.0.0.1:${port}`, database: databaseOf(context), ...settings });
  return sink.open(sink.settings.parse(given), context);
};

// oxlint-disable-next-line typescript/explicit-function-return-type -- the library's type has five parameters
async function connect(context: SinkContext, port = server.port, options: Settings = {}) {
  const client = createClient({ url: `redis://127.0.0.1:${port}/${databaseOf(context)}`, ...options });
  await client.connect();
  onTestFinished(() => client.destroy());
  return client;
}

async function read(context: SinkContext, key = "telemetry:climate"): Promise<readonly Record<string, string>[]> {
  const client = await connect(context);
  const found = (await client.xRange(key, "-", "+")) ?? [];
  return found.map(({ message }) => ({ ...message }));
}

async function rows(context: SinkContext): Promise<readonly WrittenRow[]> {
  const found = (await read(context)).map(({ gateway, offset, device, time, data }) => ({
    gateway: String(gateway),
    offset: Number(offset),
    device: String(device),
    time: Number(time),
    data: JSON.parse(String(data)) as unknown,
  }));
  return found.toSorted((a, b) => a.gateway.localeCompare(b.gateway));
}

const offsets = async (context: SinkContext, key?: string): Promise<readonly number[]> =>
  (await read(context, key)).map(({ offset }) => Number(offset));

describe.skipIf(!isInstalled("redis-server"))("with Redis", () => {
  beforeAll(async () => {
    server = await startRedis();
  });
  afterAll(async () => {
    await server[Symbol.asyncDispose]();
  });

  describeSink("redis", {
    open: openSink,
    rows,
    once: "exactly",
    server: () => server,
    openAt: (context, { port }) => openSink(context, {}, port),
    survives: "SIGKILL",
  });

  describe("the redis sink", () => {
    let context: SinkContext;
    beforeEach(async () => {
      context = await openContext();
    });

    test("writes the fields that its file describes", async () => {
      await using sink = await openSink(context);
      await sink.write(makeBatch([7]), never);
      expect(await read(context)).toEqual([
        {
          gateway: "gateway-1",
          offset: "7",
          stream: "climate",
          device: "device-1",
          topic: "devices/device-1/telemetry",
          time: "1007",
          received_at: "2007",
          data: `{"ts":1007,"text":"ünï ' \\" 7"}`,
        },
      ]);
    });

    test("writes to the key that its template gives, and keeps the order there", async () => {
      await using sink = await openSink(context, { key: "{device}/of/{stream}/{device}" });
      await sink.write(makeBatch([0, 1, 2, 3, 4]), never);
      expect(await offsets(context, "device-0/of/climate/device-0")).toEqual([0, 3]);
      expect(await offsets(context, "device-1/of/climate/device-1")).toEqual([1, 4]);
    });

    test("keeps about maxLength entries of a stream", async () => {
      await using sink = await openSink(context, { maxLength: 100 });
      await sink.write(makeBatch(Array.from({ length: 1_000 }, (_, offset) => offset)), never);
      const kept = await offsets(context);
      expect(kept.length).toBeGreaterThanOrEqual(100);
      expect(kept.length).toBeLessThan(300);
      expect(kept.at(-1)).toBe(999);
    });

    test("keeps text as it is, whatever it looks like", async () => {
      await using sink = await openSink(context, { key: "{device}" });
      const hostile = "a\0b\r\n$3\r\nDEL\u{1f600} '];redis.call('FLUSHALL')--%{}{stream}";
      const entry = makeEntry(0, {
        text: hostile,
        lone: "\ud800",
        nan: Number.NaN,
        huge: Number.parseFloat("1e400"),
        big: 2 ** 53 + 2,
      });
      const reading = { ...entry.reading, deviceId: hostile, topic: hostile };
      await sink.write({ gateway: hostile, entries: [{ ...entry, reading }], next: toOffset(1) }, never);
      const [found] = await read(context, hostile);
      expect(found).toMatchObject({ gateway: hostile, device: hostile, topic: hostile });
      expect(JSON.parse(String(found?.["data"]))).toEqual({
        text: hostile,
        lone: "\ud800",
        nan: null,
        huge: null,
        big: 2 ** 53 + 2,
      });
    });

    test("writes a replay once more and leaves its position where it was", async () => {
      await using sink = await openSink(context);
      await sink.write(makeBatch([3, 4, 5]), never);
      const replay: Batch = { ...makeBatch([3, 4, 9]), replay: true };
      expect(await sink.write(replay, never)).toEqual({ kind: "all" });
      expect(await offsets(context)).toEqual([3, 4, 5, 3, 4, 9]);
      expect(await sink.position?.()).toBe(6);
    });

    test("keeps the position of another sink of the same gateway apart", async () => {
      await using one = await openSink(context, { key: "one" });
      await using two = await openSink({ ...context, name: "other" }, { key: "two", database: databaseOf(context) });
      await one.write(makeBatch([0, 1, 2]), never);
      expect(await two.position?.()).toBeUndefined();
      await two.write(makeBatch([1]), never);
      expect(await two.position?.()).toBe(2);
      expect(await one.position?.()).toBe(3);
    });
  });
});
