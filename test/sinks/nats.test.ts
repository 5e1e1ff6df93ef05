import { afterAll, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { toOffset } from "../../src/reading.ts";
import type { Batch } from "../../src/reading.ts";
import { nats } from "../../src/sinks/nats.ts";
import type { Sink, SinkContext } from "../../src/sinks/sink.ts";
import { describeSink, makeBatch, makeEntry, openContext } from "../contract/sink.ts";
import type { WrittenRow } from "../contract/sink.ts";
import { startNats } from "../servers/nats.ts";
import { isInstalled } from "../servers/server.ts";
import type { Server } from "../servers/server.ts";
import { addStream, manage, readOffsets, readStream, toDocument } from "./nats-streams.ts";

type Settings = Record<string, unknown>;

const never = new AbortController().signal;
let server: Server;
/** A stream of its own for each test: the destination must be new. */
const streams = new Map<string, string>();

const streamOf = ({ dataDir }: SinkContext): string => {
  const found = streams.get(dataDir) ?? `test-${streams.size}`;
  streams.set(dataDir, found);
  return found;
};

const openSink = (context: SinkContext, settings: Settings = {}): Promise<Sink> => {
  const stream = streamOf(context);
  const { sink, given } = nats({
    servers: [`nats://127.0.0.1:${server.port}`],
    subject: `${stream}.{stream}.{device}`,
    stream,
    create: { subjects: [`${stream}.>`] },
    ...settings,
  });
  return sink.open(sink.settings.parse(given), context);
};

const problemOf = (given: Settings): string | undefined => nats().sink.settings.safeParse(given).error?.message;

async function rows(context: SinkContext): Promise<readonly WrittenRow[]> {
  const found = (await readStream(server, streamOf(context))).map((message) => {
    const { gateway, offset, device, time, data } = toDocument(message);
    return { gateway: String(gateway), offset: Number(offset), device: String(device), time: Number(time), data };
  });
  return found.toSorted((a, b) => a.gateway.localeCompare(b.gateway));
}

describe.skipIf(!isInstalled("nats-server"))("with NATS", () => {
  beforeAll(async () => {
    server = await startNats();
  });
  afterAll(async () => {
    await server[Symbol.asyncDispose]();
  });

  describeSink("nats", {
    open: openSink,
    rows,
    once: "by key",
    server: () => server,
    openAt: (context, { port }) => openSink(context, { servers: [`nats://127.0.0.1:${port}`] }),
    survives: "SIGKILL",
    // The server's max_payload is 1 MiB.
    parks: ["a text of a million characters"],
  });

  describe("the nats sink", () => {
    let context: SinkContext;
    let stream: string;
    beforeEach(async () => {
      context = await openContext();
      stream = streamOf(context);
    });

    test("writes the message that its file describes", async () => {
      await using sink = await openSink(context);
      await sink.write(makeBatch([7]), never);
      const [message, ...others] = await readStream(server, stream);
      expect(others).toEqual([]);
      expect(message?.subject).toBe(`${stream}.climate.device-1`);
      expect(message?.headers?.get("Nats-Msg-Id")).toBe("gateway-1/7");
      expect(message?.headers?.get("Nats-Expected-Stream")).toBe(stream);
      expect(message?.string()).toBe(
        `{"gateway":"gateway-1","offset":7,"stream":"climate","device":"device-1","topic":"devices/device-1/telemetry",` +
          `"time":1007,"receivedAt":2007,"data":{"ts":1007,"text":"ünï ' \\" 7"}}`,
      );
    });

    test("writes into whichever stream takes the subject when none is set", async () => {
      await addStream(server, stream);
      await using sink = await openSink(context, { stream: undefined, create: undefined });
      expect(await sink.write(makeBatch([0, 1]), never)).toEqual({ kind: "all" });
      const [message] = await readStream(server, stream);
      expect(message?.headers?.has("Nats-Expected-Stream")).toBe(false);
    });

    test("keeps the order, whatever is on its way at a time", async () => {
      const batch = makeBatch(Array.from({ length: 3_000 }, (_, offset) => offset));
      for (const inFlight of [1, 7, 4_096]) {
        const own = await openContext();
        await using sink = await openSink(own, { inFlight });
        expect(await sink.write(batch, never)).toEqual({ kind: "all" });
        expect(await readOffsets(server, streamOf(own))).toEqual(batch.entries.map(({ offset }) => offset));
      }
    });

    test("makes the stream as it is told to, once", async () => {
      const create = { subjects: [`${stream}.>`, `other-${stream}`], maxBytes: 1e6, maxAgeMs: 90_000 };
      await using _first = await openSink(context, { create: { ...create, duplicateWindowMs: 60_000 } });
      await using _second = await openSink(context, { create: { ...create, maxBytes: 2e6 } });
      const { config } = await (await manage(server)).streams.info(stream);
      expect(config).toMatchObject({
        subjects: [`${stream}.>`, `other-${stream}`],
        storage: "file",
        num_replicas: 1,
        max_bytes: 1e6,
        max_age: 90e9,
        duplicate_window: 60e9,
      });
    });

    test("adds nothing in a replay within the duplicate window, and once more after it", async () => {
      await using sink = await openSink(context);
      await sink.write(makeBatch([3, 4, 5]), never);
      const replay: Batch = { ...makeBatch([3, 4, 9]), replay: true };
      expect(await sink.write(replay, never)).toEqual({ kind: "all" });
      expect(await readOffsets(server, stream)).toEqual([3, 4, 5, 9]);
    });

    test("writes each device to one token of its own, and its name as it is into the message", async () => {
      const hostile = [
        "a.b",
        "a%2Eb",
        "*",
        ">",
        "",
        "a b",
        "\t\r\n",
        "PUB x 0\r\n\r\n",
        "\0",
        "$JS.API",
        "ünï\u{1f600}\u00a0",
      ];
      await using sink = await openSink(context);
      const entries = hostile.map((deviceId, offset) => {
        const entry = makeEntry(offset);
        return { ...entry, reading: { ...entry.reading, deviceId, topic: deviceId } };
      });
      const batch = { gateway: "gateway-1", entries, next: toOffset(entries.length) };
      expect(await sink.write(batch, never)).toEqual({ kind: "all" });
      const found = await readStream(server, stream);
      expect(found.map((message) => toDocument(message)["device"])).toEqual(hostile);
      const tokens = found.map(({ subject }) => subject.split(".").slice(2));
      expect(tokens.map(([token = ""]) => (token === "%" ? "" : decodeURIComponent(token)))).toEqual(hostile);
      expect(tokens.every(({ length }) => length === 1)).toBe(true);
      expect(tokens[0]).toEqual(["a%2Eb"]);
      expect(tokens[9]).toEqual(["%24JS%2EAPI"]);
    });

    test("keeps hostile values, 10,000 fields and no data at all", async () => {
      const fields = Object.fromEntries(Array.from({ length: 10_000 }, (_, index) => [`field-${index}`, index]));
      const data = [fields, {}, null, { text: "a\0b\r\nMSG \u{1f600}", lone: "\ud800", big: 2 ** 53 + 2 }];
      await using sink = await openSink(context);
      const entries = data.map((one, offset) => makeEntry(offset, one));
      expect(await sink.write({ gateway: "gateway-1", entries, next: toOffset(4) }, never)).toEqual({ kind: "all" });
      expect((await rows(context)).map((row) => row.data)).toEqual(data);
    });

    test("refuses only the entries whose data is not JSON, and writes nothing before", async () => {
      await using sink = await openSink(context);
      const entries = [makeEntry(0), makeEntry(1, { big: 1n }), makeEntry(2)];
      const written = await sink.write({ gateway: "gateway-1", entries, next: toOffset(3) }, never);
      expect(written).toEqual({
        kind: "except",
        refused: [{ offset: 1, reason: expect.stringContaining("BigInt") as string }],
      });
      expect(await rows(context)).toEqual([]);
    });
  });

  describe("the settings of the nats sink", () => {
    test.for([
      ["http://127.0.0.1", "nats://host:port"],
      ["nats://user:secret@127.0.0.1", "settings of their own"],
      ["nats://secret@127.0.0.1", "settings of their own"],
      ["nats://127.0.0.1/path", "host and port only"],
    ])("do not take the server %s", ([url, said]) => {
      expect(problemOf({ servers: [url] })).toContain(said);
      expect(problemOf({ servers: [url] })).not.toContain("secret");
    });

    test.for(["telemetry.{topic}", "a..b", ".a", "a.", "a b", "a.*", "a.>", "$JS.API.{device}", ""])(
      "do not take the subject %j",
      (subject) => expect(problemOf({ subject })).toBeDefined(),
    );

    test.for([
      [{ create: {} }, "stream"],
      [{ password: "x" }, "username"],
      [{ token: "x", nkey: "y" }, "one of"],
      [{ stream: "a.b" }, "white space"],
      [{ inboxPrefix: "a.>" }, "tokens"],
    ] as const)("do not take %j", ([given, said]) => expect(problemOf(given)).toContain(said));
  });
});
