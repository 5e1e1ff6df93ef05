// CONNECT and CONNACK: MQTT 5 and 3.1.1, sections 3.1 and 3.2.

import { describe, expect } from "vitest";
import { bytes, counted, packet, properties, u16 } from "../broker/wire.ts";
import { publish } from "../broker/harness.ts";
import {
  acknowledge,
  connackOf,
  join,
  joinLasting,
  leave,
  recordBytes,
  say,
  subscribe,
  test,
  versions,
} from "./clients.ts";

const connect = (name: string, level: number, flags: number, ...tail: readonly (number | string | Buffer)[]): Buffer =>
  packet(0x10, counted(name), level, flags, u16(0), ...tail);
const none = properties();

/** Flags and code of a CONNACK, which must be all that came; undefined when nothing did. MQTT 5 may say more of the reason. */
function refusalIn(bytesReceived: Buffer): readonly number[] | undefined {
  if (bytesReceived.length === 0) return undefined;
  expect([bytesReceived[0], bytesReceived[1]]).toEqual([0x20, bytesReceived.length - 2]);
  return [...bytesReceived.subarray(2, 4)];
}

describe("CONNECT", () => {
  test("a second CONNECT is a protocol error and ends the connection [MQTT-3.1.0-2]", async ({ openHarness }) => {
    const harness = await openHarness();
    const client = await join(harness);
    client.send(connect("MQTT", 5, 2, none, counted("again")));
    expect(await client.next("disconnect")).toMatchObject({ reasonCode: 0x82 });
    await client.closed;
  });

  test("another protocol name is not answered, and ends the connection [MQTT-3.1.2-1]", async ({ openHarness }) => {
    const harness = await openHarness();
    const client = await harness.open();
    const received = recordBytes(client);
    client.send(connect("MQTS", 5, 2, none, counted("c1")));
    await client.closed;
    expect(received()).toHaveLength(0);
  });

  test("a version that is not known is answered with 0x84, or 1 in 3.1.1, and ends the connection [MQTT-3.1.2-2]", async ({
    openHarness,
  }) => {
    const harness = await openHarness();
    for (const [name, level, answer] of [
      ["MQTT", 6, [0, 0x84]],
      ["MQTT", 1, [0, 1]],
      ["MQIsdp", 4, [0, 1]],
    ] as const) {
      const client = await harness.open();
      const received = recordBytes(client);
      client.send(connect(name, level, 2, none, counted("c1")));
      await client.closed;
      expect(refusalIn(received())).toEqual(answer);
    }
  });

  test("the reserved flag ends the connection, with 0x81 in MQTT 5 [MQTT-3.1.2-3]", async ({ openHarness }) => {
    const harness = await openHarness();
    for (const [level, tail, answer] of [
      [5, [none, counted("c1")], [0, 0x81]],
      [4, [counted("c1")], undefined],
    ] as const) {
      const client = await harness.open();
      const received = recordBytes(client);
      client.send(connect("MQTT", level, 3, ...tail));
      await client.closed;
      expect(refusalIn(received())).toEqual(answer);
    }
  });

  test.for(["a", "0123456789abcdefghijklm", "nopqrstuvwxyzABCDEFGHIJ", "KLMNOPQRSTUVWXYZ"])(
    "the client identifier %s is allowed, in every version [MQTT-3.1.3-5]",
    async (clientId, { openHarness }) => {
      const harness = await openHarness();
      for (const protocolVersion of [3, 4, 5] as const) {
        const client = await join(harness, {
          clientId,
          protocolVersion,
          protocolId: protocolVersion === 3 ? "MQIsdp" : "MQTT",
        });
        expect(protocolVersion === 5 ? connackOf(client).reasonCode : connackOf(client).returnCode).toBe(0);
        await leave(client);
      }
    },
  );

  test("a client without an identifier gets one that nobody else has [MQTT-3.1.3-6] [MQTT-3.1.3-7] [MQTT-3.2.2-16]", async ({
    openHarness,
  }) => {
    const harness = await openHarness();
    const first = await join(harness, { clientId: "" });
    const second = await join(harness, { clientId: "" });
    const names = [first, second].map((client) => connackOf(client).properties?.assignedClientIdentifier);
    expect(names).toEqual([expect.stringMatching(/./), expect.stringMatching(/./)]);
    expect(new Set(names).size).toBe(2);
    const taker = await join(harness, { clientId: names[0] ?? "" });
    expect(await first.next("disconnect")).toMatchObject({ reasonCode: 0x8e });
    await leave(taker);
  });

  test("no identifier with Clean Session 0 is refused with 2 in 3.1.1 [MQTT-3.1.3-8]", async ({ openHarness }) => {
    const harness = await openHarness();
    const client = await harness.open();
    const received = recordBytes(client);
    client.send(connect("MQTT", 4, 0, counted("")));
    await client.closed;
    expect(refusalIn(received())).toEqual([0, 2]);
  });

  test("a 3.1.1 client without an identifier is connected with Clean Session 1", async ({ openHarness }) => {
    const harness = await openHarness();
    const client = await join(harness, { clientId: "", protocolVersion: 4 });
    expect(connackOf(client)).toMatchObject({ returnCode: 0, sessionPresent: false });
  });

  test("a Will Topic, a User Name and an identifier that are not UTF-8 are malformed [MQTT-3.1.3-4] [MQTT-3.1.3-11] [MQTT-3.1.3-12]", async ({
    openHarness,
  }) => {
    const harness = await openHarness();
    const surrogate = counted(0xed, 0xa0, 0x80);
    for (const whole of [
      connect("MQTT", 5, 2, none, surrogate),
      connect("MQTT", 5, 6, none, counted("c1"), none, surrogate, counted("gone")),
      connect("MQTT", 5, 0x82, none, counted("c1"), surrogate),
    ]) {
      const client = await harness.open();
      const received = recordBytes(client);
      client.send(whole);
      await client.closed;
      expect(refusalIn(received())).toEqual([0, 0x81]);
    }
  });

  test("what a flag announces must be there and nothing else [MQTT-3.1.2-9] [MQTT-3.1.2-11] [MQTT-3.1.2-16] [MQTT-3.1.2-17] [MQTT-3.1.2-18] [MQTT-3.1.2-19]", async ({
    openHarness,
  }) => {
    const harness = await openHarness();
    const id = counted("c1");
    for (const whole of [
      connect("MQTT", 5, 0x06, none, id), // a Will that does not come
      connect("MQTT", 5, 0x06, none, id, none, counted("w")), // a Will without its payload
      connect("MQTT", 5, 0x02, none, id, none, counted("w"), counted("gone")), // a Will that was not announced
      connect("MQTT", 5, 0x22, none, id), // Will Retain without a Will
      connect("MQTT", 5, 0x82, none, id),
      connect("MQTT", 5, 0x02, none, id, counted("user")),
      connect("MQTT", 5, 0xc2, none, id, counted("user")),
      connect("MQTT", 5, 0x82, none, id, counted("user"), counted("password")),
    ]) {
      const client = await harness.open();
      const received = recordBytes(client);
      client.send(whole);
      await client.closed;
      expect(refusalIn(received())).toEqual([0, 0x81]);
    }
  });

  test.for(versions)(
    "a client that is refused in version %s is told so, closed, and what it sent is not looked at [MQTT-3.1.4-2] [MQTT-3.1.4-6] [MQTT-3.2.2-6] [MQTT-3.2.2-7]",
    async (protocolVersion, { openHarness }) => {
      const harness = await openHarness({
        authenticate: () => Promise.resolve({ kind: "refused", reason: "unknown" }),
      });
      const client = await harness.open();
      const received = recordBytes(client);
      client.send(
        connect("MQTT", protocolVersion, 2, ...(protocolVersion === 5 ? [none] : []), counted("c1")),
        publish({ qos: 0 }),
      );
      await client.closed;
      expect(refusalIn(received())).toEqual([0, protocolVersion === 5 ? 0x87 : 5]);
      expect(harness.taken).toEqual([]);
    },
  );

  test("what follows CONNECT in the same chunk is taken after CONNACK [MQTT-3.1.4-5]", async ({ openHarness }) => {
    const harness = await openHarness();
    harness.autoCommit = true;
    const client = await harness.open();
    client.send(
      bytes(connect("MQTT", 4, 2, counted("c1")), bytes(0x82, 6, 0, 1, 0, 1, "a", 0)),
      publish({ messageId: 2 }),
      { cmd: "pingreq" },
    );
    await client.next("pingresp");
    await client.next("puback");
    await client.next("suback");
    expect(client.packets[0]).toMatchObject({ cmd: "connack", returnCode: 0 });
    expect(harness.taken).toHaveLength(1);
  });

  test("an authentication method that is not known is refused with 0x8C [MQTT-4.12.0-1]", async ({ openHarness }) => {
    const harness = await openHarness();
    const client = await harness.open();
    const received = recordBytes(client);
    client.send(connect("MQTT", 5, 2, properties(0x15, counted("SCRAM-SHA-1")), counted("c1")));
    await client.closed;
    expect(received()[3]).toBe(0x8c);
  });

  test("AUTH without a method in CONNECT is a protocol error [MQTT-4.12.0-6] [MQTT-4.12.0-7]", async ({
    openHarness,
  }) => {
    const harness = await openHarness();
    const client = await join(harness);
    expect(connackOf(client).properties).not.toHaveProperty("authenticationMethod");
    client.send(packet(0xf0, 0x18, properties(0x15, counted("SCRAM-SHA-1"))));
    expect(await client.next("disconnect")).toMatchObject({ reasonCode: 0x82 });
    await client.closed;
  });
});

describe("CONNACK", () => {
  test.for(versions)(
    "is the first packet and comes once, also when messages wait in version %s [MQTT-3.2.0-1] [MQTT-3.2.0-2]",
    async (version, { openHarness }) => {
      const harness = await openHarness();
      const away = await joinLasting(harness, version);
      await subscribe(away, [{ topic: "news", qos: 1 }]);
      await leave(away);
      const sender = await join(harness, { clientId: "sender" });
      for (let index = 0; index < 4; index += 1) await say(sender, { topic: "news" });
      const back = await joinLasting(harness, version);
      for (let index = 0; index < 4; index += 1) await acknowledge(back, await back.next("publish"));
      expect(back.packets.map(({ cmd }) => cmd)).toEqual(["connack", "publish", "publish", "publish", "publish"]);
    },
  );

  test("has no reserved flag set [MQTT-3.2.2-1]", async ({ openHarness }) => {
    const harness = await openHarness();
    const client = await harness.open();
    const received = recordBytes(client);
    await client.connect({ protocolVersion: 5 });
    expect(received()[2]).toBe(0);
  });

  test("tells what is enforced: packet size, receive maximum, no shared subscriptions", async ({ openHarness }) => {
    const harness = await openHarness({ limits: { maximumPacketBytes: 2_000, maximumInflightQos2: 7 } });
    const client = await join(harness);
    expect(connackOf(client)).toMatchObject({
      reasonCode: 0,
      properties: { maximumPacketSize: 2_000, receiveMaximum: 7, sharedSubscriptionAvailable: false },
    });
  });

  test("holds no Response Information that was not asked for [MQTT-3.1.2-28]", async ({ openHarness }) => {
    const harness = await openHarness();
    const client = await join(harness, { properties: { requestResponseInformation: false } });
    expect(connackOf(client).properties).not.toHaveProperty("responseInformation");
  });

  test("fits into the client's maximum packet size [MQTT-3.1.2-24] [MQTT-3.2.2-19] [MQTT-3.2.2-20]", async ({
    openHarness,
  }) => {
    const harness = await openHarness();
    const client = await harness.open();
    const received = recordBytes(client);
    await client.connect({ protocolVersion: 5, properties: { maximumPacketSize: 30 } });
    expect(received().length).toBeLessThanOrEqual(30);
  });
});
