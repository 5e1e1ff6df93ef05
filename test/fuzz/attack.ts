// One connection of the fuzzer: a stream of packets, whole or damaged, and what came of it.

import { once } from "node:events";
import { connect, type Socket } from "node:net";
import { setImmediate as turn, setTimeout as delay } from "node:timers/promises";
import { type Packet, parser as createParser } from "mqtt-packet";
import { chunksOf, mutate } from "./mutate.ts";
import { Random } from "./random.ts";
import { makeSequence, type Sequence } from "./sequences.ts";

export interface Outcome {
  readonly intact: boolean;
  readonly bytes: number;
  /** Packets of an intact stream that the gateway has taken for sure: it has answered what came behind them. */
  readonly taken: readonly Packet["cmd"][];
  /** Why an intact stream was ended by the gateway: the reason code of CONNACK or DISCONNECT in MQTT 5. */
  readonly reason: number | undefined;
  /** An intact stream was neither answered nor ended. */
  readonly hung: boolean;
}

/** How long the gateway may take to answer a stream: a hang, not a speed. */
const patienceMs = 20_000;

const bytesOf = ({ packets, disconnect }: Sequence): readonly Buffer[] => [
  ...packets.map(({ bytes }) => bytes),
  ...(disconnect === undefined ? [] : [disconnect]),
];

/** The stream of this number: the same for the same seed, whatever else happens. */
function makeStream(seed: number, index: number) {
  const random = new Random(seed + Math.imul(index, 0x9e_37_79_b1));
  const sequence = makeSequence(random);
  const intact = random.once(2);
  const packets = intact
    ? sequence.packets.map(({ bytes }) => bytes)
    : mutate(random, bytesOf(sequence), bytesOf(makeSequence(random)));
  return { random, sequence, intact, chunks: chunksOf(random, packets) };
}

export async function attack(port: number, seed: number, index: number): Promise<Outcome> {
  const { random, sequence, intact, chunks } = makeStream(seed, index);
  const socket = connect({ port, host: "127.0.0.1", noDelay: true });
  socket.on("error", () => {});
  const closed = once(socket, "close").then(() => "closed" as const);
  const answers = readAnswers(sequence);
  if (intact) socket.on("data", answers.take);
  else if (!random.once(8)) socket.resume(); // else it does not read at all
  await Promise.race([once(socket, "connect").catch(() => {}), closed]);
  for (const chunk of chunks) {
    if (socket.destroyed) break;
    socket.write(chunk);
    if (chunks.length > 1 && random.once(3)) await turn();
  }
  const end = intact
    ? await finish(socket, closed, answers, sequence)
    : await Promise.race([closed, delay(random.below(20))]);
  if (random.once(2)) socket.end();
  else socket.destroy();
  await Promise.race([closed, delay(50)]);
  socket.destroy();
  const bytes = chunks.reduce((sum, { length }) => sum + length, 0);
  return { intact, bytes, hung: end === "hung", taken: answers.taken(), reason: answers.reason() };
}

/** Waits for the end of a whole stream: an answer to its last packet, and to DISCONNECT the end of the connection. */
async function finish(
  socket: Socket,
  closed: Promise<"closed">,
  answers: Answers,
  { disconnect }: Sequence,
): Promise<"answered" | "closed" | "hung"> {
  const patience = new AbortController();
  const hung = delay(patienceMs, "hung" as const, patience).catch(() => "hung" as const);
  let end = await Promise.race([closed, answers.all, hung]);
  if (end === "answered" && disconnect !== undefined) {
    socket.write(disconnect);
    end = await Promise.race([closed, hung]);
    if (end === "closed") answers.disconnected();
  }
  patience.abort();
  return end;
}

type Answers = ReturnType<typeof readAnswers>;

function readAnswers({ version, packets }: Sequence) {
  const parser = createParser({ protocolVersion: version });
  let pings = packets.filter(({ cmd }) => cmd === "pingreq").length;
  const taken: Packet["cmd"][] = [];
  let reason: number | undefined;
  const all = Promise.withResolvers<"answered">();
  parser.on("packet", (packet) => {
    if (packet.cmd === "pingresp" && (pings -= 1) === 0) {
      taken.push(...packets.map(({ cmd }) => cmd));
      all.resolve("answered");
    }
    if (packet.cmd === "connack" && (packet.reasonCode ?? packet.returnCode ?? 0) !== 0) reason = packet.reasonCode;
    if (packet.cmd === "disconnect") reason = packet.reasonCode;
  });
  return {
    take: (chunk: Buffer) => void parser.parse(chunk),
    all: all.promise,
    disconnected: () => void (reason === undefined && taken.push("disconnect")),
    taken: (): readonly Packet["cmd"][] => taken,
    reason: () => reason,
  };
}
