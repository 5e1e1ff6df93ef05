// What a device is told of a message, in 3.1.1 and in 5.

import { describe, expect } from "vitest";
import { type Harness, publish, type RawClient, test } from "./harness.ts";

type Connect = NonNullable<Parameters<RawClient["connect"]>[0]>;

const v5: Connect = { protocolVersion: 5 };
const lasting5: Connect = { ...v5, clean: false, properties: { sessionExpiryInterval: 60 } };

async function open(harness: Harness, options: Connect): Promise<RawClient> {
  const client = await harness.open();
  await client.connect(options);
  return client;
}

async function handled(client: RawClient): Promise<void> {
  client.send({ cmd: "pingreq" });
  await client.next("pingresp");
}

describe("a rejected message", () => {
  test("is answered when it is on disk, in 5 with code 0x99, a sentence and the places that are wrong", async ({
    openHarness,
  }) => {
    const harness = await openHarness();
    const client = await open(harness, v5);
    client.send(publish({ messageId: 1, payload: "bad" }), publish({ messageId: 2 }));
    await handled(client);
    expect(client.packets.map(({ cmd }) => cmd)).not.toContain("puback");
    harness.commit();
    expect(await client.next("puback")).toMatchObject({
      messageId: 1,
      reasonCode: 0x99,
      properties: { reasonString: "invalid: metrics.t: bad", userProperties: { reason: "invalid", path: "metrics.t" } },
    });
    expect(await client.next("puback")).toMatchObject({ messageId: 2, reasonCode: 0 });
  });

  test("for another device is answered with 0x87", async ({ openHarness }) => {
    const harness = await openHarness();
    harness.autoCommit = true;
    const client = await open(harness, v5);
    client.send(publish({ messageId: 1, payload: "stranger" }));
    expect(await client.next("puback")).toMatchObject({
      reasonCode: 0x87,
      properties: { reasonString: "identity: not yours" },
    });
  });

  test("is answered with the code alone when the client wants no more [MQTT-3.1.2-29]", async ({ openHarness }) => {
    const harness = await openHarness();
    harness.autoCommit = true;
    const client = await open(harness, { ...v5, properties: { requestProblemInformation: false } });
    client.send(publish({ messageId: 1, payload: "bad" }));
    const answer = await client.next("puback");
    expect(answer).toMatchObject({ messageId: 1, reasonCode: 0x99 });
    expect(answer.properties).toBeUndefined();
  });

  test.for([
    [40, { reasonString: "invalid: metrics.t: bad" }],
    [20, undefined],
  ] as const)(
    "tells no more than fits into the %i bytes that the client takes [MQTT-3.4.2-2] [MQTT-3.4.2-3]",
    async ([maximumPacketSize, told], { openHarness }) => {
      const harness = await openHarness();
      harness.autoCommit = true;
      const client = await harness.open();
      client.send({
        cmd: "connect",
        clientId: "small",
        protocolId: "MQTT",
        protocolVersion: 5,
        clean: true,
        keepalive: 0,
        properties: { maximumPacketSize },
      });
      client.speak(5);
      await client.next("connack");
      client.send(publish({ messageId: 1, payload: "bad" }));
      const answer = await client.next("puback");
      expect(answer).toMatchObject({ messageId: 1, reasonCode: 0x99 });
      expect(answer.properties).toEqual(told);
    },
  );

  test("is acknowledged like any other in 3.1.1, and the client stays", async ({ openHarness }) => {
    const harness = await openHarness();
    harness.autoCommit = true;
    const client = await open(harness, {});
    client.send(publish({ messageId: 1, payload: "bad" }), publish({ messageId: 2, payload: "bad", qos: 2 }));
    expect(await client.next("puback")).toMatchObject({ messageId: 1, length: 2 });
    expect(await client.next("pubrec")).toMatchObject({ messageId: 2, length: 2 });
    client.send({ cmd: "pubrel", messageId: 2 });
    expect(await client.next("pubcomp")).toMatchObject({ messageId: 2 });
  });
});

describe("a rejected QoS 2 message in 5", () => {
  test.for([
    ["of a session that lasts", lasting5],
    ["of one that does not", v5],
  ] as const)(
    "%s is over with its PUBREC: the packet identifier is another message then [MQTT-4.3.3-9]",
    async ([, options], { openHarness }) => {
      const harness = await openHarness();
      harness.autoCommit = true;
      const client = await open(harness, options);
      client.send(publish({ qos: 2, messageId: 1, payload: "bad" }));
      expect(await client.next("pubrec")).toMatchObject({ messageId: 1, reasonCode: 0x99 });
      client.send(publish({ qos: 2, messageId: 1, payload: "good" }));
      expect(await client.next("pubrec")).toMatchObject({ messageId: 1, reasonCode: 0 });
      client.send({ cmd: "pubrel", messageId: 1 });
      expect(await client.next("pubcomp")).toMatchObject({ messageId: 1 });
      expect(harness.taken.map(({ text }) => text)).toEqual(["bad", "good"]);
    },
  );

  test("is rejected again when its PUBREC was lost and it comes again", async ({ openHarness }) => {
    const harness = await openHarness();
    const first = await open(harness, lasting5);
    first.send(publish({ qos: 2, messageId: 1, payload: "bad" }));
    await handled(first);
    first.socket.destroy();
    await harness.nextEnd();
    harness.commit();
    const second = await open(harness, lasting5);
    harness.autoCommit = true;
    second.send(publish({ qos: 2, messageId: 1, payload: "bad", dup: true }));
    expect(await second.next("pubrec")).toMatchObject({ messageId: 1, reasonCode: 0x99 });
    expect(harness.taken).toHaveLength(2);
  });

  test("counts among the unfinished until it is answered", async ({ openHarness }) => {
    const harness = await openHarness({ limits: { maximumInflightQos2: 2 } });
    const client = await open(harness, v5);
    client.send(...[1, 2, 3].map((messageId) => publish({ qos: 2, messageId, payload: "bad" })));
    expect(await client.next("disconnect")).toMatchObject({ reasonCode: 0x93 });
    expect(harness.taken).toHaveLength(2);
  });

  test("leaves the quota when it is answered", async ({ openHarness }) => {
    const harness = await openHarness({ limits: { maximumInflightQos2: 2 } });
    harness.autoCommit = true;
    const client = await open(harness, v5);
    for (let messageId = 1; messageId <= 5; messageId += 1) {
      client.send(publish({ qos: 2, messageId, payload: "bad" }));
      expect(await client.next("pubrec")).toMatchObject({ messageId });
    }
  });
});

describe("a message on a topic of the gateway's own", () => {
  test("is answered with 0x87 and why in 5", async ({ openHarness }) => {
    const harness = await openHarness();
    const client = await open(harness, v5);
    client.send(publish({ topic: "$SYS/x", messageId: 1 }), publish({ topic: "sluice/x", messageId: 2, qos: 2 }));
    const properties = { reasonString: "the topic is the gateway's own" };
    expect(await client.next("puback")).toMatchObject({ messageId: 1, reasonCode: 0x87, properties });
    expect(await client.next("pubrec")).toMatchObject({ messageId: 2, reasonCode: 0x87, properties });
  });

  test("is acknowledged in 3.1.1, which has no other answer than the end of the connection", async ({
    openHarness,
  }) => {
    const harness = await openHarness();
    const client = await open(harness, {});
    client.send(publish({ topic: "$SYS/x", messageId: 1 }));
    expect(await client.next("puback")).toMatchObject({ messageId: 1 });
  });
});

const send = async (client: RawClient, options: Parameters<typeof publish>[0]): Promise<number | undefined> => {
  client.send(publish({ topic: "news", ...options }));
  const { reasonCode } = await client.next(options.qos === 2 ? "pubrec" : "puback");
  return reasonCode;
};

describe("a message on a topic of no stream", () => {
  test("is answered with 0x10 in 5 when nobody is there to get it", async ({ openHarness }) => {
    const harness = await openHarness();
    const client = await open(harness, v5);
    expect(await send(client, { messageId: 1, qos: 1 })).toBe(0x10);
    expect(await send(client, { messageId: 2, qos: 2 })).toBe(0x10);
    client.send({ cmd: "pubrel", messageId: 2 });
    expect(await client.next("pubcomp")).toMatchObject({ messageId: 2 });
  });

  test("is answered with 0 when it is retained, or somebody subscribes", async ({ openHarness }) => {
    const harness = await openHarness();
    const client = await open(harness, v5);
    expect(await send(client, { messageId: 1, qos: 1, retain: true })).toBe(0);
    client.send({ cmd: "subscribe", messageId: 2, subscriptions: [{ topic: "news", qos: 0 }] });
    await client.next("suback");
    expect(await send(client, { messageId: 3, qos: 1 })).toBe(0);
  });
});

describe.concurrent("the end of a connection", () => {
  test("comes with a reason in 5, in as many bytes as the client takes", async ({ openHarness }) => {
    const harness = await openHarness();
    const wrong = Buffer.from([0x82, 2, 0, 1]); // SUBSCRIBE without a filter
    const client = await open(harness, v5);
    client.send(wrong);
    const { reasonCode, properties } = await client.next("disconnect");
    expect(reasonCode).toBe(0x81);
    expect(properties?.["reasonString"]).toMatch(/^SUBSCRIBE/);

    const small = await open(harness, { ...v5, clientId: "small", properties: { maximumPacketSize: 40 } });
    small.send(wrong);
    const bare = await small.next("disconnect");
    expect(bare.reasonCode).toBe(0x81);
    expect(bare.properties).toBeUndefined();
  });

  test("for a silent client has code 0x8D", async ({ openHarness }) => {
    const harness = await openHarness();
    const client = await open(harness, { ...v5, keepalive: 1 });
    expect(await client.next("disconnect")).toMatchObject({ reasonCode: 0x8d });
  });

  test("is said once when Aedes has said it", async ({ openHarness }) => {
    const harness = await openHarness();
    const first = await open(harness, { ...v5, clientId: "same" });
    await open(harness, { ...v5, clientId: "same" });
    await first.closed;
    expect(first.packets.filter(({ cmd }) => cmd === "disconnect")).toMatchObject([{ reasonCode: 0x8e }]);
  });
});

const refused = async (client: RawClient, options: Connect): Promise<RawClient["packets"][number]> => {
  const { protocolVersion = 4 } = options;
  client.speak(protocolVersion);
  client.send({ cmd: "connect", clientId: "c", protocolId: "MQTT", clean: true, keepalive: 0, ...options } as never);
  return client.next("connack");
};

describe("a CONNECT that is refused", () => {
  test.for([
    ["the wrong password", { username: "u", password: Buffer.from("p") }, 0x86],
    ["no password", {}, 0x87],
  ] as const)("for %s is told so", async ([, credentials, code], { openHarness }) => {
    const harness = await openHarness({
      authenticate: () => Promise.resolve({ kind: "refused", reason: "nobody knows you" }),
    });
    expect(await refused(await harness.open(), { ...v5, ...credentials })).toMatchObject({
      reasonCode: code,
      properties: { reasonString: "nobody knows you" },
    });
    expect(await refused(await harness.open(), credentials)).toMatchObject({ returnCode: 5 });
    expect(await harness.nextEnd()).toBe("not-authorized");
  });

  test("because credentials cannot be checked is told no more than that", async ({ openHarness }) => {
    const harness = await openHarness({ authenticate: () => Promise.reject(new Error("secret of the database")) });
    expect(await refused(await harness.open(), v5)).toMatchObject({
      reasonCode: 0x88,
      properties: { reasonString: "credentials cannot be checked now" },
    });
    expect(await refused(await harness.open(), {})).toMatchObject({ returnCode: 3 });
  });

  test("for an authentication method is told so", async ({ openHarness }) => {
    const harness = await openHarness();
    const properties = { authenticationMethod: "SCRAM" };
    expect(await refused(await harness.open(), { ...v5, properties })).toMatchObject({
      reasonCode: 0x8c,
      properties: { reasonString: expect.stringContaining("no enhanced authentication") as string },
    });
  });

  test("because it is one session too many has 0x97", async ({ openHarness }) => {
    const harness = await openHarness({ limits: { sessions: 0 } });
    expect(await refused(await harness.open(), lasting5)).toMatchObject({ reasonCode: 0x97 });
    expect(await harness.nextEnd()).toBe("limit");
    expect(await refused(await harness.open(), { clean: false })).toMatchObject({ returnCode: 3 });
  });

  test("for a fault says which, and takes no more bytes than the client does", async ({ openHarness }) => {
    const harness = await openHarness();
    const client = await harness.open();
    client.speak(5);
    const level6 = Buffer.from([0x10, 15, 0, 4, ...Buffer.from("MQTT"), 6, 2, 0, 0, 0, 0, 2, 0x63, 0x31]);
    client.send(level6);
    const answer = await client.next("connack");
    expect(answer.reasonCode).toBe(0x84);
    expect(answer.properties?.reasonString).toMatch(/^CONNECT: level 6/);
  });
});

describe("without retained messages", () => {
  test("a will that is to be retained is refused [MQTT-3.2.2-13], and so is a message [MQTT-3.2.2-14]", async ({
    openHarness,
  }) => {
    const harness = await openHarness({ limits: { retainedMessages: 0 } });
    const first = await harness.open();
    first.speak(5);
    first.send({
      cmd: "connect",
      clientId: "c",
      protocolId: "MQTT",
      protocolVersion: 5,
      clean: true,
      keepalive: 0,
      will: { topic: "w", payload: Buffer.from("x"), qos: 0, retain: true },
    });
    expect(await first.next("connack")).toMatchObject({ reasonCode: 0x9a });
    const second = await open(harness, v5);
    second.send(publish({ topic: "news", messageId: 1, retain: true }));
    expect(await second.next("disconnect")).toMatchObject({ reasonCode: 0x9a });
  });
});
