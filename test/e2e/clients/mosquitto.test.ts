// mosquitto_pub and mosquitto_sub in the three versions that they speak.

import { describe, expect } from "vitest";
import { climate, type GatewayProcess } from "../../fixtures.ts";
import { needs, run, type Running } from "../tools.ts";
import { test } from "./fixtures.ts";

type Args = readonly string[];

const versions = ["mqttv31", "mqttv311", "mqttv5"] as const;
const hostOf = ({ mqttPort }: GatewayProcess, version: string): Args => [
  "-h",
  "127.0.0.1",
  "-p",
  String(mqttPort),
  "-V",
  version,
];

/** Publishes one message and sees that the client was content. */
async function pub(gateway: GatewayProcess, version: string, ...args: Args): Promise<void> {
  const finished = await run("mosquitto_pub", [...hostOf(gateway, version), ...args]).finished;
  expect(finished).toMatchObject({ code: 0, stderr: "" });
}

/** A subscriber that prints "QoS retain topic payload" of each message; resolves once it has subscribed. */
async function sub(gateway: GatewayProcess, version: string, ...args: Args): Promise<Running> {
  const format = args.includes("-F") ? [] : ["-F", "%q %r %t %p"];
  const subscriber = run("stdbuf", ["-oL", "mosquitto_sub", ...hostOf(gateway, version), "-d", ...format, ...args]);
  await subscriber.line((line) => line.includes("received SUBACK"));
  return subscriber;
}

const property = (...args: Args): Args => ["-D", "publish", ...args];

const isLine =
  (expected: string) =>
  (line: string): boolean =>
    line === expected;

/** What a subscriber printed, without what it logs. */
const messagesOf = (stdout: string): readonly string[] =>
  stdout.split("\n").filter((line) => line !== "" && !/^(Client|Subscribed) /.test(line));

describe.for(versions)("mosquitto with %s", (version) => {
  test.for(["0", "1", "2"])("QoS %s arrives as it was published", async (qos, { gateway, skip }) => {
    needs(skip, "mosquitto_pub", "mosquitto_sub");
    const topic = `qos/${version}/${qos}`;
    const subscriber = await sub(gateway, version, "-t", topic, "-q", "2", "-C", "1");
    await pub(gateway, version, "-t", topic, "-q", qos, "-m", "hello");
    const { code, stdout } = await subscriber.finished;
    expect(code).toBe(0);
    expect(messagesOf(stdout)).toEqual([`${qos} 0 ${topic} hello`]);
  });

  test.for(["0", "1", "2"])("valid telemetry in QoS %s arrives too", async (qos, { gateway, skip }) => {
    needs(skip, "mosquitto_pub", "mosquitto_sub");
    const topic = `devices/${version}-${qos}/telemetry`;
    const message = climate(1);
    const subscriber = await sub(gateway, version, "-t", "devices/+/telemetry", "-q", "2");
    await pub(gateway, version, "-t", topic, "-q", qos, "-m", message);
    await subscriber.line(isLine(`${qos} 0 ${topic} ${message}`));
    subscriber.child.kill();
  });

  test("a retained message waits for a subscriber, and is gone when it is replaced by nothing", async ({
    gateway,
    skip,
  }) => {
    needs(skip, "mosquitto_pub", "mosquitto_sub");
    const topic = `retained/${version}`;
    await pub(gateway, version, "-t", topic, "-q", "1", "-r", "-m", "kept");
    const first = await sub(gateway, version, "-t", topic, "-q", "1", "-C", "1");
    expect(messagesOf((await first.finished).stdout)).toEqual([`1 1 ${topic} kept`]);
    await pub(gateway, version, "-t", topic, "-q", "1", "-r", "-n");
    const second = await sub(gateway, version, "-t", topic, "-q", "1", "-C", "1");
    await pub(gateway, version, "-t", topic, "-q", "1", "-m", "live");
    expect(messagesOf((await second.finished).stdout)).toEqual([`1 0 ${topic} live`]);
  });

  test("a will is published when the client is killed, and not when it leaves", async ({ gateway, skip }) => {
    needs(skip, "mosquitto_sub");
    const topic = `will/${version}`;
    const watcher = await sub(gateway, version, "-t", topic, "-q", "1", "-C", "2");
    const will = ["--will-topic", topic, "--will-qos", "1", "-t", "nothing"];
    const leaves = await sub(gateway, version, ...will, "--will-payload", "wrong", "-C", "1");
    await pub(gateway, version, "-t", "nothing", "-m", "leave");
    await leaves.finished; // it has sent DISCONNECT
    const dies = await sub(gateway, version, ...will, "--will-payload", "gone");
    // stdbuf has become mosquitto_sub, so that this is its process.
    dies.child.kill("SIGKILL");
    await watcher.line(isLine(`1 0 ${topic} gone`));
    await pub(gateway, version, "-t", topic, "-q", "1", "-m", "end");
    expect(messagesOf((await watcher.finished).stdout)).toEqual([`1 0 ${topic} gone`, `1 0 ${topic} end`]);
  });

  test("a persistent session gets what came while it was away", async ({ gateway, skip }) => {
    needs(skip, "mosquitto_pub", "mosquitto_sub");
    const topic = `session/${version}`;
    const lasting = ["-t", topic, "-q", "2", "-c", "-i", `lasting-${version}`];
    const first = await sub(gateway, version, ...lasting, "-E");
    expect(await first.finished).toMatchObject({ code: 0 });
    for (const qos of ["1", "2"]) await pub(gateway, version, "-t", topic, "-q", qos, "-m", `while away ${qos}`);
    const second = await sub(gateway, version, ...lasting, "-C", "2");
    expect(messagesOf((await second.finished).stdout)).toEqual([
      `1 0 ${topic} while away 1`,
      `2 0 ${topic} while away 2`,
    ]);
  });

  test("a second client of the same name takes the first one's place", async ({ gateway, skip }) => {
    needs(skip, "mosquitto_pub", "mosquitto_sub");
    const topic = `takeover/${version}`;
    const same = ["-t", topic, "-q", "1", "-i", `same-${version}`];
    const first = run("stdbuf", ["-oL", "mosquitto_sub", ...hostOf(gateway, version), "-d", ...same]);
    await first.line((line) => line.includes("received SUBACK"));
    first.child.kill("SIGSTOP"); // it would come back and take over in its turn
    const second = await sub(gateway, version, ...same, "-C", "1");
    await pub(gateway, version, "-t", topic, "-q", "1", "-m", "for the second");
    expect(messagesOf((await second.finished).stdout)).toEqual([`1 0 ${topic} for the second`]);
    first.child.kill("SIGKILL");
    expect(messagesOf((await first.finished).stdout)).toEqual([]);
  });
});

describe("mosquitto with mqttv5", () => {
  const version = "mqttv5";

  test("properties arrive as they were given", async ({ gateway, skip }) => {
    needs(skip, "mosquitto_pub", "mosquitto_sub");
    const subscriber = await sub(gateway, version, "-t", "properties", "-q", "1", "-C", "1", "-F", "%F|%R|%P|%E|%p");
    const hello = ["-t", "properties", "-q", "1", "-m", "hello"];
    await pub(
      gateway,
      version,
      ...hello,
      ...property("payload-format-indicator", "1"),
      ...property("response-topic", "answers"),
      ...property("user-property", "z", "1"),
      ...property("user-property", "a", "2"),
      ...property("message-expiry-interval", "1000"),
    );
    const [line] = messagesOf((await subscriber.finished).stdout);
    expect(line).toMatch(/^1\|answers\|z:1 a:2\|(1000|99\d)\|hello$/);
  });

  test("a will waits for its delay, and does not go out when the client is back before", async ({ gateway, skip }) => {
    needs(skip, "mosquitto_sub");
    const watcher = await sub(gateway, version, "-t", "will/delayed", "-q", "1", "-C", "2");
    const will = ["--will-topic", "will/delayed", "--will-qos", "1", "-t", "nothing", "-x", "60"];
    const delayed = ["-D", "will", "will-delay-interval", "1"];
    const back = await sub(gateway, version, ...will, "-i", "back", "--will-payload", "wrong", ...delayed);
    back.child.kill("SIGKILL");
    const again = await sub(gateway, version, "-t", "nothing", "-i", "back", "-x", "60", "-c");
    const dies = await sub(gateway, version, ...will, "-i", "dies", "--will-payload", "gone", ...delayed);
    dies.child.kill("SIGKILL");
    await watcher.line(isLine("1 0 will/delayed gone"));
    again.child.kill();
    await pub(gateway, version, "-t", "will/delayed", "-q", "1", "-m", "end");
    expect(messagesOf((await watcher.finished).stdout)).toEqual(["1 0 will/delayed gone", "1 0 will/delayed end"]);
  });

  test("a session ends when its interval has passed", async ({ gateway, skip }) => {
    needs(skip, "mosquitto_pub", "mosquitto_sub");
    const lasting = ["-t", "session/short", "-q", "1", "-c", "-i", "short"];
    const first = await sub(gateway, version, ...lasting, "-x", "1", "-E");
    await first.finished;
    await new Promise((resolve) => void setTimeout(resolve, 2_500)); // the interval is in whole seconds
    await pub(gateway, version, "-t", "session/short", "-q", "1", "-m", "too late");
    const second = await sub(gateway, version, ...lasting, "-C", "1");
    await pub(gateway, version, "-t", "session/short", "-q", "1", "-m", "live");
    expect(messagesOf((await second.finished).stdout)).toEqual(["1 0 session/short live"]);
  });

  test("a message that has expired is not delivered", async ({ gateway, skip }) => {
    needs(skip, "mosquitto_pub", "mosquitto_sub");
    const message = ["-t", "expiry", "-q", "1"];
    await pub(
      gateway,
      version,
      "-t",
      "expiry/kept",
      "-r",
      "-q",
      "1",
      "-m",
      "kept",
      ...property("message-expiry-interval", "1"),
    );
    const lasting = [...message, "-c", "-i", "expiring"];
    await (
      await sub(gateway, version, ...lasting, "-E")
    ).finished;
    await pub(gateway, version, ...message, "-m", "short", ...property("message-expiry-interval", "1"));
    await pub(gateway, version, ...message, "-m", "long", ...property("message-expiry-interval", "1000"));
    await new Promise((resolve) => void setTimeout(resolve, 2_100)); // intervals are in whole seconds
    const second = await sub(gateway, version, ...lasting, "-t", "expiry/kept", "-C", "2");
    await pub(gateway, version, ...message, "-m", "live");
    expect(messagesOf((await second.finished).stdout)).toEqual(["1 0 expiry long", "1 0 expiry live"]);
  });

  test("a topic alias stands for its topic", async ({ gateway, skip }) => {
    needs(skip, "mosquitto_pub", "mosquitto_sub");
    const subscriber = await sub(gateway, version, "-t", "alias/#", "-q", "1", "-C", "3");
    const lines = run("sh", [
      "-c",
      `printf 'one\\ntwo\\nthree\\n' | mosquitto_pub ${hostOf(gateway, version).join(" ")} -t alias/x -q 1 -l -D publish topic-alias 1`,
    ]);
    expect(await lines.finished).toMatchObject({ code: 0, stderr: "" });
    expect(messagesOf((await subscriber.finished).stdout)).toEqual([
      "1 0 alias/x one",
      "1 0 alias/x two",
      "1 0 alias/x three",
    ]);
  });

  test("a subscriber that takes one message at a time gets them all", async ({ gateway, skip }) => {
    needs(skip, "mosquitto_pub", "mosquitto_sub");
    const one = ["-D", "connect", "receive-maximum", "1"];
    const subscriber = await sub(gateway, version, "-t", "flow", "-q", "2", "-C", "20", ...one);
    const publisher = run("sh", [
      "-c",
      `seq 1 20 | mosquitto_pub ${hostOf(gateway, version).join(" ")} -t flow -q 2 -l`,
    ]);
    expect(await publisher.finished).toMatchObject({ code: 0 });
    const numbers = messagesOf((await subscriber.finished).stdout).map((line) => Number(line.split(" ").at(-1)));
    expect(numbers).toEqual(Array.from({ length: 20 }, (_, index) => index + 1));
  });

  test("a rejected message is told to the publisher, with the failing path", async ({ gateway, skip }) => {
    needs(skip, "mosquitto_pub");
    const message = '{"ts":1,"seq":1,"metrics":{"temperature":"hot"}}';
    const topic = ["-t", "devices/d1/telemetry", "-q", "1", "-m", message];
    const { stderr, stdout } = await run("mosquitto_pub", [...hostOf(gateway, version), "-d", ...topic]).finished;
    expect(`${stdout}${stderr}`).toMatch(/Payload format invalid|RC:153/);
  });
});
