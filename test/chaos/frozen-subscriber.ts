// A subscriber that reads nothing: a socket by hand, because a library would read. What the system's buffers hold between the two is more
// than the devices send in a minute, so it fills them itself: what it publishes comes back to it.

import { once } from "node:events";
import { connect } from "node:net";
import { bytes, counted, packet } from "../broker/wire.ts";
import { PromiseBroken } from "./promise-broken.ts";

const CONNECT = bytes(0x10, 18, counted("MQTT"), 4, 2, 0, 0, counted("frozen"));
/** To everything, with QoS 0. */
const SUBSCRIBE = bytes(0x82, 6, 0, 1, counted("#"), 0);
/** CONNACK and SUBACK. */
const ANSWER_BYTES = 9;
const BALLAST = packet(0x30, counted("chaos/ballast"), Buffer.alloc(128 * 1_024));
const BALLAST_PACKETS = 128;
const PATIENCE_MS = 20_000;

/** Resolves when it is subscribed; from then on it reads nothing. Rejects when the gateway does not answer. */
export async function openFrozenSubscriber(port: number, signal: AbortSignal): Promise<Disposable> {
  const socket = connect(port, "127.0.0.1");
  socket.on("error", () => {}); // the gateway is killed
  try {
    await once(socket, "connect", { signal });
    socket.write(Buffer.concat([CONNECT, SUBSCRIBE]));
    for (let read = 0; read < ANSWER_BYTES;) {
      const patience = AbortSignal.any([signal, AbortSignal.timeout(PATIENCE_MS)]);
      const [data] = (await once(socket, "data", { signal: patience })) as [Buffer];
      read += data.length;
    }
  } catch (cause) {
    socket.destroy();
    throw new PromiseBroken(`the gateway does not take a subscriber: ${String(cause)}`);
  }
  socket.pause();
  for (let sent = 0; sent < BALLAST_PACKETS; sent += 1) socket.write(BALLAST);
  return { [Symbol.dispose]: () => void socket.destroy() };
}
