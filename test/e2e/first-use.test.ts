// What a new user does in the first minute, with the programs that they have.

import { describe, expect } from "vitest";
import { climate, type GatewayProcess, test } from "../fixtures.ts";
import { readRows } from "./rows.ts";
import { needs, run } from "./tools.ts";

const portOf = ({ mqttPort }: GatewayProcess): readonly string[] => ["-h", "127.0.0.1", "-p", String(mqttPort)];

/** A mosquitto_sub that has subscribed, as its log says. */
async function subscribe(gateway: GatewayProcess, ...args: readonly string[]): Promise<ReturnType<typeof run>> {
  const subscriber = run("stdbuf", ["-oL", "mosquitto_sub", ...portOf(gateway), "-d", "-v", ...args]);
  await subscriber.line((line) => line.includes("received SUBACK"));
  return subscriber;
}

describe("the default gateway", () => {
  for (const qos of ["0", "1", "2"]) {
    test(`mosquitto_pub -q ${qos} of a valid message: a row`, async ({ start, skip }) => {
      needs(skip, "mosquitto_pub");
      const gateway = await start();
      const message = '{"ts":1763700000000,"seq":1,"metrics":{"temperature":21.5},"firmware":"1.2"}';
      const args = ["-q", qos, "-t", "devices/d1/telemetry", "-m", message];
      expect(await run("mosquitto_pub", [...portOf(gateway), ...args]).finished).toMatchObject({ code: 0 });
      expect(await readRows(gateway, 1)).toMatchObject([
        { offset: 0, device: "d1", time: 1763700000000, topic: "devices/d1/telemetry", data: message },
      ]);
    });
  }

  test("an invalid message: PUBACK, and mosquitto_sub prints the failing path", async ({ start, skip }) => {
    needs(skip, "mosquitto_pub", "mosquitto_sub");
    const gateway = await start();
    const watcher = await subscribe(gateway, "-t", "sluice/rejected/#");
    const message = '{"ts":1,"seq":1,"metrics":{"temperature":"hot"}}';
    const published = run("mosquitto_pub", [
      ...portOf(gateway),
      "-q",
      "1",
      "-t",
      "devices/d1/telemetry",
      "-m",
      message,
    ]);
    expect(await published.finished).toMatchObject({ code: 0 });
    const line = await watcher.line((text) => text.startsWith("sluice/rejected/"));
    const [topic, ...json] = line.split(" ");
    expect(topic).toBe("sluice/rejected/climate/d1");
    expect(JSON.parse(json.join(" "))).toMatchObject({
      reason: "invalid",
      device: "d1",
      issues: [{ path: "metrics.temperature" }],
      payload: Buffer.from(message).toString("base64"),
    });
    watcher.child.kill();
    const { text } = await gateway.fetch("/metrics");
    expect(text).toContain('gateway_messages_rejected_total{stream="climate",reason="invalid"} 1');
  });

  test("mosquitto_sub -t '#' sees live telemetry, $SYS tells what goes on", async ({ start, connect, skip }) => {
    needs(skip, "mosquitto_sub");
    const gateway = await start();
    const watcher = await subscribe(gateway, "-t", "#", "-t", "$SYS/broker/version");
    const device = await connect(gateway, { clientId: "d7" });
    await device.publishAsync("devices/d7/telemetry", climate(1), { qos: 1 });
    expect(await watcher.line((line) => line.startsWith("devices/d7/telemetry "))).toContain('"seq":1');
    expect(await watcher.line((line) => line.startsWith("$SYS/broker/version "))).toContain("sluice version");
    watcher.child.kill();
  });

  test("Python's paho client, QoS 1 and 2, is acknowledged and stored", async ({ start, skip }) => {
    needs(skip, "paho");
    const gateway = await start();
    const program = `
import json, sys
import paho.mqtt.client as mqtt
client = mqtt.Client("paho-1", protocol=mqtt.MQTTv5 if sys.argv[2] == "5" else mqtt.MQTTv311)
client.connect("127.0.0.1", int(sys.argv[1]))
client.loop_start()
for seq, qos in enumerate([1, 2, 1, 2], 1):
    client.publish("devices/paho-1/telemetry", json.dumps({"ts": 1763700000000 + seq, "seq": seq, "metrics": {"t": 1}}), qos).wait_for_publish(10)
client.disconnect()
client.loop_stop()
print("done")
`;
    for (const version of ["3", "5"]) {
      const python = run("/usr/bin/python3", ["-c", program, String(gateway.mqttPort), version]);
      expect(await python.finished).toMatchObject({ code: 0, stdout: "done\n" });
    }
    const rows = await readRows(gateway, 8);
    expect(rows.map(({ data }) => (JSON.parse(data) as { seq: number }).seq)).toEqual([1, 2, 3, 4, 1, 2, 3, 4]);
  });

  test("livez, readyz and metrics answer; received is accepted + rejected + refused", async ({ start, connect }) => {
    const gateway = await start();
    const device = await connect(gateway, { clientId: "d1", protocolVersion: 5 });
    await device.publishAsync("devices/d1/telemetry", climate(1), { qos: 1 });
    await expect(device.publishAsync("devices/d1/telemetry", "{", { qos: 1 })).rejects.toThrow(
      "Payload format invalid",
    );
    await expect(device.publishAsync("$SYS/broker/version", "mine", { qos: 1 })).rejects.toThrow("Not authorized");
    expect(await gateway.fetch("/livez")).toEqual({ status: 200, text: "ok\n" });
    expect(await gateway.fetch("/readyz")).toEqual({ status: 200, text: "ok\n" });
    expect(await gateway.fetch("/nowhere")).toMatchObject({ status: 404 });
    const { text } = await gateway.fetch("/metrics");
    const sum = (name: string): number =>
      [...text.matchAll(new RegExp(`^${name}\\{.*\\} (\\d+)$`, "gm"))].reduce(
        (total, [, count]) => total + Number(count),
        0,
      );
    const [received, accepted, rejected, refused] = ["received", "accepted", "rejected", "refused"].map((kind) =>
      sum(`gateway_messages_${kind}_total`),
    );
    expect({ received, accepted, rejected, refused }).toEqual({ received: 3, accepted: 1, rejected: 1, refused: 1 });
  });

  test("payloads that cannot be read are acknowledged and rejected with a reason", async ({ start, connect }) => {
    const gateway = await start();
    const device = await connect(gateway, { clientId: "d1" });
    const payloads: readonly (readonly [string, string | Buffer, string])[] = [
      ["empty", "", "undecodable"],
      ["not UTF-8", Buffer.from([0x22, 0xff, 0x22]), "undecodable"],
      ["malformed", '{"ts":1', "undecodable"],
      ["deeply nested", "[".repeat(50_000), "undecodable"],
      ["too large a number", '{"ts":1,"seq":1,"metrics":{"t":1e999}}', "undecodable"],
      ["a key twice", '{"ts":1,"ts":2,"seq":1,"metrics":{}}', "undecodable"],
      ["__proto__", '{"ts":1,"seq":1,"metrics":{},"__proto__":{"x":1}}', "undecodable"],
      ["not an object", '"a string"', "invalid"],
      ["without seq", '{"ts":1,"metrics":{}}', "invalid"],
    ];
    for (const [name, payload, reason] of payloads) {
      await device.publishAsync("devices/d1/telemetry", payload, { qos: 1 });
      const offset = payloads.findIndex(([other]) => other === name);
      const line = await gateway.waitForLog((entry) => entry.msg === "message rejected" && entry["offset"] === offset);
      expect(line, name).toMatchObject({ reason, stream: "climate" });
      expect((line["issues"] as { message: string }[])[0]?.message, name).not.toBe("");
    }
    expect(device.connected).toBe(true);
  });
});
