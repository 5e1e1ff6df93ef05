// A process that uses the kafka sink and then has nothing left to do; what keeps it alive is a leak.
//
//   kafka-client.ts PORT close   writes, waits for a line on stdin, closes the sink
//   kafka-client.ts PORT abort   the same, and before it closes the sink it begins to write much and gives that up
//   kafka-client.ts PORT login   is refused: user and password are wrong

import { once } from "node:events";
import { argv, stdin, stdout } from "node:process";
import { toOffset } from "../../src/reading.ts";
import { kafka } from "../../src/sinks/kafka.ts";
import type { Sink } from "../../src/sinks/sink.ts";
import { makeBatch, makeEntry } from "../contract/sink.ts";

const [, , port, what] = argv;

function open(settings: Record<string, unknown> = {}): Promise<Sink> {
  const { sink, given } = kafka({ brokers: [`127.0.0.1:${port}`], ...settings });
  const context = { gateway: "gateway-1", dataDir: ".", name: "tested", streams: [], warn: () => {} };
  return sink.open(sink.settings.parse(given), context);
}

async function writeAndClose(): Promise<void> {
  await using sink = await open();
  await sink.write(makeBatch([0, 1, 2]), new AbortController().signal);
  stdout.write("written\n");
  await once(stdin, "data");
  stdin.destroy();
  if (what === "close") return;
  const abort = new AbortController();
  const entries = [makeEntry(3, "x".repeat(20_000_000))];
  const written = sink.write({ gateway: "gateway-1", entries, next: toOffset(4) }, abort.signal);
  setImmediate(() => abort.abort(new Error("enough")));
  await written.catch(() => {});
}

if (what === "login") await open({ sasl: { mechanism: "plain", username: "x", password: "x" } }).catch(() => {});
else await writeAndClose();
