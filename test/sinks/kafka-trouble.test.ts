// What may go wrong between the sink and a broker of its own, which is stopped, frozen and made to refuse.

import { spawn } from "node:child_process";
import { once } from "node:events";
import { createServer, type AddressInfo } from "node:net";
import { join } from "node:path";
import { execPath } from "node:process";
import { beforeEach, describe, expect, onTestFinished, test } from "vitest";
import { toOffset } from "../../src/reading.ts";
import { kafka } from "../../src/sinks/kafka.ts";
import type { Sink, SinkContext } from "../../src/sinks/sink.ts";
import { makeBatch, makeEntry, openContext } from "../contract/sink.ts";
import { apis, type ForwarderOptions } from "../servers/kafka-forwarder.ts";
import { startKafka, type KafkaServer } from "../servers/kafka.ts";
import { findPort, isInstalled } from "../servers/server.ts";

const never = new AbortController().signal;
const topic = "telemetry.climate";
const range = (from: number, to: number): readonly number[] => Array.from({ length: to - from }, (_, i) => from + i);
let context: SinkContext;

const openSink = ({ port }: { readonly port: number }, settings: Record<string, unknown> = {}): Promise<Sink> => {
  const { sink, given } = kafka({ brokers: [`127.0.0.1:${port}`], ...settings });
  return sink.open(sink.settings.parse(given), context);
};

async function start(options?: ForwarderOptions): Promise<KafkaServer> {
  const server = await startKafka(options);
  onTestFinished(() => server[Symbol.asyncDispose]());
  return server;
}

const startClient = (server: KafkaServer, what: string): ReturnType<typeof spawn> =>
  spawn(execPath, [join(import.meta.dirname, "kafka-client.ts"), String(server.port), what], {
    stdio: ["pipe", "pipe", "inherit"],
    timeout: 20_000,
  });

/** By device, in the order in which consumers get them. */
async function offsetsOf(server: KafkaServer): Promise<ReadonlyMap<string, readonly number[]>> {
  const devices = Map.groupBy(await server.read(topic), ({ key }) => key);
  return new Map([...devices].map(([device, records]) => [device, records.map(({ headers }) => Number(headers[3]))]));
}

const codes = {
  notLeader: 6,
  unknownTopic: 3,
  messageTooLarge: 10,
  notEnoughReplicas: 19,
  topicAuthorizationFailed: 29,
  invalidTimestamp: 32,
  unsupportedCompression: 76,
};

beforeEach(async () => {
  context = await openContext();
});

describe.skipIf(!isInstalled("kcat"))("the kafka sink and a broker that", () => {
  test.for([true, false])("is not there, with idempotent %s", async (idempotent) => {
    const port = await findPort();
    const refused = openSink({ port }, { idempotent });
    await expect(refused).rejects.toThrow(new RegExp(`^127.0.0.1:${port}: connect ECONNREFUSED 127.0.0.1:${port}\\.$`));
    await expect(refused).rejects.not.toHaveProperty("kind");
  });

  test("is one of two, of which the other is not there", async () => {
    const server = await start();
    await using sink = await openSink(server, {
      brokers: [`127.0.0.1:${await findPort()}`, `127.0.0.1:${server.port}`],
    });
    expect(await sink.write(makeBatch([0]), never)).toEqual({ kind: "all" });
  });

  test("is restarted, while nothing is written: the next write rejects", async () => {
    const server = await start();
    await using sink = await openSink(server);
    await sink.write(makeBatch([0]), never);
    await server.stop();
    await expect(sink.write(makeBatch([1]), never)).rejects.toThrow(`127.0.0.1:${server.port}: topic ${topic}: `);
    await server.start();
    await using again = await openSink(server);
    expect(await again.write(makeBatch([1]), never)).toEqual({ kind: "all" });
    expect(await offsetsOf(server)).toEqual(new Map([["device-1", [1]]]));
  });

  test.for([true, false])(
    "loses its connections in mid-write: everything is there, in order for each device, with idempotent %s",
    async (idempotent) => {
      const server = await start();
      const total = 3_000;
      const progress = { written: 0 };
      let opened = 0;
      while (progress.written < total) {
        try {
          await using sink = await openSink(server, { idempotent });
          opened += 1;
          for (; progress.written < total; progress.written += 50) {
            if (progress.written % 500 === 0 && opened < 1 + progress.written / 500) {
              server.forwarder.breakAfterProduce = true;
            }
            await sink.write(makeBatch(range(progress.written, progress.written + 50)), never);
          }
        } catch (cause) {
          if (!String(cause).includes(`127.0.0.1:${server.port}`)) throw cause;
        }
      }
      expect(opened > 5).toBe(!idempotent);
      for (const [device, offsets] of await offsetsOf(server)) {
        const first = Number(device.slice("device-".length));
        const unrepeated = offsets.filter((offset, index) => offsets.indexOf(offset) === index);
        expect(unrepeated).toEqual(range(0, total / 3).map((index) => first + 3 * index));
      }
    },
  );

  test(
    "is frozen: a write obeys its signal, nothing of it follows, and the sink can be closed",
    { timeout: 20_000 },
    async () => {
      const server = await start();
      const sink = await openSink(server);
      await sink.write(makeBatch([0]), never);
      server.freeze();
      const abort = new AbortController();
      // More than the system takes for a connection that nobody reads.
      const entries = [makeEntry(1, "x".repeat(20_000_000))];
      const written = sink.write({ gateway: "gateway-1", entries, next: toOffset(2) }, abort.signal);
      setImmediate(() => abort.abort(new Error("enough")));
      await expect(written).rejects.toThrow("enough");
      server.thaw();
      while (server.forwarder.clients.size > 0) await new Promise(setImmediate);
      expect(await offsetsOf(server)).toEqual(new Map([["device-0", [0]]]));
      await expect(sink[Symbol.asyncDispose]()).resolves.toBeUndefined();
    },
  );

  test("takes the connection and says nothing: opening ends", { timeout: 20_000 }, async () => {
    const silent = createServer().listen(0, "127.0.0.1");
    onTestFinished(() => void silent.close());
    await once(silent, "listening");
    const { port } = silent.address() as AddressInfo;
    await expect(openSink({ port })).rejects.toThrow(`127.0.0.1:${port}: it does not answer within 10 s.`);
  });

  test.for(["close", "abort"])("is frozen: nothing keeps the process alive, after %s", async (what) => {
    const server = await start();
    const client = startClient(server, what);
    const ended = once(client, "exit");
    await once(client.stdout ?? client, "data");
    server.freeze();
    client.stdin?.write("go\n");
    expect(await ended).toEqual([0, null]);
  });

  test("refuses the password and leaves the connection open: nothing keeps the process alive", async () => {
    const server = await start({ users: { writer: "secret" }, keepsConnections: true });
    expect(await once(startClient(server, "login"), "exit")).toEqual([0, null]);
  });

  test("takes records up to a size: a larger one is found by smaller batches, or at once when it is alone", async () => {
    const server = await start();
    server.forwarder.refuse = (bytes) => (bytes > 2_000 ? codes.messageTooLarge : undefined);
    await using sink = await openSink(server);
    const write = (...entries: readonly ReturnType<typeof makeEntry>[]): ReturnType<Sink["write"]> =>
      sink.write({ gateway: "gateway-1", entries, next: toOffset(10) }, never);
    const large = makeEntry(3, "x".repeat(2_000));
    const reason = expect.stringContaining("max.message.bytes") as string;
    expect(await write(makeEntry(0), large, makeEntry(6))).toEqual({ kind: "refused", reason });
    expect(await write(large)).toEqual({ kind: "except", refused: [{ offset: 3, reason }] });
    expect(await write(makeEntry(0), makeEntry(6))).toEqual({ kind: "all" });
    expect(await offsetsOf(server)).toEqual(new Map([["device-0", [0, 6]]]));
    const alone = makeEntry(9, "x".repeat(1_100_000));
    expect(await write(makeEntry(8), alone)).toEqual({ kind: "except", refused: [{ offset: 9, reason }] });
  });

  test("refuses a time: parked, with a hint", async () => {
    const server = await start();
    server.forwarder.refuse = () => codes.invalidTimestamp;
    await using sink = await openSink(server);
    expect(await sink.write(makeBatch([1]), never)).toEqual({
      kind: "except",
      refused: [{ offset: 1, reason: expect.stringContaining("message.timestamp") as string }],
    });
  });

  test.for([
    [codes.topicAuthorizationFailed, /topic telemetry\.climate: TOPIC_AUTHORIZATION_FAILED.*allowed to Write/],
    [codes.unsupportedCompression, /Give another compression/],
  ] as const)("answers with the code %d: misconfigured", async ([code, message]) => {
    const server = await start();
    server.forwarder.refuse = () => code;
    await using sink = await openSink(server);
    await expect(sink.write(makeBatch([0]), never)).rejects.toMatchObject({ kind: "misconfigured", message });
  });

  test.for([
    [codes.notLeader, /NOT_LEADER_OR_FOLLOWER/],
    [codes.notEnoughReplicas, /NOT_ENOUGH_REPLICAS.*min\.insync\.replicas/],
  ] as const)(
    "answers with the code %d: it may pass, and is asked again only by an idempotent producer",
    async ([code, message]) => {
      const server = await start();
      for (const idempotent of [true, false]) {
        await using sink = await openSink(server, { idempotent });
        server.forwarder.requests.clear();
        server.forwarder.refuse = () => code;
        const refused = sink.write(makeBatch([0]), never);
        await expect(refused).rejects.toThrow(message);
        await expect(refused).rejects.not.toHaveProperty("kind");
        expect(server.forwarder.requests.get(apis.produce) === 1).toBe(!idempotent);
        server.forwarder.refuse = undefined;
      }
    },
  );

  test("has no such topic: misconfigured when the sink is opened, at once or when it was not made in time", async () => {
    const server = await start();
    server.forwarder.topicError = codes.unknownTopic;
    for (const createTopics of [false, true]) {
      await expect(openSink(server, { createTopics })).rejects.toMatchObject({
        kind: "misconfigured",
        message: `127.0.0.1:${server.port}: topic ${topic}: Unknown topic ${topic}. Create the topic, or give another one as topic.`,
      });
    }
    const opening = openSink(server);
    server.forwarder.requests.clear();
    while ((server.forwarder.requests.get(apis.metadata) ?? 0) < 3) await new Promise(setImmediate);
    server.forwarder.topicError = undefined;
    await using sink = await opening;
    expect(await sink.write(makeBatch([0]), never)).toEqual({ kind: "all" });
  });
});
