// Streams of a NATS server, read and made by a client of the tests' own.

import type { Msg, NatsConnection, NodeConnectionOptions } from "@nats-io/transport-node";
import { connect } from "@nats-io/transport-node";
import { jetstream, jetstreamManager } from "@nats-io/jetstream";
import type { JetStreamManager, JsMsg, StreamConfig } from "@nats-io/jetstream";
import { onTestFinished } from "vitest";
import type { Server } from "../servers/server.ts";

export async function connectTo({ port }: Server, options: NodeConnectionOptions = {}): Promise<NatsConnection> {
  const connection = await connect({ servers: [`127.0.0.1:${port}`], reconnect: false, ...options });
  onTestFinished(() => connection.close());
  return connection;
}

export const manage = async (server: Server, options?: NodeConnectionOptions): Promise<JetStreamManager> =>
  await jetstreamManager(await connectTo(server, options));

/** A stream for everything below its own name, unless told otherwise. */
export async function addStream(
  server: Server,
  name: string,
  settings: Partial<Omit<StreamConfig, "name">> = {},
): Promise<void> {
  const manager = await manage(server);
  await manager.streams.add({ subjects: [`${name}.>`], ...settings, name });
}

/** Every message of a stream, in its order, as an ordered consumer gets it. */
export async function readStream(server: Server, name: string): Promise<readonly JsMsg[]> {
  const connection = await connectTo(server);
  const manager = await jetstreamManager(connection);
  const { state } = await manager.streams.info(name);
  if (state.messages === 0) return [];
  const consumer = await jetstream(connection).consumers.get(name);
  const found: JsMsg[] = [];
  for await (const message of await consumer.consume()) {
    found.push(message);
    if (message.info.pending === 0) break;
  }
  return found;
}

export const toDocument = (message: Pick<Msg, "json">): Record<string, unknown> => message.json();

export const readOffsets = async (server: Server, name: string): Promise<readonly number[]> =>
  (await readStream(server, name)).map((message) => Number(toDocument(message)["offset"]));
