// A client of a broker that keeps every message, also of the time when the broker was away.

import { randomUUID } from "node:crypto";
import { connectAsync, type IPublishPacket } from "mqtt";

export interface Collector extends AsyncDisposable {
  /** Everything that the broker had acknowledged before the call, in the order of its arrival. */
  collect(): Promise<readonly IPublishPacket[]>;
}

/** Subscribes to everything with QoS 2, in a session that outlives its connections. */
export async function openCollector(port: number): Promise<Collector> {
  const client = await connectAsync(`mqtt://127.0.0.1:${port}`, {
    protocolVersion: 5,
    clientId: `collector-${randomUUID()}`,
    clean: false,
    properties: { sessionExpiryInterval: 3_600 },
    reconnectPeriod: 20,
    resubscribe: false,
  });
  const packets: IPublishPacket[] = [];
  client.on("message", (_topic, _payload, packet) => packets.push(packet));
  await client.subscribeAsync("#", { qos: 2 });
  const next = (event: "connect" | "packetreceive"): Promise<void> =>
    new Promise((resolve) => void client.once(event, () => resolve()));
  let markers = 0;
  return {
    async collect() {
      markers += 1;
      const marker = `collector/${markers}`;
      if (!client.connected) await next("connect");
      // What has been acknowledged before is ahead of it in the queue of this session.
      await client.publishAsync(marker, "", { qos: 1 });
      while (!packets.some(({ topic }) => topic === marker)) await next("packetreceive");
      return packets.filter(({ topic }) => !topic.startsWith("collector/"));
    },
    [Symbol.asyncDispose]: () => client.endAsync(true),
  };
}
