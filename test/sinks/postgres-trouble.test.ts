// What may go wrong between the sink and a PostgreSQL of its own, which it kills, freezes and locks.

import { once } from "node:events";
import { connect, createServer } from "node:net";
import type { Socket } from "node:net";
import { afterAll, beforeAll, beforeEach, describe, expect, onTestFinished, test } from "vitest";
import { toOffset } from "../../src/reading.ts";
import type { Sink, SinkContext } from "../../src/sinks/sink.ts";
import { describeSink, makeBatch, openContext } from "../contract/sink.ts";
import { hasPostgres, startPostgres } from "../servers/postgres.ts";
import { findPort } from "../servers/server.ts";
import type { Server } from "../servers/server.ts";
import { createDatabases, type Databases } from "./postgres-database.ts";

const never = new AbortController().signal;
let server: Server;
let databases: Databases;
let context: SinkContext;

const open = (settings: object = {}, as: Partial<SinkContext> = {}): Promise<Sink> =>
  databases.openSink({ ...context, ...as }, { ...settings });
const ask = (text: string): ReturnType<Databases["ask"]> => databases.ask(context, text);
const offsets = (): Promise<readonly number[]> => databases.offsets(context);
const range = (from: number, to: number): readonly number[] => Array.from({ length: to - from }, (_, i) => from + i);

/** A transaction of somebody else that holds what `text` locks until it is called. */
async function hold(text: string): Promise<() => Promise<void>> {
  const client = await databases.connect(context);
  onTestFinished(() => client.end());
  await client.query(`BEGIN; ${text}`);
  return async () => void (await client.query("ROLLBACK"));
}

/** Resolves when so many transactions wait for a lock. */
async function waiting(count = 1): Promise<void> {
  while ((await ask("SELECT 1 FROM pg_locks WHERE NOT granted")).length < count);
}

describe.skipIf(!hasPostgres())("the postgres sink", () => {
  beforeAll(async () => {
    server = await startPostgres({ settings: ["max_connections=20"] });
    databases = createDatabases(server);
  });
  afterAll(async () => {
    await server[Symbol.asyncDispose]();
  });
  beforeEach(async () => {
    context = await openContext();
  });

  describeSink("postgres", {
    open: (of) => databases.openSink(of),
    rows: (of) => databases.readings(of),
    once: "exactly",
    parks: ["NUL", "lone surrogates"],
    server: () => server,
    openAt: (of, { host, port }) => databases.openSink(of, { host, port }),
    survives: "SIGKILL",
  });

  describe("when the server goes away", () => {
    test("says which server is not there", async () => {
      const port = await findPort();
      const refused = open({ port, password: "secret" });
      await expect(refused).rejects.toMatchObject({ kind: "transient" });
      await expect(refused).rejects.toThrow(new RegExp(`127.0.0.1:${port}, database test_\\d+: connect ECONNREFUSED`));
      await expect(open({ host: context.dataDir })).rejects.toThrow(`${context.dataDir}, port`);
    });

    test("has every reading exactly once, however often the server is killed in mid-write", async () => {
      const total = 40_000;
      const size = 1_000;
      let opened = 0;
      const killed = Promise.withResolvers<void>();
      const ended = new AbortController();
      onTestFinished(() => ended.abort());
      const writing = (async () => {
        for (;;) {
          try {
            await using sink = await open();
            opened += 1;
            let from = Number((await sink.position?.()) ?? 0);
            while (from < total) {
              await sink.write(makeBatch(range(from, from + size)), never);
              from += size;
              // The last one waits for the last kill.
              if (from === total - size) await killed.promise;
            }
            return;
          } catch (cause) {
            if (ended.signal.aborted || !String(cause).includes("127.0.0.1")) throw cause;
          }
        }
      })();
      const written = async (): Promise<number> => (await offsets().catch(() => [])).length;
      for (let kill = 1; kill <= 4; kill += 1) {
        while ((await written()) < kill * 8_000);
        await server.stop("SIGKILL");
        await server.start();
      }
      killed.resolve();
      await writing;
      expect(opened).toBeGreaterThan(4);
      expect(await offsets()).toEqual(range(0, total));
    });

    test("writes nothing of a batch of which the server got a part only", async () => {
      await using proxy = await openProxy();
      await using sink = await open({ port: proxy.port });
      await sink.write(makeBatch([0]), never);
      proxy.passFurther(200_000);
      await expect(sink.write(makeBatch(range(1, 5_000)), never)).rejects.toThrow(`127.0.0.1:${proxy.port}`);
      expect(await offsets()).toEqual([0]);
      await using again = await open();
      expect(await again.position?.()).toBe(1);
      await again.write(makeBatch(range(1, 5_000)), never);
      expect(await offsets()).toEqual(range(0, 5_000));
    });

    test("is told of a batch again that was committed when only the answer was lost", async () => {
      await using proxy = await openProxy();
      await using sink = await open({ port: proxy.port });
      await sink.write(makeBatch([0]), never);
      proxy.passNoAnswer();
      await expect(sink.write(makeBatch([1, 2]), never)).rejects.toThrow(`127.0.0.1:${proxy.port}`);
      expect(await offsets()).toEqual([0, 1, 2]);
      await using again = await open();
      expect(await again.position?.()).toBe(3);
    });
  });

  describe("beside another writer of the same position", () => {
    test("does not write after one that was faster, and goes on where that one was", async () => {
      await using old = await open();
      await using young = await open();
      await young.write(makeBatch([0, 1]), never);
      await expect(old.write(makeBatch([0, 1, 2]), never)).rejects.toMatchObject({
        kind: "transient",
        message: /127\.0\.0\.1.*Another writer has moved/,
      });
      await young.write(makeBatch([2, 3]), never);
      expect(await offsets()).toEqual([0, 1, 2, 3]);
      await using again = await open();
      expect(await again.position?.()).toBe(4);
    });

    test("waits for one whose transaction is still under way, and does not write what that one has", async () => {
      await using old = await open();
      await old.write(makeBatch([0]), never);
      // Holds the old one's transaction back behind the position, which it has moved already.
      const release = await hold("LOCK TABLE readings_p19700101 IN EXCLUSIVE MODE");
      const late = old.write(makeBatch([1, 2], 3), never);
      await waiting(1);
      await using young = await open();
      expect(await young.position?.()).toBe(1);
      const refused = young.write(makeBatch([1, 2, 3, 4]), never).catch(String);
      await waiting(2);
      await release();
      expect(await late).toEqual({ kind: "all" });
      expect(await refused).toContain("Another writer has moved");
      await using again = await open();
      expect(await again.position?.()).toBe(3);
      await again.write(makeBatch([3, 4]), never);
      expect(await offsets()).toEqual([0, 1, 2, 3, 4]);
    });

    test("has each reading once when several race", async () => {
      const total = 400;
      async function race(): Promise<void> {
        for (;;) {
          await using sink = await open();
          let from = Number((await sink.position?.()) ?? 0);
          try {
            while (from < total) {
              await sink.write(makeBatch(range(from, from + 20)), never);
              from += 20;
            }
            return;
          } catch (cause) {
            if (!String(cause).includes("Another writer")) throw cause;
          }
        }
      }
      await using _tables = await open();
      await Promise.all([race(), race(), race()]);
      expect(await offsets()).toEqual(range(0, total));
      expect(await ask("SELECT * FROM sluice_cursor")).toMatchObject([{ offset: String(total) }]);
    });

    test("says that a lock is held, and leaves nothing waiting in the server", async () => {
      await using sink = await open();
      await sink.write(makeBatch([0]), never);
      const release = await hold("LOCK TABLE readings IN EXCLUSIVE MODE");
      await expect(sink.write(makeBatch([1]), never)).rejects.toMatchObject({
        kind: "transient",
        message: /lock timeout.*Another transaction holds a lock/,
      });
      expect(await ask("SELECT 1 FROM pg_locks WHERE NOT granted")).toEqual([]);
      await release();
      expect(await sink.write(makeBatch([1]), never)).toEqual({ kind: "all" });
    }, 30_000);
  });

  describe("when a person has to mend something", () => {
    test("names a database that does not exist", async () => {
      await expect(open({ database: "none" })).rejects.toMatchObject({
        kind: "misconfigured",
        message: /database none: .*does not exist\. Make the database/,
      });
    });

    test("names a schema that does not exist", async () => {
      await expect(open({ schema: "none" })).rejects.toMatchObject({
        kind: "misconfigured",
        message: /Make the schema/,
      });
    });

    test("says which rights it needs to make tables, and needs none to write into those that are there", async () => {
      await ask(`REVOKE CREATE ON SCHEMA public FROM PUBLIC; DROP ROLE IF EXISTS writer; CREATE ROLE writer LOGIN`);
      onTestFinished(() => ask("DROP OWNED BY writer; DROP ROLE writer").then(() => {}));
      const asWriter = (): Promise<Sink> => open({ user: "writer" });
      await expect(asWriter()).rejects.toMatchObject({ kind: "misconfigured", message: /permission denied.*CREATE/ });
      await using owner = await open({}, { gateway: "gateway-2" });
      await owner.write(makeBatch([0], 1, "gateway-2"), never);
      await expect(asWriter()).rejects.toMatchObject({ kind: "misconfigured", message: /sluice_cursor.*SELECT/ });
      await ask("GRANT SELECT, INSERT, UPDATE ON sluice_cursor TO writer; GRANT SELECT, INSERT ON readings TO writer");
      await using sink = await asWriter();
      expect(await sink.write(makeBatch([1]), never)).toEqual({ kind: "all" });
      expect(await sink.write({ ...makeBatch([1, 2]), replay: true }, never)).toEqual({ kind: "all" });
      expect(await offsets()).toEqual([0, 1, 2]);
      const entries = makeBatch([3]).entries.map((entry) => ({
        ...entry,
        reading: { ...entry.reading, receivedAt: 1e12 },
      }));
      const batch = { gateway: "gateway-1", entries, next: toOffset(4) };
      await expect(sink.write(batch, never)).rejects.toMatchObject({
        kind: "misconfigured",
        message: /CREATE on the schema/,
      });
    });

    test("names a table that is somebody else's", async () => {
      await ask("CREATE TABLE readings (id int)");
      await expect(open()).rejects.toMatchObject({
        kind: "misconfigured",
        message: /readings there has no column.*schema of its own/,
      });
    });

    test("does not write numbers into a column that is no time", async () => {
      {
        await using _sink = await open({ partition: "none" });
      }
      await ask("ALTER TABLE readings ALTER COLUMN time TYPE bigint USING 0");
      await expect(open()).rejects.toMatchObject({ kind: "misconfigured", message: /column time/ });
    });

    test("makes tables again that were deleted", async () => {
      await using sink = await open();
      await sink.write(makeBatch([0]), never);
      await ask("DROP TABLE readings, sluice_cursor");
      await expect(sink.write(makeBatch([1]), never)).rejects.toMatchObject({ message: /does not exist/ });
      await using again = await open();
      expect(await again.position?.()).toBeUndefined();
      await again.write(makeBatch([1]), never);
      expect(await offsets()).toEqual([1]);
    });

    test("names the partition of a day that was detached and kept", async () => {
      await using sink = await open();
      await sink.write(makeBatch([0]), never);
      await ask("ALTER TABLE readings DETACH PARTITION readings_p19700101");
      await expect(sink.write(makeBatch([1]), never)).rejects.toMatchObject({
        kind: "misconfigured",
        message: /no partition.*attach/,
      });
    });

    test("waits for a server that is read-only, or has no connection left", async () => {
      await ask("CREATE ROLE reader LOGIN SUPERUSER; ALTER ROLE reader SET default_transaction_read_only = on");
      await ask("CREATE ROLE single LOGIN CONNECTION LIMIT 0");
      onTestFinished(() => ask("DROP ROLE reader; DROP ROLE single").then(() => {}));
      await expect(open({ user: "reader" })).rejects.toMatchObject({ kind: "transient", message: /primary/ });
      await expect(open({ user: "single" })).rejects.toMatchObject({ kind: "transient", message: /max_connections/ });
    });
  });
});

interface Proxy extends AsyncDisposable {
  readonly port: number;
  /** Both sides are cut when the sink has sent so many more bytes. */
  passFurther(bytes: number): void;
  /** Both sides are cut with the server's next answer, which is not passed on. */
  passNoAnswer(): void;
}

/** Between the sink and the server. */
async function openProxy(): Promise<Proxy> {
  let left = Number.POSITIVE_INFINITY;
  let answers = true;
  const sockets = new Set<Socket>();
  const listener = createServer((near) => {
    const far = connect(server.port, server.host);
    const cut = (): void => {
      near.destroy();
      far.destroy();
    };
    for (const socket of [near, far]) {
      sockets.add(socket);
      socket.on("error", () => {}).on("close", cut);
    }
    near.on("data", (bytes: Buffer) => {
      far.write(bytes.subarray(0, Math.min(bytes.length, left)), () => {
        if (left <= 0) cut();
      });
      left -= bytes.length;
    });
    far.on("data", (bytes: Buffer) => {
      // ReadyForQuery comes when the transaction is committed.
      if (answers) near.write(bytes);
      else if (bytes.at(-6) === 0x5a) cut();
    });
  }).listen(0, "127.0.0.1");
  await once(listener, "listening");
  return {
    port: (listener.address() as { readonly port: number }).port,
    passFurther: (bytes) => void (left = bytes),
    passNoAnswer: () => void (answers = false),
    async [Symbol.asyncDispose]() {
      for (const socket of sockets) socket.destroy();
      listener.close();
      await once(listener, "close");
    },
  };
}
