// Between a Kafka client and one broker: https://kafka.apache.org/protocol. A request is its length, API key, version,
// correlation id and client id, and a body; a response is its length, the correlation id of its request, and a body. The
// forwarder says in every Metadata response (version 2) that the broker is at another port. On demand it speaks
// TLS, asks for SASL, or makes Produce (version 7) and Metadata requests fail.

import { once } from "node:events";
import { readFileSync } from "node:fs";
import { connect, createServer, type Server, type Socket } from "node:net";
import { createServer as createTlsServer } from "node:tls";
import type { Certificates } from "./certificates.ts";

export interface ForwarderOptions {
  /** It speaks TLS, and wants a certificate of the client. */
  readonly tls?: Certificates;
  /** Passwords by user name; SASL's mechanism PLAIN, RFC 4616. */
  readonly users?: Readonly<Record<string, string>>;
  /** It does not close a connection because its client has: as a broker that hangs. */
  readonly keepsConnections?: boolean;
}

export interface Forwarder extends AsyncDisposable {
  /** The port that clients are sent to: its own, unless something stands before it. */
  advertised: number;
  /** How often each API has been asked for since the start, by its key. */
  readonly requests: Map<number, number>;
  /** What Produce requests have asked for: -1 is all replicas in step. */
  readonly acks: Set<number>;
  /** The broker does not store what a partition is sent when this gives a code, which is the answer then. */
  refuse: ((recordBytes: number) => number | undefined) | undefined;
  /** The code with which each topic is answered that somebody asks about. */
  topicError: number | undefined;
  /** What a client sends of its next Produce request reaches the broker, and the connection breaks before the answer. */
  breakAfterProduce: boolean;
  /** Those that may send something yet. */
  readonly clients: ReadonlySet<Socket>;
  /** Reads nothing more of its clients, or goes on with that. */
  freeze(frozen: boolean): void;
}

export const apis = {
  produce: 0,
  metadata: 3,
  saslHandshake: 17,
  apiVersions: 18,
  initProducerId: 22,
  saslAuthenticate: 36,
};
/** Kafka's socket.request.max.bytes: what looks larger, such as the beginning of TLS, ends the connection. */
const FRAME_BYTES = 100 * 1024 * 1024;
/** A partition that no broker has: how a request is made to be refused. */
const NOWHERE = 1_000_000;

export async function openForwarder(port: number, broker: () => number, options: ForwarderOptions): Promise<Forwarder> {
  const sockets = new Set<Socket>();
  const clients = new Set<Socket>();
  const forwarder: Forwarder = {
    advertised: port,
    requests: new Map(),
    acks: new Set(),
    refuse: undefined,
    topicError: undefined,
    breakAfterProduce: false,
    clients,
    freeze(frozen) {
      for (const client of clients) {
        if (frozen) client.pause();
        else client.resume();
      }
    },
    async [Symbol.asyncDispose]() {
      for (const socket of sockets) socket.destroy();
      server.close();
      await once(server, "close");
    },
  };
  const server = listen(options, (client) => {
    const upstream = connect(broker(), "127.0.0.1");
    clients.add(client);
    client.on("end", () => clients.delete(client));
    for (const [socket, other] of [
      [client, upstream],
      [upstream, client],
    ] as const) {
      sockets.add(socket);
      socket.on("error", () => {});
      socket.on("close", () => {
        sockets.delete(socket);
        clients.delete(socket);
        other.destroy();
      });
    }
    forward({ client, upstream, broker: broker(), options, forwarder });
  });
  // Also those with which no agreement about TLS was found.
  server.on("connection", (socket: Socket) => sockets.add(socket.on("close", () => sockets.delete(socket))));
  server.listen(port, "127.0.0.1");
  await once(server, "listening");
  return forwarder;
}

function listen(
  { tls, keepsConnections: allowHalfOpen = false }: ForwarderOptions,
  onClient: (client: Socket) => void,
): Server {
  if (tls === undefined) return createServer({ allowHalfOpen }, onClient);
  const [cert, key, ca] = [tls.server.cert, tls.server.key, tls.ca].map((path) => readFileSync(path));
  const server = createTlsServer({ cert, key, ca, requestCert: true }, onClient);
  server.on("tlsClientError", () => {});
  return server;
}

interface Link {
  readonly client: Socket;
  readonly upstream: Socket;
  readonly broker: number;
  readonly options: ForwarderOptions;
  readonly forwarder: Forwarder;
}

function forward({ client, upstream, broker, options, forwarder }: Link): void {
  /** API keys of the requests that are not answered, by correlation id. */
  const asked = new Map<number, number>();
  /** What the partitions of Produce requests that were made to fail are answered. */
  let code = 0;

  function refusePartitions(frame: Buffer): void {
    for (const { index, bytes } of partitionsOfRequest(frame)) {
      const found = forwarder.refuse?.(bytes);
      if (found === undefined) continue;
      code = found;
      frame.writeInt32BE(frame.readInt32BE(index) + NOWHERE, index);
    }
  }

  function tellRefused(frame: Buffer): void {
    for (const index of partitionsOfResponse(frame)) {
      if (frame.readInt32BE(index) < NOWHERE) continue;
      frame.writeInt32BE(frame.readInt32BE(index) - NOWHERE, index);
      frame.writeInt16BE(code, index + 4);
    }
  }

  onFrames(client, (frame) => {
    const [api, id] = [frame.readInt16BE(4), frame.readInt32BE(8)];
    forwarder.requests.set(api, (forwarder.requests.get(api) ?? 0) + 1);
    const answer = options.users === undefined ? undefined : answerSasl(api, id, frame, options.users);
    if (answer !== undefined) {
      client.write(answer);
      return;
    }
    asked.set(id, api);
    if (api === apis.produce) {
      forwarder.acks.add(frame.readInt16BE(skipText(frame, skipText(frame, 12))));
      refusePartitions(frame);
    }
    upstream.write(frame);
  });

  onFrames(upstream, (frame) => {
    const id = frame.readInt32BE(4);
    const api = asked.get(id);
    asked.delete(id);
    if (api === apis.produce && forwarder.breakAfterProduce) {
      forwarder.breakAfterProduce = false;
      client.destroy();
      return;
    }
    if (api === apis.produce) tellRefused(frame);
    if (api === apis.metadata) {
      const topics = moveBroker(frame, broker, forwarder.advertised);
      const isAboutTopics = frame.readInt32BE(topics) > 0;
      if (forwarder.topicError !== undefined && isAboutTopics) frame.writeInt16BE(forwarder.topicError, topics + 4);
    }
    client.write(frame);
  });
}

function onFrames(socket: Socket, take: (frame: Buffer) => void): void {
  let chunks: Buffer[] = [];
  let [length, wanted] = [0, 4];
  socket.on("data", (chunk: Buffer) => {
    chunks.push(chunk);
    length += chunk.length;
    if (length < wanted) return;
    let rest = Buffer.concat(chunks);
    while (rest.length >= 4 && rest.length >= 4 + rest.readInt32BE(0)) {
      const end = 4 + rest.readInt32BE(0);
      take(rest.subarray(0, end));
      rest = rest.subarray(end);
    }
    [chunks, length] = [[rest], rest.length];
    wanted = rest.length >= 4 ? 4 + rest.readInt32BE(0) : 4;
    if (wanted > FRAME_BYTES) socket.destroy();
  });
}

/** Behind a text with a length of 2 bytes, which is -1 for none. */
const skipText = (frame: Buffer, at: number): number => at + 2 + Math.max(0, frame.readInt16BE(at));

/** Where each partition's number is, and how many bytes of records it is sent. Produce request, version 7. */
function* partitionsOfRequest(frame: Buffer): Generator<{ readonly index: number; readonly bytes: number }> {
  let at = skipText(frame, skipText(frame, 12)) + 6;
  const topics = frame.readInt32BE(at);
  at += 4;
  for (let topic = 0; topic < topics; topic += 1) {
    at = skipText(frame, at);
    const partitions = frame.readInt32BE(at);
    at += 4;
    for (let partition = 0; partition < partitions; partition += 1) {
      const bytes = frame.readInt32BE(at + 4);
      yield { index: at, bytes };
      at += 8 + bytes;
    }
  }
}

/** Where each partition's number is; its error code stands behind it. Produce response, version 7. */
function* partitionsOfResponse(frame: Buffer): Generator<number> {
  const topics = frame.readInt32BE(8);
  let at = 12;
  for (let topic = 0; topic < topics; topic += 1) {
    at = skipText(frame, at);
    const partitions = frame.readInt32BE(at);
    at += 4;
    for (let partition = 0; partition < partitions; partition += 1) {
      yield at;
      at += 4 + 2 + 8 + 8 + 8;
    }
  }
}

/** Returns where the number of topics is; the first one's error code stands behind it. Metadata response, version 2. */
function moveBroker(frame: Buffer, from: number, to: number): number {
  const brokers = frame.readInt32BE(8);
  let at = 12;
  for (let broker = 0; broker < brokers; broker += 1) {
    const port = skipText(frame, at + 4);
    if (frame.readInt32BE(port) === from) frame.writeInt32BE(to, port);
    at = skipText(frame, port + 4);
  }
  return skipText(frame, at) + 4;
}

const errors = { none: 0, unsupportedMechanism: 33, saslAuthenticationFailed: 58 };

/** SaslHandshake, version 1, and SaslAuthenticate, version 2. */
function answerSasl(
  api: number,
  id: number,
  frame: Buffer,
  users: NonNullable<ForwarderOptions["users"]>,
): Buffer | undefined {
  if (api === apis.saslHandshake) {
    const at = skipText(frame, 12);
    const isPlain = frame.toString("utf8", at + 2, skipText(frame, at)) === "PLAIN";
    return toResponse(id, [
      toInt16(isPlain ? errors.none : errors.unsupportedMechanism),
      Buffer.from([0, 0, 0, 1, 0, 5]),
      Buffer.from("PLAIN"),
    ]);
  }
  if (api === apis.saslAuthenticate) {
    const known = Object.entries(users).some(([user, password]) => frame.includes(`\0${user}\0${password}\0`));
    // No tagged fields; the code; no text; no bytes; a session without an end; no tagged fields.
    const rest = Buffer.from([0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    return toResponse(id, [Buffer.from([0]), toInt16(known ? errors.none : errors.saslAuthenticationFailed), rest]);
  }
  return undefined;
}

function toInt16(value: number): Buffer {
  const bytes = Buffer.alloc(2);
  bytes.writeInt16BE(value);
  return bytes;
}

function toResponse(id: number, body: readonly Buffer[]): Buffer {
  const head = Buffer.alloc(8);
  head.writeInt32BE(4 + body.reduce((sum, { length }) => sum + length, 0));
  head.writeInt32BE(id, 4);
  return Buffer.concat([head, ...body]);
}
