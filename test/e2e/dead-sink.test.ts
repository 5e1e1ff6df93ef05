// P3, P4, P7: one of three sinks hangs, in a way that no signal ends, while devices send 5,000 messages a second. The others and the devices notice nothing, the gateway takes no memory for it, and afterwards it has everything, in order.

import { readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { env } from "node:process";
import { DatabaseSync } from "node:sqlite";
import { createClient } from "@redis/client";
import { expect, onTestFinished } from "vitest";
import { openLoad } from "../../bench/load-client.ts";
import type { LoadResult } from "../../bench/load-protocol.ts";
import { test } from "../fixtures.ts";
import { startRedis } from "../servers/redis.ts";
import { isInstalled } from "../servers/server.ts";
import { caughtUp } from "./observe.ts";
import { createOrderCheck, type Order } from "./order.ts";
import { quantile, watchGateway, type Seen } from "./watch.ts";

/** Three minutes, SLUICE_HANG_S=180, are for a person who wants to know. */
const HANG_S = Number(env["SLUICE_HANG_S"] ?? 20);
const WARMUP_MS = 15_000;
const BEFORE_MS = Math.max(15_000, (HANG_S * 1_000) / 3);
const load = { connections: 100, window: 64, payloadBytes: 150 };
const pace = { perSecond: 5_000, burst: 5, warmupMs: 0, drainMs: 15_000 };
const GROWS_LESS_THAN = 50 * 2 ** 20;

/** `hanging` is written by a user: it hangs while there is a file, in a way that no signal ends. */
const toConfig = (dir: string, redisUrl: string): string => `
import { appendFileSync, existsSync } from "node:fs";
import { defineGateway, defineSink, defineStream, json, redis, sqlite, tcp, z } from "sluice";
const hanging = defineSink({
  type: "hanging",
  settings: z.object({}),
  open: async () => ({
    async write({ entries }) {
      if (existsSync("${dir}/hang")) await new Promise(() => {});
      const lines = entries.map(({ reading }) => reading.deviceId + " " + reading.data.seq + "\\n");
      appendFileSync("${dir}/hanging", lines.join(""));
      return { kind: "all" };
    },
    async [Symbol.asyncDispose]() {},
  }),
});
const schema = z.looseObject({ ts: z.int(), seq: z.int(), metrics: z.record(z.string(), z.number()) });
export default defineGateway({
  listeners: [tcp()],
  streams: [defineStream({ name: "climate", topic: "devices/{device}/telemetry", codec: json, schema })],
  sinks: [sqlite({ path: "${dir}/sqlite.db" }), redis({ url: "${redisUrl}", maxLength: 10_000_000 }), hanging({ timeoutMs: 5_000 })],
});`;

test.skipIf(!isInstalled("redis-server"))(
  `a sink hangs for ${HANG_S} s under 5,000 messages a second: nobody else notices, and it has everything afterwards`,
  async ({ dir, start }) => {
    const server = await startRedis();
    onTestFinished(() => server[Symbol.asyncDispose]());
    const url = `redis://127.0.0.1:${server.port}`;
    const gateway = await start({ config: toConfig(dir, url), env: { SLUICE_LOG_LEVEL: "info" } });
    await using devices = await openLoad({ port: gateway.mqttPort, ...load }, new AbortController().signal);
    const send = (measureMs: number): Promise<LoadResult> => devices.pace({ ...pace, measureMs, pids: [gateway.pid] });
    const watch = watchGateway(gateway);

    const warm = await send(WARMUP_MS);
    await caughtUp(gateway);
    watch.take();
    const before = await send(BEFORE_MS);
    const seenBefore = watch.take();
    writeFileSync(join(dir, "hang"), "");
    const during = await send(HANG_S * 1_000);
    const seenDuring = watch.take();
    await watch.stop();
    expect(gateway.log.filter((line) => line["consumer"] !== "hanging" && line["state"] === "retrying")).toEqual([]);
    rmSync(join(dir, "hang"));
    await caughtUp(gateway);

    const sent = warm.sent + before.sent + during.sent;
    console.log(toTable({ before, during, seenBefore, seenDuring, sent }));
    const everything = { found: sent, repeated: 0, missing: 0 };
    expect(readSqlite(join(dir, "sqlite.db"))).toEqual(everything);
    expect(await readRedis(url)).toEqual(everything);
    // A worker that was ended may have written its last batch: at least once.
    expect(readLines(join(dir, "hanging"))).toMatchObject({ found: sent, missing: 0 });
    expect(quantile(seenDuring.rssBytes, 0.5) - quantile(seenBefore.rssBytes, 0.5)).toBeLessThan(GROWS_LESS_THAN);
  },
  600_000 + 10 * HANG_S * 1_000,
);

interface Figures {
  readonly before: LoadResult;
  readonly during: LoadResult;
  readonly seenBefore: Seen;
  readonly seenDuring: Seen;
  readonly sent: number;
}

const p99 = ({ lagSeconds }: Seen, sink: string): string =>
  `${quantile(lagSeconds.get(sink) ?? [], 0.99).toFixed(2)} s`;
const mib = ({ rssBytes }: Seen): string => `${(quantile(rssBytes, 0.5) / 2 ** 20).toFixed(0)} MiB`;

/** Timings are printed and not asserted: they depend on the machine. */
function toTable({ before, during, seenBefore, seenDuring, sent }: Figures): string {
  const rows = [
    ["", "before", "while it hangs"],
    ["PUBACK p50", `${before.pubackMs.p50.toFixed(1)} ms`, `${during.pubackMs.p50.toFixed(1)} ms`],
    ["PUBACK p99", `${before.pubackMs.p99.toFixed(1)} ms`, `${during.pubackMs.p99.toFixed(1)} ms`],
    ...["sqlite", "redis", "hanging"].map((sink) => [`lag p99 ${sink}`, p99(seenBefore, sink), p99(seenDuring, sink)]),
    ["RSS, median", mib(seenBefore), mib(seenDuring)],
    ["messages/s", toRate(before), toRate(during)],
  ];
  const lines = rows.map(([name = "", ...cells]) => name.padEnd(18) + cells.map((cell) => cell.padStart(16)).join(""));
  return [`a dead sink for ${HANG_S} s, ${sent} messages in all`, ...lines].join("\n");
}

const toRate = ({ messages, seconds }: LoadResult): string => (messages / seconds).toFixed(0);

function readSqlite(path: string): Order {
  using database = new DatabaseSync(path, { readOnly: true });
  const rows = database.prepare(`SELECT device, data ->> 'seq' AS seq FROM readings ORDER BY "offset"`);
  const check = createOrderCheck();
  for (const row of rows.iterate()) check.see(String(row["device"]), Number(row["seq"]));
  return check.order;
}

async function readRedis(url: string): Promise<Order> {
  const client = createClient({ url });
  await client.connect();
  const check = createOrderCheck();
  for (let from = "-"; ;) {
    const page = await client.xRange("telemetry:climate", from, "+", { COUNT: 10_000 });
    const last = page?.at(-1);
    if (last === undefined || page === null) break;
    for (const { message } of page) {
      const { seq } = JSON.parse(String(message["data"])) as { readonly seq: number };
      check.see(String(message["device"]), seq);
    }
    from = `(${last.id}`;
  }
  client.destroy();
  return check.order;
}

function readLines(path: string): Order {
  const check = createOrderCheck();
  for (const line of readFileSync(path, "utf8").split("\n").slice(0, -1)) {
    const [device = "", seq] = line.split(" ");
    check.see(device, Number(seq));
  }
  return check.order;
}
