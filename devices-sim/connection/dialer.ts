// Opens the connections of devices: TCP, TLS or WebSocket, each from an address of this machine.

import { connect as connectTcp, isIP, type Socket } from "node:net";
import type { Duplex } from "node:stream";
import { connect as connectTls } from "node:tls";
import type { MqttClient } from "mqtt";
import { streamBuilder as openWebSocket } from "mqtt/lib/connect/ws";
import { addressOf, type AddressRange } from "./addresses.ts";
import { createSecureContexts, type TlsOptions } from "./certificates.ts";

export interface BrokerOptions {
  readonly transport: "mqtt" | "mqtts" | "ws" | "wss";
  /** A name, or an address without brackets. */
  readonly host: string;
  readonly port: number;
  /** Of a WebSocket: path and query of its URL. */
  readonly path: string;
  /** With mqtts and wss. */
  readonly tls: TlsOptions | undefined;
  /** Where the devices come from, in turn; none: the system chooses. */
  readonly sources: readonly AddressRange[];
}

/** As people write it, without a query: that may hold a secret. */
export function brokerUrl({ transport, host, port, path }: BrokerOptions): string {
  const [where = ""] = path.split("?");
  return `${transport}://${isIP(host) === 6 ? `[${host}]` : host}:${port}${where === "/" ? "" : where}`;
}

/** Opens a connection each time that it is called; the stream tells its failure. */
export type Dial = (client: MqttClient) => Duplex;

/** Gives each device its dial. Throws when a file of `tls` cannot be used. */
export function createDialer(broker: BrokerOptions): (device: string, index: number) => Dial {
  const openTo = createSocketOpener(broker);
  if (broker.transport === "mqtt" || broker.transport === "mqtts") return (...device) => openTo(...device);
  const hostname = isIP(broker.host) === 6 ? `[${broker.host}]` : broker.host;
  return (...device) => {
    const createConnection = openTo(...device);
    return (client) => {
      const stream = openWebSocket(client, {
        ...client.options,
        protocol: broker.transport,
        hostname,
        port: broker.port,
        path: broker.path,
        // Compression would take 100 kB and more of each connection, for messages of a hundred bytes.
        wsOptions: { createConnection, perMessageDeflate: false },
      });
      // MQTT.js emits only errors that have a code; `ws` gives none to a handshake that was answered with 404.
      stream.once("error", (error: Error & { code?: string }) => {
        error.code ??= "WEBSOCKET";
      });
      return stream;
    };
  };
}

function createSocketOpener({
  host,
  port,
  tls,
  sources,
}: BrokerOptions): (device: string, index: number) => () => Socket {
  const secureContextOf = tls === undefined ? undefined : createSecureContexts(tls);
  return (device, index) => {
    const localAddress = addressOf(sources, index);
    const place = { host, port, ...(localAddress !== undefined && { localAddress, family: isIP(localAddress) }) };
    const secureContext = secureContextOf?.(device);
    if (tls === undefined || secureContext === undefined) return () => connectTcp(place).setNoDelay();
    // An address is no name for SNI (RFC 6066 section 3); the certificate is held against `host` all the same.
    const servername = tls.servername ?? (isIP(host) === 0 ? host : undefined);
    const secure = {
      secureContext,
      rejectUnauthorized: tls.isVerified,
      ...(servername !== undefined && { servername }),
    };
    return () => connectTls({ ...place, ...secure }).setNoDelay();
  };
}
