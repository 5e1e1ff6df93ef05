// The messages of a JetStream stream, in its order. A consumer of its own, which the server forgets by itself, reads them and
// acknowledges nothing.

import type { Consumer } from "@nats-io/jetstream";
import type { NatsConnection } from "@nats-io/transport-node";
import { parseDocument } from "./documents.ts";
import type { Row, Source } from "./row.ts";

const PAGE = 2000;
/** How long to wait for a message when the stream has none that is new; at least 1,000. */
const WAIT_MS = 1000;

export function openNats(url: URL, stream: string): Source {
  let connection: NatsConnection | undefined;
  let consumer: Consumer | undefined;

  async function connect(): Promise<Consumer> {
    const [{ connect: connectNats }, { jetstream }] = await Promise.all([
      import("@nats-io/transport-node"),
      import("@nats-io/jetstream"),
    ]);
    await connection?.close();
    connection = await connectNats({
      servers: `${url.protocol}//${url.host}`,
      ...(url.username !== "" && { user: decodeURIComponent(url.username) }),
      ...(url.password !== "" && { pass: decodeURIComponent(url.password) }),
      reconnect: false,
      timeout: 10_000,
    });
    return await jetstream(connection).consumers.get(stream);
  }

  return {
    once: true,
    async *read() {
      consumer ??= await connect();
      for (let pending = 1; pending > 0; ) {
        const rows: Row[] = [];
        pending = 0;
        for await (const message of await consumer.fetch({ max_messages: PAGE, expires: WAIT_MS })) {
          ({ pending } = message.info);
          const row = parseDocument(message.string());
          if (row !== undefined) rows.push(row);
          if (pending === 0) break;
        }
        yield rows;
      }
    },
    async [Symbol.asyncDispose]() {
      await connection?.close();
    },
  };
}
