// What may go wrong between the sink and a Redis of its own, which it kills, freezes and misconfigures.

import { stat, truncate } from "node:fs/promises";
import { join } from "node:path";
import { createClient } from "@redis/client";
import { afterAll, beforeAll, beforeEach, describe, expect, onTestFinished, test } from "vitest";
import { redis } from "../../src/sinks/redis.ts";
import type { Sink, SinkContext } from "../../src/sinks/sink.ts";
import { makeBatch, openContext } from "../contract/sink.ts";
import { startRedis } from "../servers/redis.ts";
import { findPort, isInstalled } from "../servers/server.ts";
import type { Server } from "../servers/server.ts";

const never = new AbortController().signal;
let server: Server;
let context: SinkContext;

const openSink = (settings: Record<string, unknown> = {}): Promise<Sink> => {
  const { sink, given } = redis({ url: `redis://127.0.0.1:${server.port}`, ...settings });
  return sink.open(sink.settings.parse(given), context);
};

/** Runs commands of Redis with a client of its own. */
async function run(...commands: readonly (readonly string[])[]): Promise<readonly unknown[]> {
  const client = createClient({ url: `redis://127.0.0.1:${server.port}` });
  client.on("error", () => {});
  await client.connect();
  onTestFinished(() => client.destroy());
  const replies: unknown[] = [];
  for (const command of commands) replies.push(await client.sendCommand(command));
  return replies;
}

async function offsets(): Promise<readonly number[]> {
  const [found] = await run(["XRANGE", "telemetry:climate", "-", "+"]);
  return (found as [id: string, fields: string[]][]).map(([, fields]) => Number(fields[3]));
}

describe.skipIf(!isInstalled("redis-server"))("the redis sink", () => {
  beforeAll(async () => {
    server = await startRedis();
  });
  afterAll(async () => {
    await server[Symbol.asyncDispose]();
  });
  beforeEach(async () => {
    context = await openContext();
    await run(["FLUSHALL"]);
  });

  test("writes again what a crash has cost the server, because its position went with it", async () => {
    await using sink = await openSink();
    await sink.write(makeBatch([0, 1]), never);
    const file = join(server.dir, "appendonlydir/appendonly.aof.1.incr.aof");
    const { size } = await stat(file);
    await sink.write(makeBatch([2, 3]), never);
    const after = await stat(file);
    for (const end of [after.size - 10, size + 10, size]) {
      await server.stop("SIGKILL");
      await truncate(file, end);
      await server.start();
      await using again = await openSink();
      expect([await again.position?.(), await offsets()]).toEqual([2, [0, 1]]);
    }
    await using again = await openSink();
    await again.write(makeBatch([2, 3]), never);
    expect(await offsets()).toEqual([0, 1, 2, 3]);
  });

  test("has no position when the server comes back empty", async () => {
    await using sink = await openSink();
    await sink.write(makeBatch([0, 1]), never);
    await run(["FLUSHALL"]);
    expect(await sink.position?.()).toBeUndefined();
    await sink.write(makeBatch([2]), never);
    expect([await sink.position?.(), await offsets()]).toEqual([3, [2]]);
  });

  test("calls wrong credentials misconfigured, and does not tell the password", async () => {
    await run(["ACL", "SETUSER", "writer", "on", ">secret", "~*", "+@all"]);
    await using _sink = await openSink({ username: "writer", password: "secret" });
    const refused = openSink({ username: "writer", password: "not-it" });
    await expect(refused).rejects.toMatchObject({ kind: "misconfigured", message: /WRONGPASS.*check username and/ });
    await expect(refused).rejects.not.toThrow("not-it");
  });

  test("calls a server misconfigured that wants a password and was given none", async () => {
    await run(["CONFIG", "SET", "requirepass", "secret"]);
    try {
      await using sink = await openSink();
      await expect(sink.position?.()).rejects.toMatchObject({ kind: "misconfigured", message: /NOAUTH.*give/ });
      await using known = await openSink({ password: "secret" });
      expect(await known.position?.()).toBeUndefined();
    } finally {
      const client = createClient({ url: `redis://127.0.0.1:${server.port}`, password: "secret" });
      await client.connect();
      await client.sendCommand(["CONFIG", "SET", "requirepass", ""]);
      client.destroy();
    }
  });

  test.for(["+xadd", "+hset", "+hget", "+type", "+eval"])("writes nothing at all without %s", async (right) => {
    const rights = ["+eval", "+hget", "+hset", "+type", "+xadd"].filter((one) => one !== right);
    await run(["ACL", "SETUSER", "poor", "reset", "on", ">x", "~*", ...rights]);
    await using sink = await openSink({ username: "poor", password: "x" });
    for (let attempt = 0; attempt < 2; attempt += 1) {
      await expect(sink.write(makeBatch([0, 1]), never)).rejects.toMatchObject({ kind: "misconfigured" });
    }
    const [length, type] = await run(["XLEN", "telemetry:climate"], ["TYPE", "telemetry:climate"]);
    expect([length, type]).toEqual([0, "none"]);
    await run(["ACL", "SETUSER", "poor", right]);
    expect(await sink.write(makeBatch([0, 1]), never)).toEqual({ kind: "all" });
    expect(await offsets()).toEqual([0, 1]);
  });

  test("writes nothing of a batch of which one key is no stream, and names the key", async () => {
    await run(["SET", "telemetry:device-2", "text"]);
    await using sink = await openSink({ key: "telemetry:{device}" });
    await expect(sink.write(makeBatch([0, 1, 2]), never)).rejects.toMatchObject({
      kind: "misconfigured",
      message: /WRONGTYPE telemetry:device-2 is a string and no stream/,
    });
    expect(await run(["XLEN", "telemetry:device-0"], ["HLEN", "sluice:cursor"])).toEqual([0, 0]);
  });

  test("waits for a server that is out of memory, and writes nothing of the batch before", async () => {
    await using sink = await openSink();
    await sink.write(makeBatch([0]), never);
    await run(["CONFIG", "SET", "maxmemory", "1"]);
    const full = sink.write(makeBatch([1, 2]), never);
    await expect(full).rejects.toThrow(/OOM.*raise its maxmemory/);
    await expect(full).rejects.not.toHaveProperty("kind");
    await run(["CONFIG", "SET", "maxmemory", "0"]);
    await sink.write(makeBatch([1, 2]), never);
    expect(await offsets()).toEqual([0, 1, 2]);
  });

  test("waits for a replica to become the primary", async () => {
    await using sink = await openSink();
    await run(["REPLICAOF", "127.0.0.1", String(await findPort())]);
    const refused = sink.write(makeBatch([0]), never);
    await expect(refused).rejects.toThrow(/READONLY.*primary/);
    await expect(refused).rejects.not.toHaveProperty("kind");
    await run(["REPLICAOF", "NO", "ONE"]);
    expect(await sink.write(makeBatch([0]), never)).toEqual({ kind: "all" });
  });

  test("calls a database that is not there misconfigured", async () => {
    await expect(openSink({ database: 1_000 })).rejects.toMatchObject({ kind: "misconfigured" });
  });

  test.for([
    ["http://127.0.0.1", "redis://host:port"],
    ["redis://user:secret@127.0.0.1", "username, password and"],
    ["redis://:secret@127.0.0.1", "username, password and"],
    ["redis://127.0.0.1/3", "database"],
  ])("does not take the url %s", ([url, said]) => {
    const { error } = redis().sink.settings.safeParse({ url });
    expect(error?.message).toContain(said);
    expect(error?.message).not.toContain("secret");
  });

  test("does not take a template with an unknown name", () => {
    expect(redis().sink.settings.safeParse({ key: "telemetry:{topic}" }).error?.message).toContain("{stream}");
  });
});
