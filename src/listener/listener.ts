// The contract between what opens ports (tcp.ts) and the broker that owns what connects to them.

import type { Duplex } from "node:stream";

/** What a listener knows of the other side. */
export interface Peer {
  readonly remoteAddress: string;
  readonly remotePort: number;
}

/** Called once per connection with a stream that nobody has read from yet; the callee owns it from then on. */
export type Accept = (stream: Duplex, peer: Peer) => void;

/** Disposing stops accepting; connections that were accepted go on. */
export interface Listener extends AsyncDisposable {
  /** What it really listens on, with the port that the system chose for 0. */
  readonly host: string;
  readonly port: number;
}
