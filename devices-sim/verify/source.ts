// Which source reads which sink.

import { openNats } from "./nats.ts";
import { openNdjson } from "./ndjson.ts";
import { openPostgres } from "./postgres.ts";
import type { Source } from "./row.ts";
import { openSqlite } from "./sqlite.ts";
import type { Target } from "./target.ts";

export type SinkTarget = Exclude<Target, { readonly kind: "rejects" }>;

export const isSink = (target: Target): target is SinkTarget => target.kind !== "rejects";

/** Connects with the first read. */
export function openSource(target: SinkTarget): Source {
  if (target.kind === "postgres") return openPostgres(target.url);
  if (target.kind === "nats") return openNats(target.url, target.stream);
  return target.kind === "sqlite" ? openSqlite(target.path) : openNdjson(target.path);
}
