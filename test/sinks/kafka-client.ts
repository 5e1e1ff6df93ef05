// A process that writes with the kafka sink and then has nothing left to do; what keeps it alive is a leak. The test tells
// it on stdin when to go on.
//
//   kafka-client.ts PORT write|abort     write: closes the sink. abort: writes once more, and gives that up, before.

import { argv, stdin, stdout } from "node:process";
import { once } from "node:events";
import { kafka } from "../../src/sinks/kafka.ts";
import { makeBatch } from "../contract/sink.ts";

const [, , port, what] = argv;
const { sink, given } = kafka({ brokers: [`127.0.0.1:${port}`] });
const context = { gateway: "gateway-1", dataDir: ".", name: "tested", streams: [], warn: () => {} };
const opened = await sink.open(sink.settings.parse(given), context);
await opened.write(makeBatch([0, 1, 2]), new AbortController().signal);
stdout.write("written\n");
await once(stdin, "data");
if (what === "abort") {
  const abort = new AbortController();
  const written = opened.write(makeBatch([3, 4, 5]), abort.signal);
  abort.abort(new Error("enough"));
  await written.catch(() => {});
}
await opened[Symbol.asyncDispose]();
stdin.destroy();
