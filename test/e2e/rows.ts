// The rows of the default sink.

import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { setTimeout as delay } from "node:timers/promises";
import type { GatewayProcess } from "../fixtures.ts";

export interface Row {
  readonly offset: number;
  readonly device: string;
  readonly time: number;
  readonly topic: string;
  readonly data: string;
}

/** Waits until there are `count` rows, read as another process does while the gateway writes. */
export async function readRows({ dataDir }: Pick<GatewayProcess, "dataDir">, count: number): Promise<readonly Row[]> {
  for (;;) {
    const rows = readNow(join(dataDir, "telemetry.db"));
    if (rows.length >= count) return rows;
    await delay(20);
  }
}

function readNow(path: string): readonly Row[] {
  try {
    using database = new DatabaseSync(path, { readOnly: true });
    return database.prepare("SELECT * FROM readings ORDER BY offset").all() as unknown as Row[];
  } catch {
    return []; // not made yet
  }
}
