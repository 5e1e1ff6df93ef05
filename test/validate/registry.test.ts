import { Buffer } from "node:buffer";
import { describe, expect, test } from "vitest";
import { z } from "zod";
import type { Codec } from "../../src/decode/codec.ts";
import { json } from "../../src/decode/json.ts";
import { SluiceError } from "../../src/errors.ts";
import type { Message } from "../../src/reading.ts";
import { type Read, createRegistry } from "../../src/validate/registry.ts";
import { type StreamDefinition, defineStream } from "../../src/validate/stream.ts";

const schema = z.object({ ts: z.number().int(), metrics: z.record(z.string(), z.number()) });
const climate = defineStream({
  name: "climate",
  topic: "devices/{device}/telemetry",
  codec: json,
  schema,
  time: (data) => data.ts,
});

const message = (payload: string, rest: Partial<Message> = {}): Message => ({
  topic: "devices/d1/telemetry",
  payload: Buffer.from(payload),
  clientId: "c1",
  deviceId: "d1",
  receivedAt: 1_700_000_000_500,
  qos: 1,
  packetId: 0,
  ...rest,
});

const good = '{"ts":1700000000000,"metrics":{"temp":21.5}}';
const read = (payload: string, rest?: Partial<Message>, stream: StreamDefinition = climate): Read =>
  createRegistry([stream]).read(message(payload, rest), stream.name);
const rejection = (reason: string, ...issues: readonly [path: string, message: RegExp][]) => ({
  kind: "rejected",
  rejection: {
    stream: "climate",
    reason,
    issues: issues.map(([path, text]) => ({ path, message: expect.stringMatching(text) as string })),
  },
});
function fail(): never {
  throw new Error("sensor table is empty");
}

/** The stream with a schema or time of its own. */
const variant = (rest: { schema?: z.ZodType; time?: (data: unknown) => unknown; codec?: Codec }): StreamDefinition =>
  ({ ...climate, ...rest }) as StreamDefinition;

const has = (contentType: string): Partial<Message> => ({ properties: { contentType } });

describe("what an MQTT 5 message says of itself", () => {
  const upper: Codec = {
    name: "upper",
    contentTypes: ["text/upper"],
    decode: (payload) => json.decode(Buffer.from(Buffer.from(payload).toString("utf8").toLowerCase())),
  };
  const both = { ...climate, codec: [json, upper] } as StreamDefinition;
  const loud = '{"TS":1,"METRICS":{}}';
  const quiet = '{"ts":1,"metrics":{}}';

  test("comes with the reading", () => {
    const properties = { contentType: "application/json", user: [["unit", "C"]] } as const;
    expect(read(good, { properties })).toMatchObject({ reading: { properties } });
    expect(read(good)).not.toHaveProperty("reading.properties");
  });

  test.each(["text/upper", "Text/Upper", "text/upper; charset=utf-8"])("chooses the codec: %s", (contentType) => {
    expect(read(loud, has(contentType), both)).toMatchObject({ reading: { data: { ts: 1 } } });
    expect(read(quiet, has("application/json"), both)).toMatchObject({ reading: { data: { ts: 1 } } });
  });

  test("leaves a message without a content type to the first codec", () => {
    expect(read(quiet, {}, both)).toMatchObject({ kind: "reading" });
    expect(read(quiet, { properties: { user: [] } }, both)).toMatchObject({ kind: "reading" });
    expect(read(loud, {}, both)).toMatchObject(rejection("invalid", ["ts", /./], ["metrics", /./]));
  });

  test("is refused when no codec of several is called so, and does not matter to a single one", () => {
    const text = /^has the content type "image\/png"; expected one of application\/json, text\/json, text\/upper$/;
    expect(read(quiet, has("image/png"), both)).toMatchObject(rejection("undecodable", ["", text]));
    expect(read(good, has("image/png"))).toMatchObject({ kind: "reading" });
  });

  test("must be true of its format", () => {
    const codec: Codec = { name: "any", decode: () => ({ kind: "decoded", value: { ts: 1, metrics: {} } }) };
    const any = variant({ codec });
    const payload = Buffer.from([0xc3, 0x28]);
    expect(read("", { payload, properties: { payloadFormat: 1 } }, any)).toMatchObject(
      rejection("undecodable", ["", /^is not UTF-8, though its Payload Format Indicator says so$/]),
    );
    expect(read("", { payload, properties: { payloadFormat: 0 } }, any)).toMatchObject({ kind: "reading" });
  });

  test("is known to the stream's time and dedupe.key", () => {
    const timed = variant({
      time: ((_: unknown, { properties }: Message) => Number(properties?.user?.[0]?.[1])) as (data: unknown) => unknown,
    });
    expect(read(good, { properties: { user: [["time", "17"]] } }, timed)).toMatchObject({ reading: { time: 17 } });
    const keyed = {
      ...climate,
      dedupe: { key: (_: unknown, { topic }: Message) => topic },
    } as unknown as StreamDefinition;
    const registry = createRegistry([keyed]);
    const result = registry.read(message(good), "climate");
    expect(result.kind === "reading" && registry.keyOf(result.reading)).toEqual({
      kind: "key",
      key: "devices/d1/telemetry",
    });
  });
});

describe("Registry.read", () => {
  test("makes a reading of a message that fits", () => {
    expect(read(good)).toEqual({
      kind: "reading",
      reading: {
        stream: "climate",
        deviceId: "d1",
        topic: "devices/d1/telemetry",
        time: 1_700_000_000_000,
        receivedAt: 1_700_000_000_500,
        data: { ts: 1_700_000_000_000, metrics: { temp: 21.5 } },
      },
    });
  });

  test("gives what the schema returns, not what came", () => {
    const transformed = variant({
      schema: z.object({ ts: z.coerce.string(), n: z.number().default(7) }),
      time: () => 1,
    });
    expect(read('{"ts":5,"extra":1}', {}, transformed)).toMatchObject({ reading: { data: { ts: "5", n: 7 } } });
  });

  test("takes the time of receipt when the stream has no time of its own", () => {
    const untimed = defineStream({ name: "climate", topic: "devices/{device}/telemetry", codec: json, schema });
    expect(read(good, {}, untimed)).toMatchObject({ reading: { time: 1_700_000_000_500 } });
  });

  test("rejects what the codec cannot read, with its issues", () => {
    expect(read('{"ts":1,')).toEqual(rejection("undecodable", ["", /is not JSON: ends at character 8/]));
  });

  test("rejects what the schema refuses, with every place", () => {
    expect(read('{"ts":1.5,"metrics":{"temp":"hot","a b":null}}')).toEqual(
      rejection(
        "invalid",
        ["ts", /expected int/],
        ["metrics.temp", /expected number/],
        ['metrics["a b"]', /expected number/],
      ),
    );
    const list = variant({ schema: z.object({ list: z.array(z.number()) }) });
    expect(read('{"list":[1,2,"3"]}', {}, list)).toEqual(rejection("invalid", ["list[2]", /expected number/]));
    expect(read("5")).toEqual(rejection("invalid", ["", /expected object/]));
  });

  test("says the same whether the schema could be compiled or not", () => {
    const interpreted = variant({ schema: schema.refine(() => true).pipe(z.preprocess((value) => value, schema)) });
    for (const payload of ["{}", '{"ts":"x","metrics":[]}', '{"ts":1,"metrics":{"a":null}}']) {
      const direct = schema.safeParse(JSON.parse(payload));
      const expected = direct.error?.issues.map(({ path, message: text }) => [z.core.toDotPath(path), text]);
      for (const stream of [climate, interpreted]) {
        const result = read(payload, {}, stream);
        const issues =
          result.kind === "rejected" ? result.rejection.issues.map((issue) => [issue.path, issue.message]) : [];
        expect(issues).toEqual(expected);
      }
    }
  });

  test("rejects a device that is not the one that the credentials stand for, before it looks at the payload", () => {
    expect(read("not JSON", { identity: "d2" })).toEqual(
      rejection("identity", ["", /for "d2" only, the message is for "d1"/]),
    );
    expect(read(good, { identity: "d1" })).toMatchObject({ kind: "reading" });
  });

  test.for<[string, unknown, number]>([
    ["a whole number", 5, 5],
    ["1970", 0, 0],
    ["a fraction, rounded", 1_700_000_000_123.25, 1_700_000_000_123],
    ["the last time there is", 8.64e15, 8.64e15],
  ])("takes as time %s", ([, time, expected]) => {
    const reading = read(good, {}, variant({ time: () => time }));
    expect(reading).toMatchObject({ reading: { time: expected, receivedAt: 1_700_000_000_500 } });
  });

  test.for<[string, unknown]>([
    ["a negative number", -1],
    ["a number beyond all dates", 8.64e15 + 2],
    ["NaN", Number.NaN],
    ["Infinity", Number.POSITIVE_INFINITY],
    ["text", "2024-01-01"],
    ["undefined", undefined],
    ["a Date", new Date()],
  ])("rejects as time %s", ([, time]) => {
    expect(read(good, {}, variant({ time: () => time }))).toEqual(rejection("time", ["", /milliseconds/]));
  });

  test("rejects, and never throws, when the user's code does", () => {
    expect(read(good, {}, variant({ time: fail }))).toEqual(
      rejection("time", ["", /time failed: sensor table is empty/]),
    );
    expect(read(good, {}, variant({ schema: schema.refine(fail) }))).toEqual(
      rejection("invalid", ["", /schema failed: sensor/]),
    );
    expect(read(good, {}, variant({ codec: { name: "x", decode: fail } }))).toEqual(
      rejection("undecodable", ["", /codec failed: sensor/]),
    );
  });

  test("rejects, and never throws, when a refinement turns out to be asynchronous", () => {
    const late = schema.refine(() => Promise.resolve(true));
    expect(read(good, {}, variant({ schema: late }))).toEqual(rejection("invalid", ["", /schema failed: .*Promise/]));
  });

  test("bounds the issues, their paths and their messages", () => {
    const metrics = Object.fromEntries(Array.from({ length: 40 }, (_, index) => [`${"k".repeat(300)}${index}`, "x"]));
    const result = read(JSON.stringify({ ts: 1, metrics }));
    expect(result.kind === "rejected" && result.rejection.issues).toHaveLength(16);
    const loud = variant({ schema: schema.refine(() => false, "é".repeat(500)) });
    for (const rejected of [result, read(good, {}, loud)]) {
      const issues = rejected.kind === "rejected" ? rejected.rejection.issues : [];
      expect(issues.length).toBeGreaterThan(0);
      for (const issue of issues) {
        expect(issue.path.length).toBeLessThanOrEqual(200);
        expect(issue.message.length).toBeLessThanOrEqual(200);
      }
    }
  });

  test("rejects a stream that is not configured, as a journal of yesterday may have", () => {
    expect(createRegistry([climate]).read(message(good), "gone")).toMatchObject({
      rejection: { stream: "gone", reason: "no-stream", issues: [{ path: "", message: 'no stream is named "gone"' }] },
    });
  });
});

const stream = (name: string, topic: string): StreamDefinition => defineStream({ name, topic, codec: json, schema });

describe("Registry.route", () => {
  const registry = createRegistry([
    stream("all", "site/#"),
    stream("any", "site/{device}/+"),
    stream("state", "site/{device}/state"),
    stream("one", "site/main/state"),
    stream("root", "#"),
  ]);

  test.for<[string, string, string | undefined]>([
    ["site/main/state", "one", undefined],
    ["site/a/state", "state", "a"],
    ["site/a/other", "any", "a"],
    ["site//state", "all", undefined],
    ["site/a/b/c", "all", undefined],
    ["site", "all", undefined],
    ["elsewhere", "root", undefined],
  ])("%s belongs to the most specific stream, %s", ([topic, name, deviceId]) => {
    for (let again = 0; again < 2; again++) expect(registry.route(topic)).toEqual({ stream: name, deviceId });
  });

  test.for(["$SYS/broker/uptime", "$share/x", "sluice/rejected/x", "sluice"])("%s belongs to no stream", (topic) => {
    for (let again = 0; again < 2; again++) expect(registry.route(topic)).toBeUndefined();
  });

  test("stays right when a flood of topics turns its cache over", () => {
    const flooded = createRegistry([climate]);
    const check = (): void => {
      expect(flooded.route("devices/first/telemetry")).toEqual({ stream: "climate", deviceId: "first" });
      expect(flooded.route("none")).toBeUndefined();
    };
    check();
    for (let turn = 0; turn < 120_000; turn++) {
      const route = flooded.route(`devices/${turn}/telemetry`);
      if (route?.deviceId !== `${turn}`) throw new Error(`wrong route at ${turn}`);
      if (turn % 30_000 === 0) check();
    }
    check();
  });
});

describe("createRegistry", () => {
  test("keeps the order of the configuration", () => {
    const registry = createRegistry([stream("b", "b"), stream("a", "a")]);
    expect(registry.names).toEqual(["b", "a"]);
    expect(registry.interpreted).toEqual([]);
  });

  test("names the streams whose schema runs interpreted", () => {
    const looping: z.ZodType = z.object({ next: z.lazy(() => looping).optional() });
    expect(createRegistry([variant({ schema: looping })]).interpreted).toEqual([
      { stream: "climate", reason: expect.any(String) as string },
    ]);
  });

  test.for<[string, readonly StreamDefinition[]]>([
    ["two streams of one name", [stream("a", "a"), stream("a", "b")]],
    ["two streams of one topic", [stream("a", "x/+"), stream("b", "x/{device}")]],
    ["a topic that is none", [stream("a", "a/#/b")]],
  ])("throws on %s, which the configuration loader should have refused", ([, streams]) => {
    expect(() => createRegistry(streams)).toThrow(SluiceError);
  });
});
