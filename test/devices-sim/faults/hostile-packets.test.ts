// Each of the hostile packets is one that a broker closes the connection for: Mosquitto does. One that closes nothing is told of.

import { once } from "node:events";
import { connect, createServer, type AddressInfo, type Socket } from "node:net";
import { afterAll, beforeAll, expect, test } from "vitest";
import type { Link } from "../../../devices-sim/faults/fault.ts";
import { hostilePackets } from "../../../devices-sim/faults/intruders.ts";
import { startMosquitto } from "../../servers/mosquitto.ts";
import { isInstalled, type Server } from "../../servers/server.ts";
import { options } from "../fixtures.ts";

const KINDS = 10;

let server: Server | undefined;

beforeAll(async () => {
  if (isInstalled("mosquitto")) server = await startMosquitto();
});

afterAll(() => server?.[Symbol.asyncDispose]());

interface Attack {
  readonly socket: Socket;
  /** Also by a reset, which is an error. */
  readonly closed: Promise<void>;
  readonly end: () => void;
  readonly surprises: readonly string[];
}

/** Packet number `kind`, to the broker at `port`. */
function attack(port: number, kind: number, ...args: readonly string[]): Attack {
  const socket = connect(port, "127.0.0.1");
  const surprises: string[] = [];
  const link = {
    identity: { device: "sim-000001" },
    options: options(port, ...args),
    openStream: () => socket,
    surprise: (text: string) => surprises.push(text),
  } as unknown as Link;
  const end = hostilePackets.begin(link, () => (kind + 0.5) / KINDS);
  const closed = new Promise<void>((resolve) => socket.on("close", () => resolve()));
  return { socket, closed, surprises, end: () => end(false) };
}

const kinds = Array.from({ length: KINDS }, (_, kind) => kind);

test.for(["3.1.1", "5"].flatMap((protocol) => kinds.map((kind) => [protocol, kind] as const)))(
  "Mosquitto closes the connection, MQTT %s, packet %s",
  async ([protocol, kind], { skip }) => {
    const { port } = server ?? skip("mosquitto is missing: install Debian's mosquitto");
    const { closed, surprises, end } = attack(port, kind, "--protocol", protocol);
    await closed;
    end();
    expect(surprises).toEqual([]);
  },
);

test("a broker that leaves the connection open is told of, unless the run is over before", async () => {
  const sink = createServer((socket) => socket.on("error", () => {}).resume()).listen(0, "127.0.0.1");
  await once(sink, "listening");
  const { socket, closed, surprises, end } = attack((sink.address() as AddressInfo).port, KINDS - 1);
  await once(socket, "connect");
  end();
  expect(surprises).toEqual(["the broker left a connection open on which came bytes that are no MQTT"]);
  await closed;
  sink.close();
});
