// A client beside the device that does what MQTT.js never would: packets, or any bytes, on a connection of its own.

import type { Duplex } from "node:stream";
import { generate, parser as createParser, type IConnectPacket, type Packet } from "mqtt-packet";
import type { Link } from "./fault.ts";

export interface SecondClient {
  send(packet: Packet): void;
  write(bytes: Uint8Array): void;
  /** Reads nothing more. */
  deafen(): void;
  close(): void;
}

export interface SecondClientEvents {
  readonly packet?: (packet: Packet, client: SecondClient) => void;
  /** Also when it never came about; once. */
  readonly closed?: () => void;
}

/** On a new connection to the broker, or on `stream`. */
export function openSecondClient(
  link: Link,
  { packet: onPacket, closed }: SecondClientEvents,
  stream: Duplex = link.openStream(),
): SecondClient {
  const protocolVersion = link.options.protocolVersion;
  const client: SecondClient = {
    send: (packet) => void stream.write(generate(packet, { protocolVersion })),
    write: (bytes) => void stream.write(bytes),
    deafen: () => void stream.pause(),
    close: () => void stream.destroy(),
  };
  const parser = createParser({ protocolVersion });
  parser.on("packet", (packet) => onPacket?.(packet, client));
  parser.on("error", () => stream.destroy());
  stream.on("data", (bytes: Buffer) => void parser.parse(bytes));
  // Whatever the reason is: it is closed then.
  stream.on("error", () => {});
  stream.on("close", () => closed?.());
  return client;
}

/** With the credentials of the device. */
export function toConnect(
  { identity: { device, username, password }, options: { protocolVersion, clean } }: Link,
  clientId: string,
): IConnectPacket {
  return {
    cmd: "connect",
    protocolId: "MQTT",
    protocolVersion,
    clientId,
    // In the device's place it has the device's session.
    clean: clean || clientId !== device,
    keepalive: 0,
    ...(username !== undefined && { username }),
    ...(password !== undefined && { password: Buffer.from(password) }),
  };
}
