// A reading as one line of JSON: what every sink writes that stores documents or sends messages. SQL sinks write the data alone.
//
//   {"gateway":"…","offset":7,"stream":"climate","device":"d1","topic":"devices/d1/telemetry","time":1763700000000,
//    "receivedAt":1763700000012,"data":{…}}
//
// Times are in milliseconds since 1970; (gateway, offset) identifies a reading for ever. `data` is what the stream's schema
// returned, as JSON.stringify writes it: NaN and the infinities become null.

import { toError } from "../errors.ts";
import type { Batch, Entry } from "../reading.ts";
import type { RefusedEntry, Written } from "./sink.ts";

export type Documents =
  /** One for each entry of the batch, in its order, without a line break. */
  { readonly kind: "documents"; readonly documents: readonly string[] } | (Written & { readonly kind: "except" });

/** The documents of a batch, or which of its entries can never be one. */
export function toDocuments({ gateway, entries }: Pick<Batch, "gateway" | "entries">): Documents {
  const head = `{"gateway":${JSON.stringify(gateway)},"offset":`;
  const documents: string[] = [];
  const refused: RefusedEntry[] = [];
  for (const entry of entries) {
    const data = toJson(entry.reading.data);
    if (typeof data === "string") documents.push(`${head}${entry.offset}${toFields(entry)},"data":${data}}`);
    else refused.push({ offset: entry.offset, reason: `its data cannot be written as JSON: ${data.message}` });
  }
  const [first, ...others] = refused;
  return first === undefined ? { kind: "documents", documents } : { kind: "except", refused: [first, ...others] };
}

function toFields({ reading: { stream, deviceId, topic, time, receivedAt } }: Entry): string {
  const names = `,"stream":"${stream}","device":${JSON.stringify(deviceId)},"topic":${JSON.stringify(topic)}`;
  return `${names},"time":${time},"receivedAt":${receivedAt}`;
}

/** JSON has no undefined: it becomes null. An Error: the data has a BigInt, a circle, or a toJSON that throws. */
export function toJson(data: unknown): string | Error {
  try {
    return JSON.stringify(data) ?? "null";
  } catch (cause) {
    return toError(cause);
  }
}
