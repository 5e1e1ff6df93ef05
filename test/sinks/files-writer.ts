// A gateway as far as the sink of files knows one, to be killed: writes `count` readings of three streams in batches of random
// sizes, from the sink's position on. Arguments: folder, format, count. Says when it begins; ends when the last file is closed.

import { argv, stdout } from "node:process";
import { z } from "zod";
import { toOffset } from "../../src/reading.ts";
import type { Entry } from "../../src/reading.ts";
import { files } from "../../src/sinks/files/files.ts";

const [, , path = "", format = "", count = ""] = argv;
const { sink: type } = files();
const settings = type.settings.parse({ path, format, rotate: { bytes: 8_000 } });
const names = ["climate", "power", "water"];
const streams = names.map((name) => ({ name, schema: z.unknown() }));
const context = { gateway: "gateway-1", dataDir: path, name: "files", streams, warn: () => {} };
await using sink = await type.open(settings, context);
let next = (await sink.position?.()) ?? 0;
stdout.write("begins\n");

while (next < Number(count)) {
  const to = Math.min(Number(count), next + 1 + Math.floor(Math.random() * 20));
  const entries = Array.from({ length: to - next }, (_, index) => makeEntry(next + index));
  await sink.write({ gateway: "gateway-1", entries, next: toOffset(to) }, new AbortController().signal);
  next = to;
}

function makeEntry(offset: number): Entry {
  const reading = {
    stream: names[offset % 3] ?? "",
    deviceId: "device-1",
    topic: "devices/device-1/telemetry",
    time: offset,
    // An hour ends now and then.
    receivedAt: offset * 2_000,
    data: { offset },
  };
  return { offset: toOffset(offset), reading };
}
