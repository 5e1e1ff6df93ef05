// What may go wrong between the influx sink and an InfluxDB of its own, which it locks and limits; and what InfluxDB 2
// and 3 and their kin answer, as their documentation says it.

import { afterAll, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { influx } from "../../src/sinks/influx.ts";
import type { Sink, SinkContext } from "../../src/sinks/sink.ts";
import { makeBatch, makeEntry, never, openContext, range } from "../contract/entries.ts";
import { queryInflux, startInflux } from "../servers/influx.ts";
import { startReceiver, status } from "../servers/receiver.ts";
import type { Receiver } from "../servers/receiver.ts";
import { findPort, isInstalled } from "../servers/server.ts";
import type { Server } from "../servers/server.ts";

const { sink: type } = influx({ url: "", database: "" });
let context: SinkContext;
beforeEach(async () => {
  context = await openContext();
});

const open = (settings: object): Promise<Sink> =>
  type.open(type.settings.parse({ api: "v1", database: "telemetry", ...settings }), context);

/** Of InfluxDB 3. */
const byLines = (errors: readonly object[]): string =>
  JSON.stringify({ error: "partial write of line protocol occurred", data: errors });
/** Of InfluxDB 2. */
const tooOld = (dropped: number): string =>
  JSON.stringify({
    code: "unprocessable entity",
    message: `failure writing points to database: partial write: points beyond retention policy dropped=${dropped}`,
  });

describe.skipIf(!isInstalled("influxd"))("the influx sink", () => {
  let server: Server;
  const admin = { user: "admin:adm1n" };
  const writer = { username: "writer", password: "wr1ter" };
  const run = (statement: string): Promise<readonly Readonly<Record<string, unknown>>[]> =>
    queryInflux(server, statement, { database: "telemetry", ...admin });
  const openSink = (settings: object = {}): Promise<Sink> =>
    open({ url: `http://127.0.0.1:${server.port}`, ...writer, ...settings });

  beforeAll(async () => {
    server = await startInflux({ http: ["auth-enabled = true", "max-body-size = 100000"] });
    await queryInflux(server, "CREATE USER admin WITH PASSWORD 'adm1n' WITH ALL PRIVILEGES");
    await run("CREATE USER writer WITH PASSWORD 'wr1ter'");
    await run("CREATE USER reader WITH PASSWORD 'r3ader'");
  });
  afterAll(async () => {
    await server[Symbol.asyncDispose]();
  });
  beforeEach(async () => {
    await run("DROP DATABASE telemetry");
    await run("CREATE DATABASE telemetry");
    await run("GRANT WRITE ON telemetry TO writer");
    await run("GRANT READ ON telemetry TO reader");
  });

  test("says which server is not there", async () => {
    const url = `http://127.0.0.1:${await findPort()}`;
    await using sink = await openSink({ url });
    await expect(sink.write(makeBatch([0]), never)).rejects.toThrow(`${url}/write: connect ECONNREFUSED`);
  });

  test.for([
    [{ password: "wr0ng" }, /401 Unauthorized: authorization failed.*check token, or username and/],
    [{ username: "reader", password: "r3ader" }, /403 Forbidden: .*not authorized.*does not allow it/],
    [{ database: "none" }, /404 Not Found: database not found: "none"|403 Forbidden/],
    [{ api: "v3" }, /\/api\/v3\/write_lp: 404 Not Found/],
  ] as const)("calls %o misconfigured, and does not tell the password", async ([settings, said]) => {
    await using sink = await openSink(settings);
    const written = sink.write(makeBatch([0]), never);
    await expect(written).rejects.toMatchObject({ kind: "misconfigured", message: said });
    await expect(written).rejects.not.toThrow(/wr0ng|r3ader$|wr1ter/);
  });

  test("names the database that is missing", async () => {
    await using sink = await openSink({ username: "admin", password: "adm1n", database: "none" });
    await expect(sink.write(makeBatch([0]), never)).rejects.toMatchObject({
      kind: "misconfigured",
      message: /404 Not Found: database not found: "none"/,
    });
  });

  test("is asked for smaller batches when the server takes no large ones", async () => {
    await using sink = await openSink({ gzip: false });
    expect(await sink.write(makeBatch(range(0, 5_000)), never)).toMatchObject({ kind: "refused", reason: /413/ });
    expect(await sink.write(makeBatch(range(0, 100)), never)).toEqual({ kind: "all" });
  });
});

describe("the influx sink with another server", () => {
  let receiver: Receiver;
  beforeAll(async () => {
    receiver = await startReceiver();
  });
  afterAll(() => receiver[Symbol.asyncDispose]());
  const openSink = (settings: object = {}): Promise<Sink> => open({ url: receiver.url, ...settings });

  test.for([
    [{ api: "v1" }, "/write?db=a+b&precision=ns", undefined],
    [{ api: "v1", retentionPolicy: "week", token: "t0" }, "/write?db=a+b&rp=week&precision=ns", "Bearer t0"],
    [{ api: "v2" }, "/api/v2/write?bucket=a+b&precision=ns", undefined],
    [{ api: "v2", org: "o&o", token: "t0" }, "/api/v2/write?org=o%26o&bucket=a+b&precision=ns", "Token t0"],
    [{ api: "v3", token: "t0" }, "/api/v3/write_lp?db=a+b&precision=nanosecond", "Bearer t0"],
  ] as const)("asks for what %o says", async ([settings, path, authorization]) => {
    await using sink = await openSink({ database: "a b", ...settings });
    await sink.write(makeBatch([7]), never);
    const request = receiver.requests.at(-1);
    expect(request).toMatchObject({
      method: "POST",
      path,
      headers: { "content-type": "text/plain; charset=utf-8" },
      body: `climate,device=device-1,gateway=gateway-1 ts=1007,text="ünï ' \\" 7",offset=7,received_at=2007 1007000000\n`,
    });
    expect(request?.headers.authorization).toBe(authorization);
  });

  test("keeps path and query of the url", async () => {
    await using sink = await openSink({ url: `${receiver.url}/insert/0/influx/?x=1` });
    await sink.write(makeBatch([7]), never);
    expect(receiver.requests.at(-1)?.path).toBe("/insert/0/influx/write?x=1&db=telemetry&precision=ns");
  });

  test("does not take a success for its own that is not InfluxDB's", async () => {
    await using sink = await openSink();
    receiver.answer(status(200, "<html>Please log in</html>", { "content-type": "text/html" }));
    await expect(sink.write(makeBatch([0]), never)).rejects.toMatchObject({
      kind: "misconfigured",
      message: /200 OK\. InfluxDB takes a batch with 204/,
    });
  });

  test("waits as long as a server of InfluxDB 2 says that is too busy", async () => {
    await using sink = await openSink({ api: "v2" });
    receiver.answer(status(429, `{"code":"too many requests","message":"slow down"}`, { "retry-after": "30" }));
    await expect(sink.write(makeBatch([0]), never)).rejects.toMatchObject({
      kind: "transient",
      retryAfterMs: 30_000,
      message: /429 Too Many Requests: slow down/,
    });
  });

  test("parks what InfluxDB 3 names by its line", async () => {
    await using sink = await openSink({ api: "v3" });
    const data = range(1, 5).map((line) => ({
      line_number: line,
      error_message: `bad ${line}`,
      original_line: "climate,dev",
    }));
    await sink.write(makeBatch([0]), never);
    receiver.answer(status(400, byLines([data[1] ?? {}, data[3] ?? {}])));
    expect(await sink.write(makeBatch([10, 11, 12, 13]), never)).toEqual({
      kind: "except",
      refused: [
        { offset: 11, reason: "the server refuses it: bad 2" },
        { offset: 13, reason: "the server refuses it: bad 4" },
      ],
    });
    for (const doubtful of [
      { ...data[1], original_line: "other,dev" },
      { ...data[1], line_number: 5 },
      { error_message: "?" },
    ]) {
      receiver.answer(status(400, byLines([data[0] ?? {}, doubtful])));
      expect(await sink.write(makeBatch([10, 11, 12, 13]), never)).toMatchObject({ kind: "refused" });
    }
  });

  test("parks what InfluxDB 2 has dropped when that is all, and looks for it when it is a part", async () => {
    await using sink = await openSink({ api: "v2" });
    await sink.write(makeBatch([0]), never);
    receiver.answer(status(422, tooOld(2)));
    const reason = expect.stringMatching(/refuses it: 422 .*beyond retention policy dropped=2/) as string;
    expect(await sink.write(makeBatch([1, 2]), never)).toEqual({
      kind: "except",
      refused: [1, 2].map((offset) => ({ offset, reason })),
    });
    receiver.answer(status(422, tooOld(1)));
    expect(await sink.write(makeBatch([1, 2]), never)).toMatchObject({ kind: "refused" });
  });

  test("blames the points of a conflict, and nobody when more was dropped than it explains", async () => {
    await using sink = await openSink({ measurement: "{device}" });
    await sink.write(makeBatch([0]), never);
    const said = `input field \\"x\\" on measurement \\"device-1\\" is type string, already exists as type float`;
    const entries = [1, 2, 3, 4].map((offset) => makeEntry(offset, { x: offset < 3 ? "text" : offset }));
    const batch = { ...makeBatch([4]), entries };
    const answer = (dropped: number): string =>
      `{"error":"partial write: field type conflict: ${said} dropped=${dropped}"}`;
    receiver.answer(status(400, answer(2)), status(400, answer(1)));
    expect(await sink.write(batch, never)).toMatchObject({ kind: "refused" });
    expect(await sink.write(batch, never)).toMatchObject({ kind: "except", refused: [{ offset: 1 }] });
  });

  test("looks for what InfluxDB Clustered has not taken", async () => {
    await using sink = await openSink({ api: "v2" });
    receiver.answer(status(201, `{"code":"invalid","message":"partial write has occurred: line 2"}`));
    expect(await sink.write(makeBatch([0, 1]), never)).toMatchObject({
      kind: "refused",
      reason: /201 Created: partial/,
    });
  });

  test.for([
    [{ org: "o" }, "expected org with v2 only"],
    [{ api: "v2", retentionPolicy: "r" }, "expected retentionPolicy with v1 only"],
    [{ measurement: "{topic}" }, "{stream} and {device}"],
    [{ token: "t", username: "u", password: "p" }, "expected token, or"],
  ] as const)("does not take %o", ([given, said]) => {
    const { error } = type.settings.safeParse({ url: "http://h", api: "v1", database: "d", ...given });
    expect(error?.message).toContain(said);
  });
});
