// The messages of a JetStream stream, in its order. A consumer of its own, which the server forgets by itself, reads them and
// acknowledges nothing.

import type { Consumer, JetStreamManager } from "@nats-io/jetstream";
import type { NatsConnection } from "@nats-io/transport-node";
import { parseDocument } from "./documents.ts";
import type { Row, Source } from "./row.ts";

const PAGE = 2000;
/** How long to wait for a message when the stream has none that is new; at least 1,000. */
const WAIT_MS = 1000;

export function openNats(url: URL, stream: string): Source {
  let connection: NatsConnection | undefined;
  let opened: { readonly consumer: Consumer; readonly manager: JetStreamManager } | undefined;
  let lastSequence = 0;

  async function connect(): Promise<NonNullable<typeof opened>> {
    const [{ connect: connectNats }, { DeliverPolicy, jetstream }] = await Promise.all([
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
    const behind = { deliver_policy: DeliverPolicy.StartSequence, opt_start_seq: lastSequence + 1 };
    const client = jetstream(connection);
    const consumer = await client.consumers.get(stream, behind);
    return { consumer, manager: await client.jetstreamManager() };
  }

  /** Of one page; `pending` is how many are behind it. */
  async function readPage(from: Consumer): Promise<{ readonly rows: readonly Row[]; readonly pending: number }> {
    const rows: Row[] = [];
    let pending = 0;
    for await (const message of await from.fetch({ max_messages: PAGE, expires: WAIT_MS })) {
      ({ pending } = message.info);
      lastSequence = message.seq;
      const row = parseDocument(message.string());
      if (row !== undefined) rows.push(row);
      if (pending === 0) break;
    }
    return { rows, pending };
  }

  return {
    once: true,
    async *read() {
      try {
        opened ??= await connect();
        for (let pending = 1; pending > 0;) {
          const page = await readPage(opened.consumer);
          ({ pending } = page);
          yield page.rows;
        }
        // A server that has gone gives no messages either.
        await opened.manager.streams.info(stream);
      } catch (cause) {
        opened = undefined;
        throw cause;
      }
    },
    async [Symbol.asyncDispose]() {
      await connection?.close();
    },
  };
}
