// What an operator does with a gateway that runs, or that does not: the commands as processes, beside it.

import { readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { execPath } from "node:process";
import { setTimeout as delay } from "node:timers/promises";
import { describe, expect } from "vitest";
import { type GatewayProcess, test } from "../fixtures.ts";
import { findPort } from "../servers/server.ts";
import { readRows } from "./rows.ts";
import { type Finished, run } from "./tools.ts";

const launcher = join(import.meta.dirname, "../../bin/sluice.js");

/** One command, as a person gives it. */
const sluice = (...args: readonly string[]): Promise<Finished> => run(execPath, [launcher, ...args]).finished;

const toLines = (text: string): readonly Record<string, unknown>[] =>
  text
    .split("\n")
    .filter((line) => line !== "")
    .map((line) => JSON.parse(line) as Record<string, unknown>);

interface Written {
  readonly dataDir: string;
  readonly httpPort: number;
  /** The text of a configuration with a stream `climate` that takes `value` as `schema` says. */
  readonly config: (schema: string, more: string) => string;
}

async function write(dir: string): Promise<Written> {
  const dataDir = join(dir, "data");
  const httpPort = await findPort();
  const place = `dataDir: ${JSON.stringify(dataDir)}, http: { port: ${httpPort} }`;
  return {
    dataDir,
    httpPort,
    config: (schema, more) => `import { appendFileSync, existsSync } from "node:fs";
      import { defineGateway, defineSink, defineStream, json, on, sqlite, z } from "sluice";
      const dir = ${JSON.stringify(dir)};
      const climate = defineStream({ name: "climate", topic: "devices/{device}/telemetry", codec: json, schema: z.object({ value: ${schema} }) });
      export default defineGateway({ ${place}, streams: [climate], ${more} });`,
  };
}

/** A sink that refuses values of 13 and more until a file is there, and notes what it is given. */
const picky = `sinks: [defineSink({ type: "picky", settings: z.object({}), open: async () => ({
  async write({ gateway, entries, replay }) {
    const bad = entries.filter(({ reading }) => reading.data.value >= 13 && !existsSync(dir + "/mended"));
    if (bad.length > 0) return { kind: "except", refused: bad.map(({ offset }) => ({ offset, reason: "unlucky" })) };
    for (const { offset, reading } of entries) appendFileSync(dir + "/out", [offset, reading.data.value, replay === true].join() + "\\n");
    return { kind: "all" };
  },
  async [Symbol.asyncDispose]() {} }) })()]`;
const database = (dir: string): string =>
  `sinks: [sqlite({ path: ${JSON.stringify(join(dir, "data/telemetry.db"))} })]`;

interface Publisher {
  publishAsync(topic: string, payload: string, options: { qos: 1 }): Promise<unknown>;
}
const publish = async (client: Publisher, ...values: readonly unknown[]): Promise<void> => {
  for (const value of values) await client.publishAsync("devices/d1/telemetry", JSON.stringify({ value }), { qos: 1 });
};

async function until(condition: () => boolean | Promise<boolean>): Promise<void> {
  while (!(await condition())) await delay(50);
}

describe("sluice parked", () => {
  test("lists, shows, retries and drops what a sink refuses, while the gateway runs", async ({
    dir,
    start,
    connect,
  }) => {
    const { dataDir, httpPort, config } = await write(dir);
    const file = `${dataDir}.config.ts`;
    const gateway = await start({ config: config("z.number()", picky), env: { SLUICE_HTTP_PORT: String(httpPort) } });
    expect(await sluice("parked", "list", file)).toMatchObject({
      code: 0,
      stdout: "",
      stderr: `nothing is parked in ${dataDir}\n`,
    });
    await publish(await connect(gateway), 1, 13, 14, 2);
    await gateway.waitForLog(({ msg }) => msg?.includes("parked, from offset 1") === true);
    await until(async () => (await sluice("parked", "list", "--json", file)).stdout.split("\n").length === 3);
    const listed = await sluice("parked", "list", "--sink", "picky", file);
    expect(listed.stdout).toMatch(/Z {2}picky {2}offset 1 {2}climate {2}d1 {2}1 attempt {2}unlucky\n/);
    const shown = await sluice("parked", "show", "--json", "--offset", "2", file);
    expect(toLines(shown.stdout)).toMatchObject([
      { sink: "picky", offset: 2, payload: '{"value":14}', error: "unlucky", qos: 1 },
    ]);

    expect(await sluice("parked", "retry", file)).toMatchObject({ code: 2, stderr: expect.stringContaining("which?") });
    expect(await sluice("parked", "retry", "--offset", "9", file)).toMatchObject({ code: 1 });
    const inVain = await sluice("parked", "retry", "--all", file);
    expect(inVain).toMatchObject({
      code: 1,
      stdout: expect.stringContaining("picky  offset 1  still parked: unlucky"),
    });
    expect(inVain.stdout).toContain("0 parked records taken, 2 left");

    writeFileSync(join(dir, "mended"), "");
    expect(await sluice("parked", "retry", "--offset", "1", file)).toMatchObject({
      code: 0,
      stdout: "1 parked record taken, 0 left\n",
    });
    expect(readFileSync(join(dir, "out"), "utf8").split("\n")).toContain("1,13,true");
    expect(await sluice("parked", "drop", "--all", file)).toMatchObject({
      code: 0,
      stdout: "dropped 1 parked record\n",
    });
    expect((await sluice("parked", "list", file)).stderr).toBe("nothing is parked\n");
  });

  test("is done at the next start when no gateway runs, by the schema of then", async ({ dir, start, connect }) => {
    const { dataDir, httpPort, config } = await write(dir);
    const env = { SLUICE_HTTP_PORT: String(httpPort) };
    const file = `${dataDir}.config.ts`;
    const first = await start({ config: config("z.any()", "sinks: []"), env });
    await publish(await connect(first), 1, "two", 3);
    await first.end("SIGKILL");
    const second = await start({ config: config("z.number()", database(dir)), env });
    expect((await readRows(second, 2)).map(({ offset }) => offset)).toEqual([0, 2]);
    await second.end("SIGKILL");
    const asked = await sluice("parked", "retry", "--all", file);
    expect(asked).toMatchObject({ code: 0, stderr: expect.stringContaining("at its next start") });
    const third = await start({ config: config("z.union([z.number(), z.string()])", database(dir)), env });
    expect((await readRows(third, 3)).map(({ offset, data }) => [offset, data])).toEqual([
      [0, '{"value":1}'],
      [1, '{"value":"two"}'],
      [2, '{"value":3}'],
    ]);
    await until(async () => (await sluice("parked", "list", "--json", file)).stdout === "");
  });

  test("calls a handler again", async ({ dir, start, connect }) => {
    const { dataDir, httpPort, config } = await write(dir);
    const file = `${dataDir}.config.ts`;
    const handler = `handlers: [on(climate, ({ offset }) => {
      if (!existsSync(dir + "/mended")) throw new Error("not yet");
      appendFileSync(dir + "/out", offset + "\\n");
    })]`;
    const gateway = await start({ config: config("z.number()", handler), env: { SLUICE_HTTP_PORT: String(httpPort) } });
    await publish(await connect(gateway), 1);
    await gateway.waitForLog(({ msg }) => msg?.includes("parked, from offset 0") === true);
    writeFileSync(join(dir, "mended"), "");
    expect(await sluice("parked", "retry", "--all", file)).toMatchObject({ code: 0 });
    expect(readFileSync(join(dir, "out"), "utf8")).toBe("0\n");
  });
});

describe("sluice rejects", () => {
  test("journals what passes by the schema of a later start, under its original time, once", async ({
    dir,
    start,
    connect,
  }) => {
    const { dataDir, httpPort, config } = await write(dir);
    const env = { SLUICE_HTTP_PORT: String(httpPort) };
    const file = `${dataDir}.config.ts`;
    const first = await start({ config: config("z.number()", database(dir)), env });
    await publish(await connect(first, { clientId: "d1" }), 1, "two", true);
    await until(async () => (await sluice("rejects", "list", "--json", file)).stdout.split("\n").length === 3);
    const listed = toLines((await sluice("rejects", "list", "--json", file)).stdout);
    expect(listed).toMatchObject([
      { offset: 1, reason: "invalid", client: "d1", issues: [{ path: "value" }] },
      { offset: 2, reason: "invalid" },
    ]);
    expect((await sluice("rejects", "retry", "--all", file)).code).toBe(1);
    expect(await first.end("SIGTERM")).toBe(0);

    const second = await start({ config: config("z.union([z.number(), z.string()])", database(dir)), env });
    const retried = await sluice("rejects", "retry", "--all", file);
    expect(retried).toMatchObject({ code: 1, stdout: expect.stringContaining("1 rejected message taken, 1 left") });
    expect(retried.stdout).toContain("offset 2  still rejected: invalid: value: ");
    expect((await readRows(second, 2)).map(({ offset, data }) => [offset, data])).toEqual([
      [0, '{"value":1}'],
      [3, '{"value":"two"}'],
    ]);
    using db = new DatabaseSync(join(dataDir, "telemetry.db"), { readOnly: true });
    const { at } = db.prepare("SELECT received_at AS at FROM readings WHERE offset = 3").get() as { at: number };
    expect(new Date(at).toISOString()).toBe(listed[0]?.["receivedAt"]);
    const { text } = await second.fetch("/metrics");
    expect(text).toContain('gateway_messages_received_total{qos="1"} 1');
    expect(text).toContain('gateway_messages_accepted_total{stream="climate"} 1');
    expect(text).not.toContain('sink="rejects"');
    expect(JSON.parse((await second.fetch("/")).text)).toMatchObject({
      consumers: [{ name: "sqlite" }, { name: "rejects", kind: "inbox" }],
    });
    expect(await sluice("rejects", "drop", "--offset", "2", file)).toMatchObject({ code: 0 });
    expect((await sluice("rejects", "list", file)).stderr).toBe("no rejected message is kept\n");
  });
});

describe("sluice replay", () => {
  const retain = "journal: { retain: { time: 3_600_000 } }";

  test("writes once more what a sink has lost, beside live delivery, and leaves its position", async ({
    dir,
    start,
    connect,
  }) => {
    const { dataDir, httpPort, config } = await write(dir);
    const file = `${dataDir}.config.ts`;
    const gateway = await start({
      config: config("z.number()", `${retain}, ${database(dir)}`),
      env: { SLUICE_HTTP_PORT: String(httpPort) },
    });
    const device = await connect(gateway, { clientId: "d1" });
    const values = Array.from({ length: 200 }, (_, value) => value);
    await Promise.all(values.map((value) => publish(device, value)));
    await readRows(gateway, 200);
    const path = join(dataDir, "telemetry.db");
    const state = (): unknown => {
      using db = new DatabaseSync(path);
      return db.prepare(`SELECT "offset" FROM sluice_cursor`).all();
    };
    await until(async () => statusOf(await gateway.fetch("/"), "sqlite")["durable"] === 200);
    {
      using db = new DatabaseSync(path);
      db.exec("DELETE FROM readings WHERE offset < 150");
    }
    const live = (async () => {
      for (let value = 200; value < 260; value += 1) await publish(device, value);
    })();
    expect(
      await sluice("replay", "--sink", "sqlite", "--from", "100", "--to", "180", "--rate", "100", file),
    ).toMatchObject({
      code: 0,
      stderr: expect.stringMatching(/80 records written to sqlite/),
    });
    await live;
    expect((await readRows(gateway, 160)).map(({ offset }) => offset)).toEqual([
      ...values.slice(100),
      ...range(200, 260),
    ]);
    await until(() => JSON.stringify(state()).includes("260"));
    expect(await sluice("replay", "--sink", "sqlite", "--from", "-1h", file)).toMatchObject({ code: 0 });
    expect((await readRows(gateway, 260)).map(({ offset }) => offset)).toEqual(range(0, 260));
    expect(state()).toEqual([{ offset: 260 }]);
    expect(await sluice("replay", "--sink", "sqlite", "--from", "260", file)).toMatchObject({
      code: 0,
      stderr: expect.stringContaining("nothing to replay"),
    });
    expect(await sluice("replay", "--sink", "other", "--from", "0", file)).toMatchObject({
      code: 2,
      stderr: `${file} has no sink named other; its sinks: sqlite\n`,
    });
  });
});

test("a replay that is interrupted ends in order, says where to go on, and leaves the sink's position", async ({
  dir,
  start,
  connect,
}) => {
  const { dataDir, httpPort, config } = await write(dir);
  const file = `${dataDir}.config.ts`;
  const sinks = `journal: { retain: { time: 3_600_000 } }, ${database(dir).replace("]", `, sqlite({ name: "copy", path: dir + "/data/copy.db" })]`)}`;
  const gateway = await start({ config: config("z.number()", sinks), env: { SLUICE_HTTP_PORT: String(httpPort) } });
  const device = await connect(gateway, { clientId: "d1" });
  await Promise.all(range(0, 300).map((value) => publish(device, value)));
  await until(async () => statusOf(await gateway.fetch("/"), "copy")["durable"] === 300);
  expect(await gateway.end("SIGTERM")).toBe(0);
  using db = new DatabaseSync(join(dataDir, "copy.db"));
  db.exec("DELETE FROM readings");
  const offsets = (): readonly unknown[] =>
    db
      .prepare("SELECT offset FROM readings ORDER BY offset")
      .all()
      .map(({ offset }) => offset);

  const { child, finished } = run(execPath, [
    launcher,
    "replay",
    "--sink",
    "copy",
    "--from",
    "0",
    "--rate",
    "20",
    file,
  ]);
  await until(() => offsets().length > 0);
  child.kill("SIGINT");
  const { code, stderr } = await finished;
  expect({ code, stderr }).toMatchObject({
    code: 130,
    stderr: expect.stringContaining("stopping after the batch in hand"),
  });
  const next = Number(/to go on: --from (\d+)\n$/.exec(stderr)?.[1]);
  expect(next).toBeGreaterThan(0);
  expect(next).toBeLessThan(300);
  expect(stderr).toContain(`${next} records written to copy in `);
  expect(offsets()).toEqual(range(0, next));
  expect(db.prepare("SELECT offset FROM sluice_cursor").all()).toEqual([{ offset: 300 }]);

  expect(await sluice("replay", "--sink", "copy", "--from", String(next), file)).toMatchObject({ code: 0 });
  expect(offsets()).toEqual(range(0, 300));
  expect(await sluice("replay", "--sink", "copy", "--from", "5", "--to", "4", file)).toMatchObject({ code: 2 });
});

const range = (from: number, to: number): readonly number[] => Array.from({ length: to - from }, (_, i) => from + i);

function statusOf({ text }: { readonly text: string }, name: string): Readonly<Record<string, unknown>> {
  const { consumers } = JSON.parse(text) as { consumers: readonly Readonly<Record<string, unknown>>[] };
  return consumers.find((one) => one["name"] === name) ?? {};
}

describe("sluice sinks", () => {
  test("tells how they are, and lets the journal go for one that is gone for good", async ({ dir, start, connect }) => {
    const { dataDir, httpPort, config } = await write(dir);
    const env = { SLUICE_HTTP_PORT: String(httpPort) };
    const file = `${dataDir}.config.ts`;
    const two = `sinks: [sqlite({ path: dir + "/data/telemetry.db" }), sqlite({ name: "dead", path: dir })]`;
    const first = await start({ config: config("z.number()", two), env });
    await publish(await connect(first), 1, 2, 3);
    await readRows(first, 3);
    await until(async () => statusOf(await first.fetch("/"), "dead")["state"] === "misconfigured");
    const listed = await sluice("sinks", file);
    expect(listed).toMatchObject({ code: 0, stderr: "" });
    expect(listed.stdout).toMatch(/^NAME +KIND +STATE +LAG /);
    expect(listed.stdout).toMatch(/\ndead +sink +misconfigured +3 .*\n {2}last error: .*unable to open database file/);
    expect(await sluice("sinks", "forget", "dead", file)).toMatchObject({
      code: 1,
      stderr: `${file} has dead: remove it there first, and start the gateway again\n`,
    });
    expect(await first.end("SIGTERM")).toBe(0);

    const stopped = await sluice("sinks", "--json", file);
    expect(stopped.stderr).toContain(`no gateway of ${dataDir} answers on 127.0.0.1:${httpPort}`);
    expect(JSON.parse(stopped.stdout)).toMatchObject([
      { name: "dead", state: "not running", position: 0, lagRecords: 3 },
      { name: "rejects", kind: "inbox" },
      { name: "sqlite", state: "not running", lagRecords: 0 },
    ]);

    const second: GatewayProcess = await start({ config: config("z.number()", database(dir)), env });
    await second.waitForLog(({ msg }) => msg?.includes("sluice sinks forget dead") === true);
    expect(await sluice("sinks", "forget", "dead", file)).toMatchObject({
      code: 0,
      stdout: "forgot dead: 3 records will not be read for it\n",
    });
    await second.waitForLog((line) => line["consumer"] === "dead" && line.msg?.includes("forgotten") === true);
    expect(await sluice("sinks", "forget", "dead", file)).toMatchObject({
      code: 1,
      stderr: expect.stringContaining("has no cursor of dead"),
    });
  });
});

test("every command says what is wrong with a data directory that is not there", async ({ dir }) => {
  const { dataDir, config } = await write(dir);
  const file = `${dir}/gateway.ts`;
  writeFileSync(file, config("z.number()", picky));
  rmSync(dataDir, { recursive: true, force: true });
  expect(await sluice("rejects", "list", file)).toMatchObject({
    code: 2,
    stderr: `no rejected message is kept in ${dataDir}, which does not exist\n`,
  });
  for (const args of [["sinks"], ["sinks", "forget", "x"], ["replay", "--sink", "picky", "--from", "0"]]) {
    expect(await sluice(...args, file)).toMatchObject({
      code: 2,
      stderr: expect.stringContaining(join(dataDir, "journal")),
    });
  }
});
