// What InfluxDB answers to a batch of which it has taken a part, or nothing: 400 or 422, in InfluxDB Clustered 201. The points
// that were good are stored all the same, and to write them again changes nothing.
//
//   1, 2   {"error" or "message": "partial write: field type conflict: … dropped=3"}: the first cause, and how many points
//   3      {"error": "partial write of line protocol occurred", "data": [{"line_number": 2, "error_message", "original_line"}]}

import type { Entry, Offset } from "../reading.ts";
import { judge, toSentence } from "./http-answer.ts";
import type { HttpAnswer } from "./http-client.ts";
import type { Point } from "./line-protocol.ts";
import { SinkError } from "./sink.ts";
import type { RefusedEntry, Written } from "./sink.ts";

/** What was sent: `lines[n]` is that of `entries[n]`. */
export interface SentBatch {
  readonly entries: readonly Entry[];
  readonly lines: readonly string[];
  /** Makes the point of an entry once more; they would take much memory, and are seldom asked for. */
  readonly toPoint: (entry: Entry) => Point | Error;
}

/** `place` is the server as messages name it. Throws as `judge` does, and for a success that is not InfluxDB's. */
export function toWritten(answer: HttpAnswer, sent: SentBatch, place: string): Written {
  const { status } = answer;
  if (status === 204) return { kind: "all" };
  if (status !== 201 && judge(answer, place).kind === "all") {
    const hint = "InfluxDB takes a batch with 204: check url and api.";
    throw new SinkError("misconfigured", `${place}: ${toSentence(answer)} ${hint}`);
  }
  const reason = `the server refuses it: ${toSentence(answer)}`;
  const [first, ...others] = toBlamed(answer.body, sent, reason);
  if (first === undefined) return { kind: "refused", reason };
  return { kind: "except", refused: [first, ...others] };
}

/** The entries that are to blame, if that is sure; otherwise smaller batches find them. */
function toBlamed(body: string, sent: SentBatch, reason: string): readonly RefusedEntry[] {
  const { error, message = error, data } = toObject(body);
  if (Array.isArray(data)) return byLine(data, sent);
  const said = typeof message === "string" ? message : "";
  const dropped = Number(/ dropped=(\d+)$/.exec(said)?.[1] ?? 0);
  const blamed = dropped === sent.entries.length ? sent.entries : byConflict(said, sent);
  return blamed.length === dropped ? blamed.map(({ offset }) => ({ offset, reason })) : [];
}

function byLine(errors: readonly unknown[], { entries, lines }: SentBatch): readonly RefusedEntry[] {
  const blamed = new Map<Offset, string>();
  for (const error of errors) {
    const { line_number: number, error_message: said, original_line: start } = Object(error) as Record<string, unknown>;
    const index = typeof number === "number" ? number - 1 : -1;
    const entry = entries[index];
    // Nobody is blamed for what stands in another line.
    if (entry === undefined || typeof start !== "string" || !lines[index]?.startsWith(start)) return [];
    blamed.set(entry.offset, `the server refuses it: ${String(said)}`);
  }
  return [...blamed].map(([offset, reason]) => ({ offset, reason }));
}

const conflict = /input field "(.*)" on measurement "(.*)" is type (\w+), already exists as type \w+ dropped=\d+$/;
const typeNames: Readonly<Record<string, string>> = { number: "float", string: "string", boolean: "boolean" };

/** The entries whose point has this field with this type. */
function byConflict(said: string, { entries, toPoint }: SentBatch): readonly Entry[] {
  const [, field, measurement, type] = conflict.exec(said) ?? [];
  if (field === undefined) return [];
  return entries.filter((entry) => {
    const point = toPoint(entry);
    if (point instanceof Error || point.measurement !== measurement) return false;
    return Array.from(point.fields).some(([name, value]) => name === field && typeNames[typeof value] === type);
  });
}

function toObject(body: string): Readonly<Record<string, unknown>> {
  try {
    return Object(JSON.parse(body)) as Readonly<Record<string, unknown>>;
  } catch {
    return {};
  }
}
