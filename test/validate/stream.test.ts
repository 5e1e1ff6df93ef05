import { describe, expect, expectTypeOf, test } from "vitest";
import { z } from "zod";
import { json } from "../../src/decode/json.ts";
import type { Reading } from "../../src/reading.ts";
import {
  type ReadingOf,
  type StreamDefinition,
  defineStream,
  streamSettings,
  streamsSettings,
} from "../../src/validate/stream.ts";

const climate = defineStream({
  name: "climate",
  topic: "devices/{device}/telemetry",
  codec: json,
  schema: z.object({ ts: z.number(), label: z.string().transform((text) => text.length) }),
  time: (data) => data.ts,
});

/** The problems with streams as the configuration loader lists them. */
function problems(...streams: readonly unknown[]): string[] {
  const checked = streamsSettings.safeParse(streams);
  return checked.success ? [] : checked.error.issues.map(({ path, message }) => `${z.core.toDotPath(path)} ${message}`);
}

describe("defineStream", () => {
  test("gives a definition that cannot be changed and that the settings accept", () => {
    expect(Object.isFrozen(climate)).toBe(true);
    expect(problems(climate)).toEqual([]);
    expect(streamSettings.parse(climate)).toEqual({ ...climate });
  });

  test("knows the types of its readings", () => {
    expectTypeOf(climate).toEqualTypeOf<StreamDefinition<"climate", { ts: number; label: number }>>();
    expectTypeOf<ReadingOf<typeof climate>>().toEqualTypeOf<Reading<"climate", { ts: number; label: number }>>();
    expectTypeOf(climate).toExtend<StreamDefinition>();
  });

  test("never throws, whatever JavaScript gives it", () => {
    const define = defineStream as unknown as (settings?: unknown) => unknown;
    for (const settings of [undefined, null, 1, "x", [], { name: 1 }, { surprise: true }]) {
      expect(problems(define(settings))).not.toEqual([]);
    }
  });
});

describe("dedupe", () => {
  const keyed = defineStream({
    name: "climate",
    topic: "devices/{device}/telemetry",
    codec: json,
    schema: z.object({ seq: z.number() }),
    dedupe: { key: ({ seq }) => seq.toFixed() },
  });

  test("remembers 100,000 keys unless the stream says how many", () => {
    expect(streamSettings.parse(keyed).dedupe?.window).toBe(100_000);
    expect(streamSettings.parse({ ...keyed, dedupe: { ...keyed.dedupe, window: 5 } }).dedupe?.window).toBe(5);
  });

  test("changes nothing of the type of the readings", () => {
    expectTypeOf<ReadingOf<typeof keyed>>().toEqualTypeOf<Reading<"climate", { seq: number }>>();
    expectTypeOf(keyed).toExtend<StreamDefinition>();
  });

  test("is refused without a key function, with a window out of bounds, and with what it does not know", () => {
    const wrong = (dedupe: unknown): string[] => problems({ ...keyed, dedupe });
    expect(wrong({ key: "seq" })).toEqual(["[0].dedupe.key expected a function from the data to text"]);
    for (const window of [0, 1.5, 1_000_001, "5"]) expect(wrong({ ...keyed.dedupe, window })).toHaveLength(1);
    expect(wrong({ ...keyed.dedupe, windwo: 5 })).toEqual(['[0].dedupe Unrecognized key: "windwo"']);
    expect(wrong({})).toHaveLength(1);
  });
});

describe("streamsSettings", () => {
  test("names every problem at once", () => {
    const wrong = { name: "Climate!", topic: "a/#/b", codec: {}, schema: {}, time: 5, tpoic: "x" };
    expect(problems({ ...wrong })).toEqual([
      "[0].name expected a lower-case letter, then at most 62 letters, digits, _ or -",
      "[0].topic may have # only as its last level",
      "[0].codec expected a codec, such as json, or a list of codecs",
      "[0].schema expected a zod 4 schema, such as z.object({ … })",
      "[0].time expected a function from the data to milliseconds since 1970",
      '[0] Unrecognized key: "tpoic"',
    ]);
  });

  test("wants at least one stream", () => {
    expect(problems()).toEqual([" expected at least one stream"]);
  });

  test("refuses a schema of zod 3, which has no compiled form", () => {
    expect(problems({ ...climate, schema: { safeParse: () => ({ success: true }) } })).toEqual([
      "[0].schema expected a zod 4 schema, such as z.object({ … })",
    ]);
  });

  test("refuses an asynchronous schema", () => {
    const schema = z.object({ a: z.string().refine(async (text) => Promise.resolve(text !== "")) });
    expect(problems({ ...climate, schema })).toEqual([
      "[0].schema must be synchronous: it has an async refinement or transform",
    ]);
  });

  test("refuses a name or a topic that another stream has", () => {
    const second = { ...climate, topic: "devices/+/telemetry" };
    expect(problems(climate, second)).toEqual([
      "[1].name is the name of streams[0] too",
      "[1].topic matches the same topics as streams[0]",
    ]);
    expect(problems(climate, { ...climate, name: "other", topic: "devices/{device}/#" })).toEqual([]);
  });

  test("does not compare topics that are no patterns", () => {
    const wrong = { ...climate, topic: "" };
    expect(problems(wrong, { ...wrong, name: "other" })).toEqual([
      "[0].topic must not be empty",
      "[1].topic must not be empty",
    ]);
  });

  test("describes every setting, for the documentation", () => {
    const undescribed = Object.entries(streamSettings.shape).filter(([, setting]) => setting.description === undefined);
    expect(undescribed).toEqual([]);
  });
});
