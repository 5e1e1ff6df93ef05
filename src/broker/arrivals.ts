// Which new connections are begun, and when: their number in all and by address is bounded, and a whole fleet that comes back at
// once is let in at the pace of `limits.connectionsPerSecond`. Those that wait are not read, and count like those that are begun.

import { isIPv6 } from "node:net";
import type { Duplex } from "node:stream";
import type { EventBus, LimitName } from "../events.ts";
import type { Accept, Peer } from "../listener/listener.ts";
import type { Limits } from "./limits.ts";

export interface ArrivalsOptions {
  readonly limits: Pick<Limits, "maximumConnections" | "maximumConnectionsPerAddress" | "connectionsPerSecond">;
  readonly events: EventBus;
  readonly stopped: () => boolean;
  readonly begin: Accept;
}

export interface Arrivals extends Disposable {
  readonly accept: Accept;
  /** To be called once for each connection that was begun, when it is closed. */
  readonly departed: (peer: Peer) => void;
}

interface Waiting {
  readonly socket: Duplex;
  readonly peer: Peer;
}

const TURN_MS = 20;
/** As many as are begun at once after a quiet time: a twentieth of a second's worth, at least one. */
const burstOf = (perSecond: number): number => Math.max(1, perSecond / 20);

export function openArrivals({ limits, events, stopped, begin }: ArrivalsOptions): Arrivals {
  const { maximumConnections, connectionsPerSecond } = limits;
  const perAddress = limits.maximumConnectionsPerAddress ?? Math.ceil(maximumConnections * 0.75);
  const byNetwork = new Map<string, number>();
  const queue = new Set<Waiting>();
  let all = 0;
  let tokens = burstOf(connectionsPerSecond);
  let atMs = performance.now();
  let timer: NodeJS.Timeout | undefined;

  const turnAway = (socket: Duplex, { remoteAddress }: Peer, limit: LimitName | undefined, detail: string): void => {
    if (limit !== undefined) events.emit("limited", limit);
    events.emit("turnedAway", remoteAddress, limit === undefined ? "shutdown" : "limit", detail);
    socket.on("error", () => {});
    socket.destroy();
  };
  const departed = ({ remoteAddress }: Peer): void => {
    const network = networkOf(remoteAddress);
    all -= 1;
    const left = (byNetwork.get(network) ?? 1) - 1;
    if (left > 0) byNetwork.set(network, left);
    else byNetwork.delete(network);
  };
  const refill = (): void => {
    const nowMs = performance.now();
    tokens = Math.min(burstOf(connectionsPerSecond), tokens + ((nowMs - atMs) / 1000) * connectionsPerSecond);
    atMs = nowMs;
  };
  /** Takes the turn, too. */
  const mayBegin = (): boolean => {
    if (connectionsPerSecond === 0) return true;
    refill();
    if (queue.size > 0 || tokens < 1) return false;
    tokens -= 1;
    return true;
  };
  const run = (): void => {
    timer = undefined;
    refill();
    for (const waiting of queue) {
      if (tokens < 1) break;
      const { socket, peer } = waiting;
      if (socket.destroyed) continue; // its close event follows
      queue.delete(waiting);
      tokens -= 1;
      if (stopped()) {
        departed(peer);
        turnAway(socket, peer, undefined, "the gateway is stopping");
      } else {
        begin(socket, peer);
      }
    }
    if (queue.size > 0) timer = setTimeout(run, TURN_MS);
  };
  const wait = (socket: Duplex, peer: Peer): void => {
    const waiting = { socket, peer };
    queue.add(waiting);
    events.emit("limited", "connectionsPerSecond");
    socket.on("error", () => {});
    socket.once("close", () => {
      if (queue.delete(waiting)) departed(peer);
    });
    timer ??= setTimeout(run, TURN_MS);
  };

  return {
    accept(socket, peer) {
      const network = networkOf(peer.remoteAddress);
      if (stopped()) {
        turnAway(socket, peer, undefined, "the gateway is stopping");
      } else if (all >= maximumConnections) {
        turnAway(socket, peer, "maximumConnections", `more than ${maximumConnections} connections`);
      } else if ((byNetwork.get(network) ?? 0) >= perAddress) {
        const detail = `more than ${perAddress} connections from ${network}`;
        turnAway(socket, peer, "maximumConnectionsPerAddress", detail);
      } else {
        all += 1;
        byNetwork.set(network, (byNetwork.get(network) ?? 0) + 1);
        if (mayBegin()) begin(socket, peer);
        else wait(socket, peer);
      }
    },
    departed,
    [Symbol.dispose]() {
      clearTimeout(timer);
      for (const { socket } of queue) socket.destroy();
    },
  };
}

/** An IPv4 address, also one written as IPv6, or the /64 network of an IPv6 address: who has one such address has them all. */
export function networkOf(address: string): string {
  const v4 = /^::ffff:(\d+\.\d+\.\d+\.\d+)$/i.exec(address)?.[1];
  if (v4 !== undefined) return v4;
  if (!isIPv6(address)) return address;
  const [head = "", tail] = address.replace(/%.*$/, "").toLowerCase().split("::");
  const groups = head === "" ? [] : head.split(":");
  if (tail !== undefined) {
    const last = tail === "" ? 0 : tail.split(":").length;
    while (groups.length < 8 - last) groups.push("0");
    groups.push(...tail.split(":"));
  }
  return `${groups
    .slice(0, 4)
    .map((group) => group.replace(/^0+(?=.)/, ""))
    .join(":")}::/64`;
}
