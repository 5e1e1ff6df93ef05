// PINGREQ and DISCONNECT: MQTT 5 sections 3.12 to 3.14.

import { describe, expect } from "vitest";
import { publish } from "../broker/harness.ts";
import { bytes, packet, properties } from "../broker/wire.ts";
import { join, recordBytes, test, versions } from "./clients.ts";

test.for(versions)(
  "PINGREQ is answered by PINGRESP in version %s [MQTT-3.12.4-1]",
  async (version, { openHarness }) => {
    const harness = await openHarness();
    const client = await join(harness, { protocolVersion: version });
    const received = recordBytes(client);
    client.send({ cmd: "pingreq" });
    await client.next("pingresp");
    expect([...received()]).toEqual([0xd0, 0]);
  },
);

describe("DISCONNECT of a client", () => {
  test.for(versions)(
    "ends the connection in version %s, and nothing behind it is taken [MQTT-3.14.4-1] [MQTT-3.14.4-2]",
    async (version, { openHarness }) => {
      const harness = await openHarness();
      const client = await join(harness, { protocolVersion: version });
      client.send({ cmd: "disconnect" }, publish({ qos: 0 }));
      await client.closed;
      expect(await harness.nextEnd()).toBe("client");
      expect(harness.taken).toEqual([]);
    },
  );

  test("with reserved flags is malformed: 0x81 [MQTT-3.14.1-1]", async ({ openHarness }) => {
    const harness = await openHarness();
    const client = await join(harness);
    client.send(bytes(0xe1, 0));
    expect(await client.next("disconnect")).toMatchObject({ reasonCode: 0x81 });
    await client.closed;
    const old = await join(harness, { protocolVersion: 4 });
    old.send(bytes(0xe1, 0));
    await old.closed;
    expect([await harness.nextEnd(), await harness.nextEnd()]).toEqual(["protocol", "protocol"]);
  });

  test("with a reason that no client may give is a protocol error [MQTT-3.14.2-1]", async ({ openHarness }) => {
    const harness = await openHarness();
    const client = await join(harness);
    client.send(packet(0xe0, 0x8e));
    expect(await client.next("disconnect")).toMatchObject({ reasonCode: 0x82 });
    await client.closed;
  });

  test("may not give a session an end that CONNECT did not", async ({ openHarness }) => {
    const harness = await openHarness();
    const client = await join(harness);
    client.send(packet(0xe0, 0, properties(0x11, 0, 0, 0, 9)));
    expect(await client.next("disconnect")).toMatchObject({ reasonCode: 0x82 });
    await client.closed;
  });
});

describe("DISCONNECT of the gateway", () => {
  test("is the last packet, has no Session Expiry Interval, and the connection ends [MQTT-3.14.2-2] [MQTT-3.14.4-1] [MQTT-3.14.4-2]", async ({
    openHarness,
  }) => {
    const harness = await openHarness();
    const client = await join(harness);
    client.send(bytes(0xc1, 0), { cmd: "pingreq" }, publish({ messageId: 1 }));
    const last = await client.next("disconnect");
    expect(last.properties ?? {}).not.toHaveProperty("sessionExpiryInterval");
    await client.closed;
    expect(client.packets.at(-1)).toBe(last);
  });

  test("does not come before CONNACK, nor in 3.1.1 [MQTT-3.14.0-1]", async ({ openHarness }) => {
    const harness = await openHarness({ limits: { connectTimeoutMs: 100 } });
    const silent = await harness.open();
    const toSilent = recordBytes(silent);
    silent.send(bytes(0x10));
    await silent.closed;
    expect(toSilent()).toHaveLength(0);
    const old = await join(harness, { protocolVersion: 4 });
    const toOld = recordBytes(old);
    old.send(bytes(0xc1, 0));
    await old.closed;
    expect(toOld()).toHaveLength(0);
  });

  test("fits into the client's maximum packet size, if need be without its reason [MQTT-3.14.2-3] [MQTT-3.1.2-24]", async ({
    openHarness,
  }) => {
    const harness = await openHarness();
    const client = await join(harness, { properties: { maximumPacketSize: 25 } });
    const received = recordBytes(client);
    client.send(bytes(0xc1, 0));
    await client.closed;
    expect(received().length).toBeLessThanOrEqual(25);
  });
});
