// A process whose libuv pool is held by file operations that hang, while it commits to a journal one record at a time.
// Tells its parent how many commits were made meanwhile, and whether another file operation could settle.

import { stat } from "node:fs/promises";
import { openJournal } from "../../src/journal/journal.ts";
import { hangFiles } from "./hung-files.ts";
import { message } from "./message.ts";

const [, , dir = "", threads = "", commits = ""] = process.argv;
await using journal = await openJournal({ dir: `${dir}/journal`, streams: ["climate"], maxBytes: 2 ** 30 });
let settledMeanwhile = false;
let hangs: Promise<void>;
{
  await using _hung = await hangFiles(dir, Number(threads));
  hangs = stat(dir).then(() => {
    settledMeanwhile = true;
  });
  for (let left = Number(commits); left > 0; left -= 1) {
    journal.append(message(journal.next), "climate");
    await journal.flush();
  }
  process.send?.({ commits: journal.stats().commits, settledMeanwhile });
}
// Nothing but the hung ones held it.
await hangs;
