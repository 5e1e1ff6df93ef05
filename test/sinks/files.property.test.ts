import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import * as fc from "fast-check";
import { describe, expect, test } from "vitest";
import { z } from "zod";
import { toOffset } from "../../src/reading.ts";
import type { Entry } from "../../src/reading.ts";
import { files } from "../../src/sinks/files/files.ts";
import { readClosed } from "./closed-files.ts";

const never = new AbortController().signal;
const { sink: type } = files();

/** As the wire gives it: well-formed. */
const text = fc.oneof(
  fc.string({ unit: "binary", maxLength: 20 }),
  fc.constantFrom(
    "",
    "\0",
    "\n",
    "../..",
    "a/b",
    `'; DROP TABLE readings; --`,
    `"`,
    "🌡️",
    "\u2028",
    "%2F",
    "=",
    "\uFEFF",
  ),
);
const number = fc.oneof(fc.double(), fc.constantFrom(NaN, Infinity, -Infinity, -0, 2 ** 53 + 2, 5e-324, 1e308));
/** Also what is not well-formed. */
const anyText = fc.string({ unit: fc.integer({ min: 0, max: 0xffff }).map((unit) => String.fromCharCode(unit)) });
const data = fc.oneof(
  fc.jsonValue({ maxDepth: 3 }),
  fc.dictionary(fc.oneof(text, anyText), fc.oneof(number, text, anyText, fc.constant(undefined), fc.boolean())),
  fc.constantFrom(undefined, null, {}, [], "", 0),
);
const streams = ["climate", "power"].map((name) => ({ name, schema: z.unknown() }));
const time = fc.oneof(fc.nat(), fc.constantFrom(0, Date.now(), 8_640_000_000_000_000));
const reading = fc.record({
  stream: fc.constantFrom("climate", "power"),
  deviceId: text,
  topic: text,
  time,
  receivedAt: fc.integer({ min: 1_763_000_000_000, max: 1_763_020_000_000 }),
  data,
});
const batches = fc.array(fc.array(reading, { maxLength: 20 }), { minLength: 1, maxLength: 4 });

function toExpected({
  offset,
  reading: { stream, deviceId, topic, time: at, receivedAt, data: given },
}: Entry): object {
  const written = JSON.parse(JSON.stringify(given) ?? "null") as unknown;
  return { gateway: "gateway-1", offset, stream, device: deviceId, topic, time: at, receivedAt, data: written };
}

const offsetOf = (row: object): number => (row as { readonly offset: number }).offset;

/** A row of Parquet in the form of a document. */
const toDocument = (row: Readonly<Record<string, unknown>>): object => ({
  ...row,
  offset: Number(row["offset"]),
  time: (row["time"] as Date).getTime(),
  receivedAt: (row["receivedAt"] as Date).getTime(),
  data: JSON.parse(String(row["data"])) as unknown,
});

describe("what goes into files comes out, whatever it is", () => {
  test.each([
    { format: "ndjson", compression: "none" },
    { format: "ndjson", compression: "gzip" },
    { format: "ndjson", compression: "zstd" },
    { format: "parquet", compression: "none" },
    { format: "parquet", compression: "snappy" },
    { format: "parquet", compression: "gzip" },
    { format: "parquet", compression: "zstd" },
  ])("$format, compression $compression", async (settings) => {
    await fc.assert(
      fc.asyncProperty(batches, fc.constantFrom(1, 2_000, 1_000_000), async (given, bytes) => {
        const path = mkdtempSync(join(tmpdir(), "sluice-files-"));
        try {
          const context = { gateway: "gateway-1", dataDir: path, name: "files", streams, warn: () => {} };
          const sink = await type.open(type.settings.parse({ ...settings, path, rotate: { bytes } }), context);
          const entries: Entry[] = [];
          for (const batch of given) {
            const from = entries.length;
            entries.push(...batch.map((one, index) => ({ offset: toOffset(from + index), reading: one })));
            const next = toOffset(entries.length);
            await sink.write({ gateway: "gateway-1", entries: entries.slice(from), next }, never);
          }
          await sink[Symbol.asyncDispose]();
          const rows = (await readClosed(path)).flatMap((file) => file.rows);
          const found = settings.format === "parquet" ? rows.map(toDocument) : rows;
          expect([...found].sort((a, b) => offsetOf(a) - offsetOf(b))).toEqual(entries.map(toExpected));
        } finally {
          rmSync(path, { recursive: true, force: true });
        }
      }),
      { numRuns: 60 },
    );
  });
});
