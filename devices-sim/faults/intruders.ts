// Faults of a second client: it takes the device's place or stays in it, does not read, or does not speak MQTT.

import type { ConnectionFault } from "./fault.ts";
import { openSecondClient, toConnect } from "./second-client.ts";

/** The broker ends the device's connection [MQTT-3.1.4-3]; the device comes back, and so ends that of the other one. */
export const takeover: ConnectionFault = {
  kind: "connection",
  about: "a second client with the same id; the device takes its place back",
  everyMs: 30_000,
  forMs: 10_000,
  begin(link) {
    const client = openSecondClient(link, {});
    client.send(toConnect(link, link.identity.device));
    return () => client.close();
  },
};

/**
 * As after a loss of power or a change of network: the device's place is taken by a connection on which nobody sends or reads any
 * more, and which nobody closes. The broker keeps it until keep-alive ends, or until the device comes back in a new one.
 */
export const halfOpen: ConnectionFault = {
  kind: "connection",
  about: "a connection that is never closed and never read again; the device makes a new one",
  everyMs: 60_000,
  forMs: 30_000,
  begin(link) {
    link.leave();
    const client = openSecondClient(link, {
      packet({ cmd }, self) {
        if (cmd !== "connack") return;
        self.deafen();
        link.comeBack();
      },
    });
    client.send({ ...toConnect(link, link.identity.device), keepalive: link.options.keepaliveSeconds });
    return () => {
      client.close();
      link.comeBack();
    };
  },
};

/** What is for it piles up in the broker. */
export const slowReader: ConnectionFault = {
  kind: "connection",
  about: "a second client subscribes to what all devices send, and reads nothing",
  everyMs: 30_000,
  forMs: 30_000,
  begin(link) {
    const topic = link.options.topic
      .split("/")
      .map((level) => (level.includes("{") ? "+" : level))
      .join("/");
    const client = openSecondClient(link, {
      packet({ cmd }, self) {
        if (cmd === "connack") self.send({ cmd: "subscribe", messageId: 1, subscriptions: [{ topic, qos: 1 }] });
        else if (cmd === "suback") self.deafen();
      },
    });
    client.send(toConnect(link, `${link.identity.device}-slow`));
    return () => client.close();
  },
};

/** Behind a CONNECT; each breaks a rule that a broker must answer by ending the connection. */
const breaches: readonly (readonly number[])[] = [
  // A remaining length of five bytes: MQTT 3.1.1 section 2.2.3.
  [0x30, 0xff, 0xff, 0xff, 0xff, 0x7f],
  // PUBLISH with QoS 3 [MQTT-3.3.1-4].
  [0x36, 0x05, 0x00, 0x01, 0x61, 0x00, 0x01],
  // PUBLISH to a topic with a wildcard [MQTT-3.3.2-2].
  [0x30, 0x03, 0x00, 0x01, 0x23],
  // PUBLISH whose topic is longer than the packet.
  [0x30, 0x03, 0x00, 0xff, 0x61],
  // SUBSCRIBE with the flags of PUBLISH [MQTT-3.8.1-1].
  [0x80, 0x06, 0x00, 0x01, 0x00, 0x01, 0x61, 0x00],
  // CONNACK is for brokers to send.
  [0x20, 0x02, 0x00, 0x00],
  // Packet type 0 is forbidden: MQTT 3.1.1 section 2.2.1.
  [0x00, 0x00],
];

/** What brokers on the open internet are sent all day: HTTP, TLS, SSH. As long as what a length in it may ask for. */
const strangers: readonly string[] = [
  "GET / HTTP/1.1\r\nHost: broker\r\n",
  "\u0016\u0003\u0001\0\u00A5",
  "SSH-2.0-Go\r\n",
].map((text) => text.padEnd(256, "x"));

export const hostilePackets: ConnectionFault = {
  kind: "connection",
  about: "a second client breaks the protocol, or does not speak it; the broker has to close it",
  everyMs: 10_000,
  forMs: 10_000,
  begin(link, random) {
    let isClosed = false;
    const choice = Math.floor(random() * (breaches.length + strangers.length));
    const breach = breaches[choice];
    const client = openSecondClient(link, {
      packet({ cmd }, self) {
        if (cmd === "connack" && breach !== undefined) self.write(Buffer.from(breach));
      },
      closed() {
        isClosed = true;
      },
    });
    if (breach === undefined) client.write(Buffer.from(strangers[choice - breaches.length] ?? "", "latin1"));
    else client.send(toConnect(link, `${link.identity.device}-hostile`));
    return (isEarly) => {
      const what = breach === undefined ? "bytes that are no MQTT" : Buffer.from(breach).toString("hex");
      if (!isClosed && !isEarly) link.surprise(`the broker left a connection open on which came ${what}`);
      client.close();
    };
  },
};
