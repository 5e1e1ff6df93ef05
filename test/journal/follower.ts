// A thread that reads a journal while it is written, and tells what it saw.

import { parentPort, workerData } from "node:worker_threads";
import { openReader, type JournalShare } from "../../src/journal/reader.ts";
import { SegmentTable } from "../../src/journal/table.ts";
import { toOffset } from "../../src/reading.ts";

const { share, count } = workerData as { readonly share: JournalShare; readonly count: number };
const table = new SegmentTable(share.table);
const never = new AbortController().signal;
let [read, outOfOrder, beyondDurable, lost] = [0, 0, 0, 0];
using reader = openReader(share, toOffset(0), () => (lost += 1));
while (read < count) {
  for (const { offset, message } of reader.read({ records: 100, bytes: 10_000 })) {
    if (offset !== read || message.clientId !== `d${offset}`) outOfOrder += 1;
    if (offset >= table.durable) beyondDurable += 1;
    read += 1;
  }
  if (reader.lag === 0 && read < count) await reader.wait(never, 1000);
}
parentPort?.postMessage({ read, outOfOrder, beyondDurable, lost });
