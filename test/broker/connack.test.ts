import { generate, parser as createParser } from "mqtt-packet";
import { describe, expect, test } from "vitest";
import { connackProperties, keepAliveOf } from "../../src/broker/connack.ts";
import { test as harnessTest } from "./harness.ts";

const limits = {
  maximumInflightQos2: 1_000,
  maximumPacketBytes: 262_144,
  topicAliases: 16,
  maximumKeepAliveS: 0,
  retainedMessages: 10,
};

/** What a client's parser makes of the properties. */
function read(properties: Buffer): object | undefined {
  const bare = generate({ cmd: "connack", sessionPresent: false, reasonCode: 0 }, { protocolVersion: 5 });
  const whole = Buffer.concat([
    Buffer.from([bare[0] ?? 0, 3 + properties.length, 0, 0, properties.length]),
    properties,
  ]);
  let found: object | undefined;
  const parser = createParser({ protocolVersion: 5 });
  parser.on("packet", (packet) => {
    if (packet.cmd === "connack") found = { ...packet.properties };
  });
  expect(parser.parse(whole)).toBe(0);
  return found;
}

describe("the properties of CONNACK", () => {
  test("are the limits that are enforced", () => {
    expect(read(connackProperties({ keepAliveS: 60 }, limits))).toEqual({
      receiveMaximum: 1_000,
      maximumPacketSize: 262_144,
      topicAliasMaximum: 16,
      sharedSubscriptionAvailable: false,
    });
  });

  test("say that there are no aliases by saying nothing, and that nothing is retained", () => {
    expect(read(connackProperties({ keepAliveS: 60 }, { ...limits, topicAliases: 0, retainedMessages: 0 }))).toEqual({
      receiveMaximum: 1_000,
      maximumPacketSize: 262_144,
      retainAvailable: false,
      sharedSubscriptionAvailable: false,
    });
  });

  test.for([
    [0, 300, 300],
    [301, 300, 300],
    [300, 300, undefined],
    [301, 0, undefined],
    [0, 0, undefined],
  ] as const)(
    "of a client with keep-alive %i and a limit of %i tell it %o",
    ([keepAliveS, maximumKeepAliveS, tells]) => {
      const told = read(connackProperties({ keepAliveS }, { ...limits, maximumKeepAliveS }));
      expect(told).toHaveProperty("receiveMaximum");
      expect(told).toEqual({ ...told, ...(tells === undefined ? undefined : { serverKeepAlive: tells }) });
      expect("serverKeepAlive" in (told ?? {})).toBe(tells !== undefined);
    },
  );
});

test("only MQTT 5 clients are held to another keep-alive than their own", () => {
  const limit = { maximumKeepAliveS: 300 };
  expect(keepAliveOf({ keepAliveS: 0, version: 5 }, limit)).toBe(300);
  expect(keepAliveOf({ keepAliveS: 900, version: 4 }, limit)).toBe(900);
  expect(keepAliveOf({ keepAliveS: 0, version: 3 }, limit)).toBe(0);
});

describe("the CONNACK of a client of MQTT 5", () => {
  harnessTest("says what holds on its connection", async ({ openHarness }) => {
    const harness = await openHarness({ limits: { maximumKeepAliveS: 300, retainedMessages: 0 } });
    const client = await harness.open();
    await client.connect({ protocolVersion: 5, keepalive: 0 });
    expect(client.packets[0]).toMatchObject({
      cmd: "connack",
      properties: {
        receiveMaximum: 10,
        maximumPacketSize: 65_536,
        topicAliasMaximum: 16,
        serverKeepAlive: 300,
        retainAvailable: false,
        sharedSubscriptionAvailable: false,
      },
    });
  });
});
