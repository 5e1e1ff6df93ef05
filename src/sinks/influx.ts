// Readings to InfluxDB, or what speaks its line protocol over HTTP: a point for each.
//
//   measurement  the stream, or what the template gives
//   tags         device, gateway, and fields that the configuration names
//   fields       the reading's data, flattened, numbers as floats; offset, received_at (milliseconds since 1970)
//   time         the device's, in milliseconds; when it has none the time of receipt, with the last six digits of the
//                offset as nanoseconds
//
// (measurement, tags, time) is the identity of a point: the same reading again is the same point, and so are two readings of
// a device that say the same time. A device that says no time would lose all readings of a millisecond but one.

import { z } from "zod";
import { unreachable } from "../errors.ts";
import type { Batch, Entry } from "../reading.ts";
import { flatten } from "./flatten.ts";
import type { Field } from "./flatten.ts";
import { clientSettings, hasOneIdentity, oneIdentity, openHttpClient, urlSetting } from "./http-client.ts";
import type { HttpClient } from "./http-client.ts";
import { toWritten } from "./influx-answer.ts";
import { toLine } from "./line-protocol.ts";
import type { Point } from "./line-protocol.ts";
import { defineSink } from "./sink.ts";
import type { RefusedEntry, Sink, Written } from "./sink.ts";
import { createTemplate, templateOf } from "./template.ts";

const settings = z
  .strictObject({
    url: urlSetting.describe("The server, http:// or https://; with a path when it is not at the root."),
    api: z
      .enum(["v1", "v2", "v3"])
      .default("v2")
      .describe(
        "v1: `/write`, for InfluxDB 1. v2: `/api/v2/write`, for InfluxDB 1.8, 2 and 3, VictoriaMetrics and QuestDB. v3: `/api/v3/write_lp`, for InfluxDB 3.",
      ),
    database: z.string().min(1).describe("The database; with v2 the bucket."),
    org: z.string().min(1).optional().describe("With v2: the organization, for InfluxDB 2."),
    retentionPolicy: z.string().min(1).optional().describe("With v1: the retention policy, if not the default one."),
    measurement: templateOf(["{stream}", "{device}"])
      .default("{stream}")
      .describe("The measurement of a reading's point; may have {stream} and {device}."),
    tags: z
      .array(z.string().min(1))
      .max(100)
      .default([])
      .describe(
        "Names of fields, as they are written, that become tags. InfluxDB has a series for each of their values.",
      ),
    deviceTag: z.string().min(1).max(100).default("device").describe("The name of the tag that has the device id."),
    distinct: z
      .boolean()
      .default(false)
      .describe(
        "true: two readings of a device with the same millisecond are two points, also when the device says that time. They differ in nanoseconds.",
      ),
    origin: z
      .boolean()
      .default(true)
      .describe(
        "true: with the tag `gateway` and the fields `offset` and `received_at`. false: two gateways may write one series.",
      ),
    separator: z
      .string()
      .min(1)
      .max(10)
      .default("_")
      .describe("What stands between the parts of a field's name: gps_lat for `{ gps: { lat } }`."),
    ...clientSettings,
  })
  .refine(hasOneIdentity, oneIdentity)
  .refine(({ api, org }) => org === undefined || api === "v2", "expected org with v2 only")
  .refine(
    ({ api, retentionPolicy: policy }) => policy === undefined || api === "v1",
    "expected retentionPolicy with v1 only",
  );

type InfluxSettings = z.output<typeof settings>;

/** Readings to InfluxDB and what speaks its line protocol. */
export const influx = defineSink({
  type: "influx",
  settings,
  batch: { records: 5_000, bytes: 2 * 1024 * 1024 },
  reference: {
    writes:
      "Writes a point for each reading, in line protocol over HTTP. The measurement is the stream, the time is the device's, tags are `device` and `gateway`, and fields are the data with objects and lists flattened (`gps_lat`, `list_0`), and `offset` and `received_at`. Numbers are always floats, so that 21 and 21.5 never are a conflict; NaN, the infinities and null have no field. Data that is a bare value is the field `value`.",
    once: "Once for each measurement, tags and time: a reading that comes again is the same point. So two readings of a device that have the same stream and say the same millisecond are one point too, with the fields of both and of the later one where both have them, unless `distinct` is true. Readings that have no time but that of their receipt are always kept apart: the last six digits of their offsets are the nanoseconds. QuestDB keeps a repetition as a row of its own unless its table has deduplication.",
    notes: [
      "Parked are readings with two fields of one name (`{ a_b, a: { b } }`), more than 20,000 values, 128 levels or 4 Mi characters of fields, or a field without a name, and those that the server refuses alone with 400, 413 or 422, such as a field that has another type already, or a time beyond the retention policy. Of a batch that is taken in part the others are written. A server that answers 400 to everything has everything parked; `sluice parked retry` sends it once more.",
      "VictoriaMetrics answers 204 to what it cannot read as well, and keeps no texts: what it has dropped is only in its log.",
      "A data field called `time`, `_measurement`, `_field`, `device`, `gateway`, `offset` or `received_at` is written with an underscore behind its name. In names and tags a backslash and control characters are percent-encoded, because servers do not agree about what they mean there.",
      "408, 409, 421, 423, 425, 429 and 500 to 599 are tried again, after `Retry-After` if it is there. A wrong token, a missing database, a redirect, and any success but 204 need a person, and are tried again seldom.",
      "Tested with InfluxDB 1.6; the paths, parameters and answers of 2 and 3 as they are documented.",
    ],
    example: `influx({ url: "https://influx.example:8086", database: "telemetry", org: "site-7", token: env.INFLUX_TOKEN, tags: ["room"] })`,
  },
  open: openInflux,
});

async function openInflux(given: InfluxSettings): Promise<Sink> {
  const { api } = given;
  const url = toWriteUrl(given);
  const client = await openHttpClient({ ...given, url: url.href, scheme: api === "v2" ? "Token" : "Bearer" });
  return createSink(client, url, createPoints(given));
}

function toWriteUrl({ url: text, api, database, org, retentionPolicy }: InfluxSettings): URL {
  const url = new URL(text);
  const set = (path: string, parameters: Readonly<Record<string, string | undefined>>): URL => {
    url.pathname = `${url.pathname.replace(/\/+$/, "")}${path}`;
    for (const [name, value] of Object.entries(parameters)) if (value !== undefined) url.searchParams.set(name, value);
    return url;
  };
  switch (api) {
    case "v1":
      return set("/write", { db: database, rp: retentionPolicy, precision: "ns" });
    case "v2":
      return set("/api/v2/write", { org, bucket: database, precision: "ns" });
    case "v3":
      return set("/api/v3/write_lp", { db: database, precision: "nanosecond" });
    default:
      return unreachable(api);
  }
}

/** A body must not be larger than servers take, before compression (InfluxDB 3: 10 MB); a line is at most some more than half. */
const BODY_CHARACTERS = 8 * 1024 * 1024;

function createSink(client: HttpClient, url: URL, toPoint: ToPoint): Sink {
  const headers = { "content-type": "text/plain; charset=utf-8" };
  return {
    async write(batch, signal) {
      signal.throwIfAborted();
      const plan = toPlan(batch, toPoint);
      if (plan.kind !== "lines") return plan;
      const { lines } = plan;
      if (lines.length === 0) return { kind: "all" };
      const body = `${lines.join("\n")}\n`;
      const answer = await client.send({ method: "POST", url, headers, body }, signal);
      const { entries, gateway } = batch;
      return toWritten(answer, { entries, lines, toPoint: (entry) => toPoint(entry, gateway) }, client.place);
    },
    [Symbol.asyncDispose]: () => client[Symbol.asyncDispose](),
  };
}

type Plan =
  /** One for each entry. */
  { readonly kind: "lines"; readonly lines: readonly string[] } | (Written & { readonly kind: "except" | "refused" });

/** The lines of a batch; or which of its entries can never be one, or that they are too large together. */
function toPlan({ gateway, entries }: Batch, toPoint: ToPoint): Plan {
  const lines: string[] = [];
  const refused: RefusedEntry[] = [];
  let characters = 0;
  for (const entry of entries) {
    const point = toPoint(entry, gateway);
    if (point instanceof Error) {
      refused.push({ offset: entry.offset, reason: `its data cannot be a point: ${point.message}` });
      continue;
    }
    const line = toLine(point);
    characters += line.length + 1;
    if (characters > BODY_CHARACTERS && lines.length > 0) {
      return { kind: "refused", reason: "the batch is too large when its data is flattened" };
    }
    lines.push(line);
  }
  const [first, ...others] = refused;
  return first === undefined ? { kind: "lines", lines } : { kind: "except", refused: [first, ...others] };
}

type ToPoint = (entry: Entry, gateway: string) => Point | Error;

/** Names that InfluxDB has for itself: as a field it drops `time` without a word. */
const NOT_FREE = ["time", "_measurement", "_field"];
const ORIGIN = ["gateway", "offset", "received_at"];

function createPoints(given: InfluxSettings): ToPoint {
  const { measurement, tags: tagNames, deviceTag, distinct, origin, separator } = given;
  const toMeasurement = createTemplate(measurement);
  const taken = new Set([...NOT_FREE, deviceTag, ...(origin ? ORIGIN : [])]);
  const isTaken = (name: string): boolean => taken.has(name.endsWith("_") ? name.replace(/_+$/, "") : name);
  /** One underscore more for each name that is taken but for underscores behind it, so that two names stay two. */
  const toFree = (name: string): string => (isTaken(name) ? `${name}_` : name);
  const asTags = new Set(tagNames);
  return (entry, gateway) => {
    const { offset, reading } = entry;
    const data = flatten(reading.data, separator);
    if (data instanceof Error) return data;
    const tags: [string, string][] = [[deviceTag, reading.deviceId]];
    const fields: [string, Field][] = [];
    if (origin) tags.push(["gateway", gateway]);
    for (const [name, value] of data) {
      if (asTags.has(name)) tags.push([toFree(name), String(value)]);
      else fields.push([toFree(name), value]);
    }
    if (origin) fields.push(["offset", offset], ["received_at", reading.receivedAt]);
    if (fields.length === 0) return new Error("it has no field");
    return { measurement: toMeasurement(reading), tags, fields, time: toNanoseconds(entry, distinct) };
  };
}

function toNanoseconds({ offset, reading: { time, receivedAt } }: Entry, distinct: boolean): bigint {
  return BigInt(time) * 1_000_000n + (distinct || time === receivedAt ? BigInt(offset % 1_000_000) : 0n);
}
