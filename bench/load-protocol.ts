// What the benchmark and its load generator, a child process, say to each other: one answer for each request, in order.

/** The first request: opens the connections and answers when every CONNACK is there. */
export interface ConnectRequest {
  readonly kind: "connect";
  readonly port: number;
  readonly connections: number;
  /** The most unacknowledged messages of a connection when it is saturated. */
  readonly window: number;
  readonly payloadBytes: number;
}

/** Every connection keeps its window full: as fast as the server acknowledges. Ends when all is acknowledged. */
export interface SaturateRequest {
  readonly kind: "saturate";
  /** Of load before the measured window. */
  readonly warmupMs: number;
  readonly measureMs: number;
  /** Processes whose CPU time is read at both ends of the measured window. */
  readonly pids: readonly number[];
  /** How long the last acknowledgements may take. */
  readonly drainMs: number;
  /** True: what is never acknowledged is a result, and not a failure. */
  readonly mayStall?: boolean;
}

/**
 * The connections take turns at a given rate, whatever the server does. The time of a message counts from when it was due:
 * a server that falls behind, and a generator that is late, show in it. Ends when all is acknowledged.
 */
export interface PaceRequest extends Omit<SaturateRequest, "kind"> {
  readonly kind: "pace";
  /** Messages per second of all connections together. */
  readonly perSecond: number;
  /** Messages that a connection sends at once when it is its turn. */
  readonly burst: number;
}

/** Are all connections still open? Answered as the connecting was. */
export interface CheckRequest {
  readonly kind: "check";
}

export type LoadRequest = ConnectRequest | SaturateRequest | PaceRequest | CheckRequest;

export interface Percentiles {
  readonly p50: number;
  readonly p99: number;
  readonly max: number;
}

export interface ConnectResult {
  /** From the first connection attempt until the last CONNACK. */
  readonly seconds: number;
  readonly loadCpuSeconds: number;
}

/** The measured window; the load was the same before it. */
export interface LoadResult {
  readonly messages: number;
  readonly seconds: number;
  /** User and system time of all threads of the processes asked for. */
  readonly serverCpuSeconds: number;
  /** Of it, by the name of the thread. */
  readonly threadSeconds: Readonly<Record<string, number>>;
  readonly loadCpuSeconds: number;
  /** Of everything else on the machine, interrupts included. */
  readonly otherCpuSeconds: number;
  /** From the sending of a message, or in a paced run from when it was due, until its PUBACK is read. */
  readonly pubackMs: Percentiles;
  /** Paced: how late the generator itself was. */
  readonly lateMs?: Percentiles;
  /** The least part of all windows that was in flight at any of the looks at it. */
  readonly leastInFlight: number;
  /** In the whole run, from its warm-up to its last PUBACK. Equal, or the server has stalled. */
  readonly sent: number;
  readonly acknowledged: number;
}

export type LoadAnswer =
  | { readonly kind: "connected"; readonly result: ConnectResult }
  | { readonly kind: "measured"; readonly result: LoadResult }
  | { readonly kind: "failed"; readonly reason: string };
