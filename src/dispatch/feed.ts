// From the journal to what a consumer is given: read, decode and validate again, and set aside what today's schema refuses.

import type { JournalEntry } from "../journal/record.ts";
import type { ReadLimit, Reader } from "../journal/reader.ts";
import type { Entry, Issue, Offset, Rejection, UnixMs } from "../reading.ts";
import type { Registry } from "../validate/registry.ts";
import type { Parked } from "./parked.ts";

/** What one read gave. The journal's entries stay valid as long as they are kept. */
export interface Chunk {
  /** Readings for the consumer, in journal order. */
  readonly entries: readonly Entry[];
  /** All that was read, in journal order: the record behind each of `entries` among them. */
  readonly records: readonly JournalEntry[];
  /** Records that were accepted once and that the streams' present schema or codec refuses. */
  readonly refused: readonly Parked[];
  /** Records that are not for the consumer. */
  readonly passed: number;
  /** Where the next read begins. */
  readonly next: Offset;
  /** It ended at its limit, and more is there. */
  readonly moreFollows: boolean;
  readonly oldestReceivedAt: UnixMs;
}

export interface FeedOptions {
  readonly reader: Reader;
  readonly registry: Registry;
  /** Only readings of these streams; undefined: of all. */
  readonly only?: ReadonlySet<string> | undefined;
  readonly limit: ReadLimit;
}

/** The next chunk; undefined when there is nothing to read. */
export function readChunk({ reader, registry, only, limit }: FeedOptions): Chunk | undefined {
  const records = reader.read(limit);
  const [first] = records;
  if (first === undefined) return undefined;
  const entries: Entry[] = [];
  const refused: Parked[] = [];
  for (const record of records) {
    if (record.kind !== "accepted" || only?.has(record.stream) === false) continue;
    const result = registry.read(record.message, record.stream);
    if (result.kind === "reading") {
      entries.push({ offset: record.offset, reading: result.reading });
    } else {
      refused.push({ entry: record, error: describeRejection(result.rejection), attempts: 0 });
    }
  }
  return {
    entries,
    records,
    refused,
    passed: records.length - entries.length - refused.length,
    next: reader.position,
    moreFollows: reader.atLimit && reader.lag > 0,
    oldestReceivedAt: first.message.receivedAt,
  };
}

/** As a sentence for the operator. */
export const describeRejection = ({ reason, issues }: Pick<Rejection, "reason" | "issues">): string =>
  `${reason}: ${issues.map(toSentence).join("; ")}`;

const toSentence = ({ path, message }: Issue): string => (path === "" ? message : `${path}: ${message}`);
