// Topic names and filters: MQTT 5 section 4.7, and the strings of section 1.5.4.

import { describe, expect } from "vitest";
import { counted, packet, properties, u16 } from "../broker/wire.ts";
import { end, join, leave, readToEnd, say, subscribe, test, versions } from "./clients.ts";

const longest = "x".repeat(1_024);

const matches: readonly (readonly [filter: string, topic: string])[] = [
  ["sport/tennis/player1/#", "sport/tennis/player1"],
  ["sport/tennis/player1/#", "sport/tennis/player1/ranking"],
  ["sport/tennis/player1/#", "sport/tennis/player1/score/wimbledon"],
  ["#", "a"],
  ["#", "/"],
  ["#", "/a"],
  ["sport/tennis/+", "sport/tennis/player1"],
  ["sport/+", "sport/"],
  ["+/+", "/finance"],
  ["/+", "/finance"],
  ["+", "finance"],
  ["+/tennis/#", "sport/tennis"],
  ["sport/+/player1", "sport//player1"],
  ["a//b", "a//b"],
  ["$SYS/monitor/+", "$SYS/monitor/Clients"],
  [longest, longest],
  ["with blanks /ä/日本/🎉", "with blanks /ä/日本/🎉"],
  ["\uFEFFa", "\uFEFFa"], // [MQTT-1.5.4-3]
  ["__proto__/+", "__proto__/constructor"],
];

const differs: readonly (readonly [filter: string, topic: string])[] = [
  ["sport/tennis/+", "sport/tennis/player1/ranking"],
  ["sport/+", "sport"],
  ["+", "/finance"],
  ["ACCOUNTS", "Accounts"],
  ["/finance", "finance"],
  ["finance/", "finance"],
  ["a/b", "a//b"],
  ["\u00E9", "e\u0301"], // the same letter, composed and not
  ["\uFEFFa", "a"],
  ["a", " a"],
  ["sport/#", "sports"],
];

const hidden: readonly (readonly [filter: string, topic: string])[] = [
  ["#", "$private/a"],
  ["+/monitor/Clients", "$private/monitor/Clients"],
  ["+/#", "$private/a"],
];

describe.for(versions)("In version %s", (protocolVersion) => {
  test.for(matches)(
    "the filter %s matches the topic %s [MQTT-4.7.1-1] [MQTT-4.7.1-2] [MQTT-4.7.3-4] [MQTT-1.5.4-3]",
    async ([filter, topic], { openHarness }) => {
      const harness = await openHarness();
      const client = await join(harness, { protocolVersion });
      await subscribe(client, [{ topic: filter, qos: 1 }]);
      if (topic.startsWith("$SYS")) await harness.broker.publish({ topic, payload: "x" });
      else await say(client, { topic });
      expect(await client.next("publish")).toMatchObject({ topic });
    },
  );

  test.for(differs)(
    "the filter %s does not match the topic %s: nothing is normalized [MQTT-4.7.3-4] [MQTT-4.7.1-2]",
    async ([filter, topic], { openHarness }) => {
      const harness = await openHarness();
      const client = await join(harness, { protocolVersion });
      await subscribe(client, [
        { topic: filter, qos: 1 },
        { topic: "end", qos: 1 },
      ]);
      await say(client, { topic });
      await say(client, end());
      expect(await readToEnd(client)).toEqual([]);
    },
  );

  test.for(hidden)(
    "the filter %s does not match %s, which begins with $, live or retained [MQTT-4.7.2-1]",
    async ([filter, topic], { openHarness }) => {
      const harness = await openHarness();
      const client = await join(harness, { protocolVersion });
      await say(client, { topic, retain: true });
      await subscribe(client, [
        { topic: filter, qos: 1 },
        { topic: "end", qos: 1 },
      ]);
      await say(client, { topic });
      await say(client, { topic: "end", payload: "end" });
      expect((await readToEnd(client)).map((message) => message.topic)).toEqual([]);
    },
  );

  test.for(["", "a/#/b", "a#", "a/b#", "+a", "a/b+", "a/+b/c", "a\0b"])(
    'the filter "%s" ends the connection [MQTT-4.7.1-1] [MQTT-4.7.1-2] [MQTT-4.7.3-1] [MQTT-4.7.3-2] [MQTT-3.8.3-1] [MQTT-3.10.3-1]',
    async (filter, { openHarness }) => {
      const harness = await openHarness();
      const none = protocolVersion === 5 ? [properties()] : [];
      for (const whole of [
        packet(0x82, u16(1), ...none, counted(filter), 0),
        packet(0xa2, u16(1), ...none, counted(filter)),
      ]) {
        const client = await join(harness, { protocolVersion });
        client.send(whole);
        await client.closed;
        expect(await harness.nextEnd()).toBe("protocol");
      }
    },
  );

  test.for(["", "a/+", "#", "a\0b", `${longest}x`, "/".repeat(64)])(
    'the topic "%s" ends the connection [MQTT-4.7.0-1] [MQTT-4.7.3-1] [MQTT-4.7.3-2] [MQTT-3.3.2-2]',
    async (topic, { openHarness }) => {
      const harness = await openHarness();
      const none = protocolVersion === 5 ? [properties()] : [];
      const client = await join(harness, { protocolVersion });
      client.send(packet(0x30, counted(topic), ...none));
      await client.closed;
      expect(await harness.nextEnd()).toBe("protocol");
      await leave(client);
    },
  );
});
