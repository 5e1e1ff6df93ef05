// The vocabulary that every stage shares. It imports nothing.

/** Milliseconds since 1970-01-01T00:00:00Z. */
export type UnixMs = number;

/** MQTT quality of service. */
export type QoS = 0 | 1 | 2;

declare const offsetBrand: unique symbol;
/**
 * The place of a record in the journal: 0 for the first, one more for each next, never reused.
 * A position ("everything below") is an Offset too. Safe to 2^53.
 */
export type Offset = number & { readonly [offsetBrand]: "Offset" };

export const toOffset = (value: number): Offset => value as Offset;

/** What an MQTT 5 PUBLISH says beside its payload (section 3.3.2.3); each only when it was given. */
export interface MessageProperties {
  /** Usually a MIME type; chooses the codec of a stream that has several. */
  readonly contentType?: string;
  /** 1: the publisher says that the payload is UTF-8. */
  readonly payloadFormat?: 0 | 1;
  /** Seconds after which subscribers are not to be given the message any more. Sinks are no subscribers. */
  readonly expiryS?: number;
  readonly responseTopic?: string;
  readonly correlationData?: Uint8Array;
  /** In the order of the packet; a name may come more than once. */
  readonly user?: readonly (readonly [name: string, value: string])[];
}

/** One telemetry PUBLISH, as it came from the wire. */
export interface Message {
  readonly topic: string;
  /** Valid only during the synchronous call that hands the message over: it may be a view of the socket's buffer. */
  readonly payload: Uint8Array;
  /** MQTT client identifier of the publisher. */
  readonly clientId: string;
  /** From the topic's `{device}` level, else the client id. */
  readonly deviceId: string;
  readonly receivedAt: UnixMs;
  readonly qos: QoS;
  /**
   * MQTT packet identifier of a QoS 2 PUBLISH of a session that outlives its connection; 0 otherwise. Kept so that a
   * retransmission is known after a restart.
   */
  readonly packetId: number;
  /** A rejection is told to the client and ends its QoS 2 handshake, so that `packetId` is of no use then: MQTT 5. */
  readonly toldOfRejection?: boolean;
  /** The device that the client's credentials stand for; undefined when no credentials are configured. */
  readonly identity?: string | undefined;
  /** Undefined for most: 3.1, 3.1.1, and MQTT 5 without any of them. */
  readonly properties?: MessageProperties | undefined;
}

/** What a topic means: the stream it belongs to, and the device if the topic names one. */
export interface Route {
  readonly stream: string;
  readonly deviceId: string | undefined;
}

/** One thing wrong with a message. `path` is the place in the payload as `metrics.temp` or `list[2]`; "" is the whole. */
export interface Issue {
  readonly path: string;
  readonly message: string;
}

/**
 * no-stream: the topic belongs to no stream. undecodable: the codec could not read the payload. invalid: the schema
 * refused it. identity: the device named by the topic is not the one that the credentials stand for. time: the stream's
 * `time` gave no usable time.
 */
export type RejectionReason = "no-stream" | "undecodable" | "invalid" | "identity" | "time";

/** Why a message is not a reading. The bytes are kept in the journal all the same. */
export interface Rejection {
  readonly stream: string;
  readonly reason: RejectionReason;
  readonly issues: readonly Issue[];
}

/** A validated message. `Data` is what the stream's schema returns. */
export interface Reading<Name extends string = string, Data = unknown> {
  readonly stream: Name;
  readonly deviceId: string;
  readonly topic: string;
  /** When the device measured it, by the stream's `time`; else `receivedAt`. */
  readonly time: UnixMs;
  readonly receivedAt: UnixMs;
  readonly data: Data;
  /** Those of the message, if it had any. */
  readonly properties?: MessageProperties | undefined;
}

/** A reading with its place in the journal: (gateway id, offset) is its idempotency key. */
export interface Entry<R extends Reading = Reading> {
  readonly offset: Offset;
  readonly reading: R;
}

/** What a sink is asked to write: entries in journal order. */
export interface Batch {
  /** The gateway id: identifies the journal that the offsets belong to. */
  readonly gateway: string;
  readonly entries: readonly Entry[];
  /** Cursor after this batch: at least the last entry's offset + 1 (records that are not for the sink lie between). */
  readonly next: Offset;
  /** Another batch is written at once behind this one, so that a sink may hold this one back to make both durable together. */
  readonly moreFollows?: boolean;
  /** Entries that the sink may have already, written once more beside live delivery: its position is not concerned. */
  readonly replay?: boolean;
}

/**
 * Why a message was not taken at all (no journal record). reserved-topic: $SYS/ and sluice/ are the gateway's own.
 * not-authorized: the client may not publish there. quota: more unfinished messages than the client may have.
 * malformed, packet-too-large: the PUBLISH itself breaks the protocol. shutting-down: the gateway is stopping.
 * duplicate: the stream's `dedupe.key` says that the journal has it already; it is acknowledged all the same.
 */
export type RefusalReason =
  | "reserved-topic"
  | "not-authorized"
  | "quota"
  | "malformed"
  | "packet-too-large"
  | "shutting-down"
  | "duplicate";

/**
 * What became of a message, known at once. An acknowledgement may go out when the journal is durable beyond `offset`; of a
 * duplicate it is the offset of the first one, which may be durable already.
 */
export type Verdict =
  | { readonly kind: "appended"; readonly offset: Offset }
  | { readonly kind: "duplicate"; readonly offset: Offset }
  | { readonly kind: "rejected"; readonly offset: Offset; readonly rejection: Rejection }
  | { readonly kind: "refused"; readonly reason: RefusalReason };
