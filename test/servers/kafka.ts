// librdkafka's mock of a Kafka cluster, which Debian's kcat has in it: a broker that speaks the protocol over TCP and keeps
// records in memory until it ends. It makes each topic that is asked for, with 4 partitions, of which each keeps
// its last 5 MB. What it lacks of a broker,
// kafka-forwarder.ts has: a port that stays the same, TLS, SASL, limits and errors.

import { execFile } from "node:child_process";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { promisify } from "node:util";
import { openForwarder, type Forwarder, type ForwarderOptions } from "./kafka-forwarder.ts";
import { startServer, type Server } from "./server.ts";

const run = promisify(execFile);

/** As kcat prints it; texts are UTF-8. */
export interface KafkaRecord {
  readonly topic: string;
  readonly partition: number;
  readonly offset: number;
  readonly ts: number;
  /** Names and values, one after the other. */
  readonly headers: readonly string[];
  readonly key: string;
  readonly payload: string;
}

export interface KafkaServer extends Server {
  /** Between the sink and the broker; `port` is its port. */
  readonly forwarder: Forwarder;
  /** Everything that the topic has, partition by partition, read by kcat. */
  read(topic: string): Promise<readonly KafkaRecord[]>;
}

export async function startKafka(options: ForwarderOptions = {}): Promise<KafkaServer> {
  // A pipe that is open for writing too never ends, and so kcat, which would produce its lines, does not either.
  const script = `rm -f input; mkfifo input; exec kcat -P -t unused -b unused:1 -X test.mock.num.brokers=1 -d mock 0<>input 2>log`;
  let dir = "";
  const broker = (): number =>
    Number(/bootstrap\.servers=127\.0\.0\.1:(\d+)/.exec(readFileSync(join(dir, "log"), "utf8"))?.[1]);
  const server = await startServer({
    command: "sh",
    args: () => ["-c", script],
    prepare: (place) => {
      ({ dir } = place);
      return Promise.resolve();
    },
    probe: async () => {
      await run("kcat", ["-L", "-b", `127.0.0.1:${broker()}`, "-m", "1"]);
    },
  });
  const forwarder = await openForwarder(server.port, broker, options);
  return {
    ...server,
    forwarder,
    // kcat waits for input before it obeys another signal, and has nothing to put in order.
    stop: () => server.stop("SIGKILL"),
    freeze() {
      server.freeze();
      forwarder.freeze(true);
    },
    thaw() {
      forwarder.freeze(false);
      server.thaw();
    },
    async read(topic) {
      const how = ["-C", "-q", "-e", "-J", "-o", "beginning", "-X", "fetch.wait.max.ms=10"];
      const { stdout } = await run("kcat", [...how, "-b", `127.0.0.1:${broker()}`, "-t", topic], {
        maxBuffer: 2 ** 28,
      });
      const lines = stdout.split("\n").filter(Boolean);
      const records = lines.map((line) => JSON.parse(line) as KafkaRecord);
      return records.toSorted((a, b) => a.partition - b.partition || a.offset - b.offset);
    },
    async [Symbol.asyncDispose]() {
      await forwarder[Symbol.asyncDispose]();
      await server[Symbol.asyncDispose]();
    },
  };
}
