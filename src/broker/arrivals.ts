// Which new connections are begun, and when: their number in all and by address is bounded, and a whole fleet that comes back at
// once is let in at the pace of `limits.connectionsPerSecond`. Those that wait count like those that are begun. Of what they
// send no more than a CONNECT is read, which is needed to see that one has given up: else its turn would be lost to others.

import { Buffer } from "node:buffer";
import { isIPv6 } from "node:net";
import type { Duplex } from "node:stream";
import type { EventBus, LimitName } from "../events.ts";
import type { Accept, Peer } from "../listener/listener.ts";
import type { Limits } from "./limits.ts";

interface ArrivalsOptions {
  readonly limits: Pick<
    Limits,
    "maximumConnections" | "maximumConnectionsPerAddress" | "connectionsPerSecond" | "maximumConnectBytes"
  >;
  readonly events: EventBus;
  readonly stopped: () => boolean;
  readonly begin: Accept;
}

interface Waiting {
  readonly socket: Duplex;
  readonly peer: Peer;
  /** What it has sent meanwhile. */
  readonly early: Buffer[];
}

const TURN_MS = 20;

export class Arrivals implements Disposable {
  readonly #options: ArrivalsOptions;
  readonly #mostOfAddress: number;
  readonly #perSecond: number;
  /** As many as are begun at once after a quiet time: a twentieth of a second's worth, at least one. */
  readonly #burst: number;
  readonly #byNetwork = new Map<string, number>();
  readonly #queue = new Set<Waiting>();
  #all = 0;
  #tokens: number;
  #atMs = performance.now();
  #timer: NodeJS.Timeout | undefined;

  constructor(options: ArrivalsOptions) {
    const { maximumConnections, maximumConnectionsPerAddress, connectionsPerSecond } = options.limits;
    this.#options = options;
    this.#mostOfAddress = maximumConnectionsPerAddress ?? Math.ceil(maximumConnections * 0.75);
    this.#perSecond = connectionsPerSecond;
    this.#burst = Math.max(1, connectionsPerSecond / 20);
    this.#tokens = this.#burst;
  }

  accept(socket: Duplex, peer: Peer): void {
    const { limits, stopped, begin } = this.#options;
    const network = networkOf(peer.remoteAddress);
    const ofNetwork = this.#byNetwork.get(network) ?? 0;
    if (stopped()) {
      this.#turnAway(socket, peer, undefined, "the gateway is stopping");
    } else if (this.#all >= limits.maximumConnections) {
      this.#turnAway(socket, peer, "maximumConnections", `more than ${limits.maximumConnections} connections`);
    } else if (ofNetwork >= this.#mostOfAddress) {
      const detail = `more than ${this.#mostOfAddress} connections from ${network}`;
      this.#turnAway(socket, peer, "maximumConnectionsPerAddress", detail);
    } else {
      this.#all += 1;
      this.#byNetwork.set(network, ofNetwork + 1);
      if (this.#mayBegin()) begin(socket, peer);
      else this.#wait(socket, peer);
    }
  }

  /** To be called once for each connection that was begun, when it is closed. */
  departed({ remoteAddress }: Peer): void {
    const network = networkOf(remoteAddress);
    const left = (this.#byNetwork.get(network) ?? 1) - 1;
    this.#all -= 1;
    if (left > 0) this.#byNetwork.set(network, left);
    else this.#byNetwork.delete(network);
  }

  [Symbol.dispose](): void {
    clearTimeout(this.#timer);
    for (const { socket } of this.#queue) socket.destroy();
  }

  #turnAway(socket: Duplex, { remoteAddress }: Peer, limit: LimitName | undefined, detail: string): void {
    const { events } = this.#options;
    if (limit !== undefined) events.emit("limited", limit);
    events.emit("turnedAway", remoteAddress, limit === undefined ? "shutdown" : "limit", detail);
    socket.on("error", () => {});
    socket.destroy();
  }

  /** Takes the turn, too. */
  #mayBegin(): boolean {
    if (this.#perSecond === 0) return true;
    this.#refill();
    if (this.#queue.size > 0 || this.#tokens < 1) return false;
    this.#tokens -= 1;
    return true;
  }

  #refill(): void {
    const nowMs = performance.now();
    this.#tokens = Math.min(this.#burst, this.#tokens + ((nowMs - this.#atMs) / 1000) * this.#perSecond);
    this.#atMs = nowMs;
  }

  #wait(socket: Duplex, peer: Peer): void {
    const { events, limits } = this.#options;
    const early: Buffer[] = [];
    let bytes = 0;
    peer.incoming.onBytes = (chunk) => {
      early.push(Buffer.from(chunk));
      bytes += chunk.length;
      if (bytes >= limits.maximumConnectBytes) socket.pause();
    };
    const waiting = { socket, peer, early };
    this.#queue.add(waiting);
    events.emit("limited", "connectionsPerSecond");
    socket.on("error", () => {});
    socket.once("close", () => {
      if (this.#queue.delete(waiting)) this.departed(peer);
    });
    socket.resume();
    this.#timer ??= setTimeout(() => this.#run(), TURN_MS);
  }

  #run(): void {
    this.#timer = undefined;
    this.#refill();
    for (const waiting of this.#queue) {
      if (this.#tokens < 1) break;
      this.#queue.delete(waiting);
      this.#tokens -= 1;
      this.#begin(waiting);
    }
    if (this.#queue.size > 0) this.#timer = setTimeout(() => this.#run(), TURN_MS);
  }

  #begin({ socket, peer, early }: Waiting): void {
    if (this.#options.stopped()) {
      this.departed(peer);
      this.#turnAway(socket, peer, undefined, "the gateway is stopping");
      return;
    }
    this.#options.begin(socket, peer);
    if (early.length > 0) peer.incoming.onBytes(Buffer.concat(early));
  }
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
