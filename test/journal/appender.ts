// A process that appends for ever and tells its parent what it would have acknowledged: how far the journal is durable.

import { openJournal } from "../../src/journal/journal.ts";
import { message } from "./message.ts";

const [, , dir = ""] = process.argv;
const journal = await openJournal({ dir, streams: ["climate"], maxBytes: 2 ** 30, segmentBytes: 64 * 1024 });
journal.onDurable((to) => process.send?.(to));
const append = (): void => {
  // Few records in flight keep the commits small and many: it is the instants between them that are tested.
  if (journal.next - journal.durable < 500) {
    for (let left = 1 + Math.floor(Math.random() * 40); left > 0; left -= 1) {
      // A record's length depends on its number, so that commits end anywhere in a page.
      const payload = `{"seq":${journal.next}}`.padEnd(20 + (journal.next % 300));
      journal.append(message(journal.next, payload), "climate");
    }
  }
  setImmediate(append);
};
append();
